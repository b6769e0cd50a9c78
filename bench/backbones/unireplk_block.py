"""The block around UniRepLKNet's operator: squeeze-excite, GRN, and a form for inference."""

from __future__ import annotations

import copy
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import UserError
from bench.operators.base import Operator, fold_norm
from bench.operators.conv import Conv


def response_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """Return x scaled by how strong its channel is on this map: x · G / (mean_C G + eps).

    G (N, C, 1, 1) is the L2 norm of each channel of x (N, C, H, W) over its map.

    Example:
        >>> response_norm(torch.tensor([3.0, 1.0]).view(1, 2, 1, 1)).flatten()
        tensor([4.5000, 0.5000])
    """
    strength = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)
    out: Tensor = x * (strength / (strength.mean(dim=1, keepdim=True) + eps))
    return out


class GRN(nn.Module):
    """Global response normalisation: γ · x · G / (mean_C G + 1e-6) + β + x.

    Paper: ConvNeXt V2, CVPR 2023, arXiv 2301.00808. γ and β start at 0, so that it starts as the
    identity. (N, C, H, W) → (N, C, H, W). Without `bias`, β is left out.

    Example:
        >>> x = torch.randn(2, 8, 5, 6)
        >>> torch.equal(GRN(8)(x), x)
        True
    """

    def __init__(self, channels: int, *, bias: bool = True) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        out = self.gamma.view(1, -1, 1, 1) * response_norm(x) + x
        return out if self.beta is None else out + self.beta.view(1, -1, 1, 1)


class SqueezeExcite(nn.Module):
    """Squeeze-excite: x · sigmoid(up(relu(down(mean over the map of x)))).

    Paper: SENet, CVPR 2018, arXiv 1709.01507. (N, C, H, W) → (N, C, H, W); `down` has
    C // reduction channels, at least one.

    Example:
        >>> se = SqueezeExcite(16)
        >>> se.down.weight.shape, se(torch.zeros(1, 16, 7, 9)).shape
        (torch.Size([4, 16, 1, 1]), torch.Size([1, 16, 7, 9]))
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        inner = max(channels // reduction, 1)
        self.down = nn.Conv2d(channels, inner, 1)
        self.up = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        mean = x.mean(dim=(2, 3), keepdim=True)
        out: Tensor = x * self.up(F.relu(self.down(mean))).sigmoid()
        return out


class UniRepLKBlock(nn.Module):
    """x + drop_path(γ · BN(W₂ GRN(GELU(W₁ SE(BN(operator(x))))))).

    Paper: UniRepLKNet, CVPR 2024, arXiv 2311.15599. The operator is `unireplk` in a LarK block and
    `dwconv` in a SmaK block there; any operator of C → C channels with stride 1 may stand in.
    W₁ (C → 4C, bias) and W₂ (4C → C, no bias) are 1×1 convolutions. (N, C, H, W) → (N, C, H, W).

    Args:
        operator: mixes space; the norm behind it is left out if it absorbs that norm.
        expansion: how many times C the inner channels are.
        layer_scale: initial γ.
        drop_path: drops the whole branch per image in training, such as timm's DropPath(rate).

    Raises:
        ValueError: the operator changes the number of channels or the size of the map.

    Example:
        >>> from bench.operators import create
        >>> block = UniRepLKBlock(create("unireplk", in_channels=8, out_channels=8, kernel_size=13))
        >>> block(torch.zeros(1, 8, 14, 20)).shape
        torch.Size([1, 8, 14, 20])
    """

    def __init__(
        self,
        operator: Operator,
        *,
        expansion: int = 4,
        layer_scale: float = 1e-6,
        drop_path: nn.Module | None = None,
    ) -> None:
        super().__init__()
        spec = operator.spec
        channels = spec.in_channels
        if spec.out_channels != channels or spec.stride != (1, 1):
            raise UserError(
                "`operator` must keep channels and size of the map, to be added to its input: it "
                f"has `in_channels` (={channels}), `out_channels` (={spec.out_channels}), "
                f"`stride` (={spec.stride})."
            )
        self.operator = operator
        self.norm: nn.Module = nn.Identity() if operator.absorbs_norm else nn.BatchNorm2d(channels)
        self.se = SqueezeExcite(channels)
        self.expand = nn.Conv2d(channels, expansion * channels, 1)
        self.grn = GRN(expansion * channels)
        self.reduce = nn.Conv2d(expansion * channels, channels, 1, bias=False)
        self.reduce_norm: nn.Module = nn.BatchNorm2d(channels)
        self.gamma: nn.Parameter | None = nn.Parameter(torch.full((channels,), layer_scale))
        self.drop_path = nn.Identity() if drop_path is None else drop_path

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        y = self.se(self.norm(self.operator(x)))
        y = self.reduce_norm(self.reduce(self.grn(F.gelu(self.expand(y)))))
        if self.gamma is not None:
            y = self.gamma.view(1, -1, 1, 1) * y
        out: Tensor = x + self.drop_path(y)
        return out

    @torch.no_grad()
    def fuse(self) -> Self:
        """Return the block of equal value for inference; this one stays as it is.

        The operator fuses, and takes up the norm behind it if it fuses to a convolution. GRN's β,
        the last norm and γ go into W₂, which gets a bias: with the norm's scale s and shift t,
        W₂' = γ·s·W₂ and bias' = γ·(s·W₂β + t).
        """
        fused = copy.deepcopy(self).eval()
        fused.operator = self.operator.fuse()
        fused.drop_path = nn.Identity()
        if isinstance(fused.operator, Conv) and isinstance(self.norm, nn.BatchNorm2d):
            conv = fused.operator
            weight, bias = fold_norm(conv.conv.weight.double(), conv.conv.bias, self.norm)
            dtype = conv.conv.weight.dtype
            fused.operator = Conv.holding(conv.spec, weight.to(dtype), bias.to(dtype))
            fused.norm = nn.Identity()
        if isinstance(self.reduce_norm, nn.BatchNorm2d):
            _fold_reduce(self, fused)
        return fused


def _fold_reduce(block: UniRepLKBlock, fused: UniRepLKBlock) -> None:
    """Put β, the last norm and γ of `block` into W₂ of `fused`, in double precision."""
    assert isinstance(block.reduce_norm, nn.BatchNorm2d)
    weight = block.reduce.weight.double()
    bias = None if block.reduce.bias is None else block.reduce.bias.double()
    if block.grn.beta is not None:
        moved = weight.flatten(1) @ block.grn.beta.double()
        bias = moved if bias is None else bias + moved
    weight, bias = fold_norm(weight, bias, block.reduce_norm)
    if block.gamma is not None:
        gamma = block.gamma.double()
        weight, bias = gamma.view(-1, 1, 1, 1) * weight, gamma * bias
    fused.grn.beta = None
    fused.gamma = None
    fused.reduce_norm = nn.Identity()
    dtype = block.reduce.weight.dtype
    fused.reduce.weight = nn.Parameter(weight.to(dtype))
    fused.reduce.bias = nn.Parameter(bias.to(dtype))
