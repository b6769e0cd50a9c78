"""Dilated re-parameterisation block (UniRepLKNet)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from bench.errors import UserError
from bench.operators.base import ConvSpec
from bench.operators.branches import Branch, BranchSum, merge
from bench.operators.conv import Conv
from bench.operators.kernels import contained
from bench.operators.registry import register

# The paper's branches (k, r), kernel size and dilation, for each large kernel K.
BRANCHES: dict[int, tuple[tuple[int, int], ...]] = {
    5: ((3, 1), (3, 2)),
    7: ((5, 1), (3, 2), (3, 3)),
    9: ((5, 1), (5, 2), (3, 3), (3, 4)),
    11: ((5, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    15: ((5, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    17: ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
}


def dilated_branches(
    kernel_size: int, branches: Sequence[Sequence[int]] | None
) -> tuple[tuple[int, int], ...]:
    """Return the branches (k, r) beside the K×K kernel: the paper's, or `branches` if they fit.

    Raises:
        ValueError: no branches are given and the paper has none for this K, or a branch is not a
            pair of an odd k and a dilation r >= 1 with (k − 1)·r + 1 <= K.

    Example:
        >>> dilated_branches(13, None)
        ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5))
        >>> dilated_branches(13, [(7, 3)])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        bench.errors.UserError: `branches` (=[(7, 3)]): (k - 1) * r + 1 (=19) of (7, 3) must be ...
    """
    if branches is None:
        if kernel_size not in BRANCHES:
            hint = " (the paper's 3x3 block is plainly depthwise: 'dwconv')"
            raise UserError(
                f"`kernel_size` (={kernel_size}) must be one of {', '.join(map(str, BRANCHES))}, "
                f"or `branches` be given{hint if kernel_size == 3 else ''}."
            )
        return BRANCHES[kernel_size]
    if not isinstance(branches, list | tuple):
        raise UserError(f"`branches` (={branches!r}) must be a list of pairs (k, r).")
    checked = []
    for branch in branches:
        integers = isinstance(branch, list | tuple) and all(type(n) is int for n in branch)
        if not integers or len(branch) != 2 or branch[0] < 1 or branch[0] % 2 == 0 or branch[1] < 1:
            raise UserError(
                f"`branches` (={branches!r}): {branch!r} must be a pair (k, r) of an odd kernel "
                "size k and a dilation r >= 1."
            )
        k, r = branch
        if (k - 1) * r + 1 > kernel_size:
            raise UserError(
                f"`branches` (={branches!r}): (k - 1) * r + 1 (={(k - 1) * r + 1}) of {(k, r)} "
                f"must be <= K (={kernel_size})."
            )
        checked.append((k, r))
    return tuple(checked)


@register("unireplk")
class UniRepLK(BranchSum):
    """Dilated re-parameterisation block: BN(K×K ∗ x) + Σ_i BN(k_i×k_i, dilation r_i ∗ x).

    Paper: UniRepLKNet, CVPR 2024, arXiv 2311.15599. Depthwise, no biases but the norms'. Every
    dilated kernel fits in the large one, (k − 1)·r + 1 <= K, and all are centred alike, so
    `fuse()` spreads their taps, folds the norms and adds: one depthwise K×K convolution with a
    bias. The paper's blocks have stride 1; any other stride merges as exactly and is accepted.
    K = 3 is refused without `branches`: the paper's 3×3 blocks are plain depthwise convolutions.

    Args:
        spec: the convolution replaced; depthwise, odd square kernel, zero padding that keeps the
            map's size, no dilation. K = 5, 7, …, 17 have the paper's branches.
        branches: pairs (k, r) instead of the paper's; `[]` leaves the K×K branch alone.

    Raises:
        ValueError: as said above, or branches that do not fit.

    Example:
        >>> import torch
        >>> spec = ConvSpec.make(in_channels=8, out_channels=8, kernel_size=13, groups=8)
        >>> op = UniRepLK(spec).eval()
        >>> op.params(), op.fuse().params(), op(torch.zeros(1, 8, 14, 20)).shape
        (2256, 1360, torch.Size([1, 8, 14, 20]))
    """

    requires = ("depthwise", "odd_square", "no_dilation", "same_padding", "zeros")

    def __init__(self, spec: ConvSpec, *, branches: Sequence[Sequence[int]] | None = None) -> None:
        super().__init__(spec)
        self.branches = dilated_branches(spec.kernel_size[0], branches)
        self.large = Branch(spec)
        self.dilated = nn.ModuleList(
            Branch(
                replace(
                    spec, kernel_size=(k, k), dilation=(r, r), padding=(r * (k // 2), r * (k // 2))
                )
            )
            for k, r in self.branches
        )

    def parts(self) -> list[Branch]:
        """Return the large kernel's and the dilated ones'."""
        return [self.large, *self._dilated()]

    def _taps(self) -> int:
        return self.spec.kernel_size[0] ** 2 + sum(k * k for k, _ in self.branches)

    def macs(self, h: int, w: int) -> int:
        """C·H'·W'·(K² + Σk²)."""
        oh, ow = self.spec.output_size(h, w)
        return self.spec.in_channels * oh * ow * self._taps()

    def params(self) -> int:
        """C·(K² + Σk² + 2·(1 + n)) with n dilated branches."""
        return self.spec.in_channels * (self._taps() + 2 * (1 + len(self.branches)))

    def fused(self) -> Conv:
        """Return the one depthwise K×K convolution of equal value, with a bias."""
        return merge(self.spec, self.parts())

    def carry(self, conv: nn.Conv2d, norm: nn.Module | None = None) -> bool:
        """Start with the value of `conv`, in eval mode exactly, if its taps fit in the kernel.

        The large kernel takes the weights; the norms of the dilated branches start at γ = 0, so
        that these add nothing at first but learn.
        """
        kernel = contained(conv, self.spec)
        if kernel is None:
            return False
        self.large.hold(kernel, conv.bias)
        for branch in self._dilated():
            branch.silence()
        return True

    def _dilated(self) -> list[Branch]:
        return [branch for branch in self.dilated if isinstance(branch, Branch)]
