"""Parallel convolutions, each with its norm, that merge into one convolution exactly."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from bench.operators.base import ConvSpec, fold_norm
from bench.operators.conv import Conv
from bench.operators.kernels import embed
from bench.operators.one_pass import NormedSum, Term, watched


class Statistics(NamedTuple):
    """What a batch norm does in eval mode: (x − mean) / √(var + eps) · gamma + beta."""

    mean: Tensor
    var: Tensor
    gamma: Tensor
    beta: Tensor
    eps: float

    @classmethod
    def of(cls, norm: nn.Module) -> Self | None:
        """Read any batch norm, synchronised and frozen ones too; None for other norms."""
        mean, var = getattr(norm, "running_mean", None), getattr(norm, "running_var", None)
        if not isinstance(mean, Tensor) or not isinstance(var, Tensor):
            return None
        gamma, beta = getattr(norm, "weight", None), getattr(norm, "bias", None)
        return cls(
            mean,
            var,
            gamma.detach() if isinstance(gamma, Tensor) else torch.ones_like(mean),
            beta.detach() if isinstance(beta, Tensor) else torch.zeros_like(mean),
            float(getattr(norm, "eps", 1e-5)),
        )


class Branch(nn.Module):
    """BN(convolution without bias) of the shape `spec`."""

    def __init__(self, spec: ConvSpec) -> None:
        super().__init__()
        self.conv = spec.conv(bias=False)
        self.norm = nn.BatchNorm2d(spec.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, Cin, H, W) to (N, Cout, H', W')."""
        out: Tensor = self.norm(self.conv(x))
        return out

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution that equals this branch, in double precision."""
        return fold_norm(self.conv.weight.double(), None, self.norm)

    @torch.no_grad()
    def hold(self, weight: Tensor, bias: Tensor | None, norm: Statistics | None = None) -> None:
        """Become norm(weight ∗ x + bias), in value exactly in eval mode; no norm: the identity."""
        batch_norm = self.norm
        batch_norm.reset_parameters()
        assert batch_norm.running_mean is not None
        assert batch_norm.running_var is not None
        self.conv.weight.copy_(weight)
        if norm is None:
            batch_norm.weight.mul_((1 + batch_norm.eps) ** 0.5)
            if bias is not None:
                batch_norm.bias.copy_(bias)
            return
        batch_norm.running_mean.copy_(norm.mean if bias is None else norm.mean - bias)
        batch_norm.running_var.copy_(norm.var)
        # Another ε is made good in γ: a state_dict could not carry it.
        batch_norm.weight.copy_(
            norm.gamma * ((norm.var + batch_norm.eps) / (norm.var + norm.eps)).sqrt()
        )
        batch_norm.bias.copy_(norm.beta)

    @torch.no_grad()
    def silence(self) -> None:
        """Start at the value 0 and learn from there: γ = 0, as the last norm of a residual."""
        self.norm.weight.zero_()


class BranchSum(NormedSum):
    """An operator that is the sum of branches."""

    @abstractmethod
    def parts(self) -> Sequence[Branch]:
        """Return what is added up."""

    def by_terms(self, x: Tensor) -> Tensor:
        """Add the branches' values up."""
        first, *others = self.parts()
        out: Tensor = first(x)
        for branch in others:
            out = out + branch(x)
        return out

    def terms(self) -> Sequence[Term | None]:
        """Return the branches as they are added up in one pass; None for one that cannot be."""
        return [
            None if watched(branch) else Term.of(branch.conv, branch.norm)
            for branch in self.parts()
        ]


def merge(spec: ConvSpec, branches: Sequence[Branch]) -> Conv:
    """Return the one convolution of the shape `spec` that equals the sum of the branches.

    The sum is taken in double precision, so that it is rounded once.
    """
    weights, biases = [], []
    for branch in branches:
        weight, bias = branch.folded()
        dh, dw = (d // base for d, base in zip(branch.conv.dilation, spec.dilation, strict=True))
        weights.append(embed(weight, spec.kernel_size, (dh, dw)))
        biases.append(bias)
    dtype = branches[0].conv.weight.dtype
    return Conv.holding(
        spec, torch.stack(weights).sum(0).to(dtype), torch.stack(biases).sum(0).to(dtype)
    )
