"""Shiftwise convolution: a large kernel from small ones, shifted, added and left out at random."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import UserError, require
from bench.operators import correlation, gpu
from bench.operators.base import ConvSpec, Operator, fold_norm, require_count
from bench.operators.correlation import Geometry
from bench.operators.forms import Compute, Formed, like, traced
from bench.operators.kernels import require_small_kernel
from bench.operators.one_pass import Channels, NormedSum, Term, watched
from bench.operators.registry import register
from bench.operators.shift_strips import (
    add_to_strip,
    blocks_for,
    horizontal,
    identity_kernel,
    strip_conv,
    strip_padding,
    vertical,
)
from bench.operators.shift_tables import OFFICIAL_SEED, convolved_channels, draw


def take(blocks: Tensor, table: Tensor) -> Tensor:
    """Sum over the edges of the small kernels that a table names.

    Args:
        blocks: small kernels (C, nk, N, N).
        table: indices into nk, (R, C, B).

    Returns:
        (C, B, N, N): out[c, i] = Σ_r blocks[c, table[r, c, i]].
    """
    edges, channels, count = table.shape
    _, _, n, _ = blocks.shape
    index = table.view(edges, channels, count, 1, 1).expand(-1, -1, -1, n, n)
    return blocks.expand(edges, -1, -1, -1, -1).gather(2, index).sum(0)


def picks(table: Tensor, blocks: int) -> Tensor:
    """Return how often each small kernel is taken at each place.

    Args:
        table: of indices into the small kernels, (R, C, B).
        blocks: nk, the number of small kernels.

    Returns:
        (C, B, nk): Σ_r [table[r, c, i] = k].

    Example:
        >>> picks(torch.tensor([[[0, 1]], [[1, 1]]]), 2).tolist()
        [[[1, 1], [0, 2]]]
    """
    return F.one_hot(table, blocks).sum(0)


@register("shift")
class Shiftwise(NormedSum):
    """Shiftwise convolution, v2 of Shift-Conv (arXiv 2401.12736; CVPR 2025), depthwise.

    Every convolved channel c has nk = ⌈M/N⌉ small N × N kernels, the sum over `paths` of its
    weights. Each of `edges` random permutations lays them out as a strip: block i of the
    horizontal strip is Σ_r w[c, h_r(i)], of the vertical strip Σ_r w[c, v_r(i)], and the centre
    kernel is Σ_r w[c, z_r]; kernels that fall on one place add up, so others are missing, which
    makes the large kernel sparse. The strips have nk·N taps, M // 2 of them before the pixel:

        y = BN(strip_h ∗ x) + BN(strip_v ∗ x) + BN(centre ∗ x) + x.

    This equals shifting the outputs of nk grouped convolutions, at a fraction of the cost. A
    share `ghost_ratio` of the channels rests: the output is [convolved channels | ghosts], each
    in its old order, so the order of the channels changes. M is the size of the replaced kernel.
    At stride s everything is taken at every s-th pixel.

    The tables are drawn from a private generator and live in the state_dict. Unless a seed is
    given, it is drawn from torch's generator like the weights, so layers differ.

    Args:
        spec: depthwise, a square kernel of odd size, padded with zeros to the same size.
        small_kernel: N, odd, at most M.
        ghost_ratio: share of the channels that pass through unchanged, in [0, 1).
        paths: how many sets of weights are added up (the paper's "Rep").
        edges: R, how many permutations are added up.
        seed: of the tables; None draws one from torch's generator.
        official_tables: use the tables of the public networks, which are those of seed 123.

    Raises:
        ValueError: another convolution, an even small kernel, or no channel left to convolve.

    Example:
        >>> import torch
        >>> spec = ConvSpec.make(in_channels=12, out_channels=12, kernel_size=13, groups=12)
        >>> op = Shiftwise(spec, official_tables=True)
        >>> op(torch.zeros(1, 12, 14, 20)).shape, op.ghosts.tolist(), op.params()
        (torch.Size([1, 12, 14, 20]), [0, 4, 5, 9], 768)
    """

    requires = ("depthwise", "odd_square", "no_dilation", "same_padding", "zeros")
    residual = True
    ghosts: Tensor
    convolved: Tensor
    horizontal: Tensor
    vertical: Tensor
    centre: Tensor

    def __init__(
        self,
        spec: ConvSpec,
        *,
        small_kernel: int = 3,
        ghost_ratio: float = 0.23,
        paths: int = 2,
        edges: int = 4,
        seed: int | None = None,
        official_tables: bool = False,
    ) -> None:
        super().__init__(spec)
        require_small_kernel(small_kernel, spec)
        require_count("paths", paths)
        require_count("edges", edges)
        require("ghost_ratio", ghost_ratio, 0 <= ghost_ratio < 1, "in [0, 1)")
        count = convolved_channels(spec.in_channels, ghost_ratio)
        if count == 0:
            raise UserError(
                f"shift convolves an even number of channels: `in_channels` "
                f"(={spec.in_channels}) times 1 - `ghost_ratio` (={ghost_ratio}) must be >= 2."
            )
        if official_tables and seed is not None:
            raise UserError(f"`seed` (={seed}) must be None with `official_tables` (=True).")
        self.small_kernel = small_kernel
        nk = blocks_for(spec.kernel_size[0], small_kernel)
        self.weight = nn.Parameter(torch.empty(paths, count * nk, small_kernel, small_kernel))
        nn.init.uniform_(self.weight, -1 / small_kernel, 1 / small_kernel)
        with torch.device("cpu"):  # numbers to draw are not there under torch.device("meta")
            if official_tables:
                seed = OFFICIAL_SEED
            elif seed is None:
                seed = int(torch.randint(2**31, ()))
            tables = draw(spec.in_channels, ghost_ratio, nk, edges, seed)
            channels = torch.arange(spec.in_channels)
            convolved = channels[~torch.isin(channels, tables.ghosts)]
        for key, table in {**tables._asdict(), "convolved": convolved}.items():
            self.register_buffer(key, table.to(self.weight.device))
        self._counted: tuple[list[tuple[int, int]], tuple[Tensor, ...], Tensor] | None = None
        self.norm_horizontal = nn.BatchNorm2d(count)
        self.norm_vertical = nn.BatchNorm2d(count)
        self.norm_centre = nn.BatchNorm2d(count)

    @property
    def before(self) -> int:
        """Taps of a strip before the output pixel."""
        return self.spec.kernel_size[0] // 2

    def kernels(self) -> tuple[Tensor, Tensor, Tensor]:
        """Horizontal (C, 1, N, nk·N), vertical (C, 1, nk·N, N) and centre kernel (C, 1, N, N)."""
        blocks = torch.unflatten(self.weight.sum(0), 0, (-1, self.horizontal.shape[2]))
        return (
            horizontal(take(blocks, self.horizontal)),
            vertical(take(blocks, self.vertical)),
            take(blocks, self.centre.unsqueeze(-1)),
        )

    def kernels_by_product(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same, as one product of small matrices: several times faster in training.

        Each block is Σ_k picks[k]·w[k].
        """
        blocks = torch.unflatten(self.weight.sum(0), 0, (-1, self.horizontal.shape[2]))
        _, nk, n, _ = blocks.shape
        laid = torch.bmm(self._picks(), blocks.flatten(2)).view(len(blocks), -1, n, n)
        return horizontal(laid[:, :nk]), vertical(laid[:, nk:-1]), laid[:, -1:]

    def _picks(self) -> Tensor:
        """Return the picks of horizontal, vertical and centre blocks, (C, 2·nk + 1, nk).

        They are counted anew where a table is another one, or was written to.
        """
        tables = (self.horizontal, self.vertical, self.centre)
        if any(table.is_inference() for table in tables):
            return self._count(tables)
        state = [(id(table), table._version) for table in tables]
        if self._counted is None or self._counted[0] != state:
            self._counted = (state, tables, self._count(tables))
        return self._counted[2]

    def _count(self, tables: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        strips, centre = tables[:2], tables[2].unsqueeze(-1)
        counts = picks(torch.cat([*strips, centre], 2), strips[0].shape[2])
        return counts.to(self.weight.dtype)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is counted: a copy has tables of its own."""
        return {**self.__dict__, "_counted": None}

    def terms(self) -> list[Term | None]:
        """Return both strips and the centre, of the convolved channels."""
        norms = (self.norm_horizontal, self.norm_vertical, self.norm_centre)
        if self.spec.stride != (1, 1) or any(map(watched, norms)):
            return [None]
        n = self.small_kernel // 2
        kernels = self.kernels_by_product()
        paddings = (*(strip_padding(strip, self.before) for strip in kernels[:2]), (n, n, n, n))
        return [Term(*term, (1, 1)) for term in zip(kernels, norms, paddings, strict=True)]

    def channels(self, x: Tensor) -> Channels:
        """Return the convolved channels, and the ghosts."""
        return Channels(self.convolved, self.ghosts)

    def by_terms(self, x: Tensor) -> Tensor:
        """Compute the value by torch's calls, strip by strip."""
        stride = self.spec.stride
        active = x[:, self.convolved]
        strip_h, strip_v, centre = self.kernels()
        y = self.norm_horizontal(strip_conv(active, strip_h, self.before, stride))
        y = y + self.norm_vertical(strip_conv(active, strip_v, self.before, stride))
        y = y + self.norm_centre(strip_conv(active, centre, self.small_kernel // 2, stride))
        y = y + subsample(active, stride)
        return torch.cat([y, subsample(x[:, self.ghosts], stride).to(y.dtype)], dim=1)

    def macs(self, h: int, w: int) -> int:
        """H'·W'·C'·(2·N·nk·N + N²), with C' the convolved channels."""
        oh, ow = self.spec.output_size(h, w)
        _, channels, nk = self.horizontal.shape
        return oh * ow * channels * self.small_kernel**2 * (2 * nk + 1)

    def params(self) -> int:
        """C'·(paths·nk·N² + 6): the weights and three norms."""
        _, channels, nk = self.horizontal.shape
        return channels * (len(self.weight) * nk * self.small_kernel**2 + 6)

    def fused(self) -> Operator:
        """Fold the norms; the centre and the identity go into the horizontal strip."""
        strip_h, strip_v, centre = (k.detach() for k in self.kernels())
        kernel_h, bias_h = fold_norm(strip_h, None, self.norm_horizontal)
        kernel_v, bias_v = fold_norm(strip_v, None, self.norm_vertical)
        kernel_c, bias_c = fold_norm(centre, None, self.norm_centre)
        kernel_c = kernel_c + identity_kernel(len(kernel_c), self.small_kernel, kernel_c)
        kernel_h = add_to_strip(kernel_h, kernel_c, self.before)
        return Strips(
            self.spec, kernel_h, kernel_v, bias_h + bias_v + bias_c, self.convolved, self.ghosts
        )


def subsample(x: Tensor, stride: tuple[int, int]) -> Tensor:
    """Every s-th pixel."""
    return x if stride == (1, 1) else x[:, :, :: stride[0], :: stride[1]]


class Strip(Formed):
    """A depthwise convolution by one strip, with `before` taps in front of the output pixel."""

    def __init__(
        self, kernel: Tensor, bias: Tensor | None, before: int, stride: tuple[int, int]
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(kernel.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.geometry = Geometry(stride, strip_padding(kernel, before), (1, 1))

    def forms(self, x: Tensor) -> tuple[str, ...]:
        """Return those of `bench.operators.correlation`."""
        return correlation.forms(x, self.weight, self.geometry)

    def prepared(self, form: str, x: Tensor) -> Compute:
        """Return the convolution in a form."""
        return correlation.prepared(form, x, self.weight, self.bias, self.geometry)

    def extra_repr(self) -> str:
        """Show the kernel and how it is laid."""
        return f"{tuple(self.weight.shape)}, {self.geometry}"


class Strips(Formed, Operator):
    """Inference form of `shift` and `shift_split`: a horizontal and a vertical strip, one bias.

    y = [strip_h ∗ x_convolved + strip_v ∗ x_convolved + b | x_ghosts]; the norms, the centre
    kernel and the identity are in the strips, of nk·N taps, M // 2 of them before the pixel.

    Each strip in a form of its own ("apart"), or on a GPU all that happens to a plane at once,
    which so is read once ("at once").
    """

    convolved: Tensor
    ghosts: Tensor

    def __init__(
        self,
        spec: ConvSpec,
        strip_horizontal: Tensor,
        strip_vertical: Tensor,
        bias: Tensor,
        convolved: Tensor,
        ghosts: Tensor,
    ) -> None:
        super().__init__(spec)
        before = spec.kernel_size[0] // 2
        self.horizontal = Strip(strip_horizontal, bias, before, spec.stride)
        self.vertical = Strip(strip_vertical, None, before, spec.stride)
        self.register_buffer("convolved", convolved.clone())
        self.register_buffer("ghosts", ghosts.clone())
        self.eval()

    def forms(self, x: Tensor) -> tuple[str, ...]:
        """Return "apart", and "at once" where a GPU can."""
        able = self.spec.stride == (1, 1) and gpu.takes_whole(x) and not traced()
        fits = able and self.horizontal.weight.dtype == x.dtype
        return ("apart", "at once") if fits else ("apart",)

    def learnable(self, form: str) -> bool:
        """Return whether torch computes it all."""
        return form == "apart"

    def prepared(self, form: str, x: Tensor) -> Compute:
        """Return both strips in a form."""
        if form == "apart":
            return self.apart
        source = torch.cat([self.convolved, self.ghosts])
        strips = [strip.weight.contiguous() for strip in self.parts()]
        before = self.spec.kernel_size[0] // 2
        run = gpu.kernels().strips
        return lambda x: like(run(x, source, *strips, self.horizontal.bias, before), x)

    def only(self, x: Tensor) -> Compute | None:
        """Return both strips apart, but on a GPU."""
        return None if gpu.usable(x) else self.apart

    def parts(self) -> tuple[Strip, Strip]:
        """Return both strips."""
        return self.horizontal, self.vertical

    def apart(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, ⌈H/s⌉, ⌈W/s⌉), strip by strip, the ghost channels last."""
        active = x[:, self.convolved] if len(self.ghosts) else x
        y: Tensor = self.horizontal(active) + self.vertical(active)
        if not len(self.ghosts):
            return y
        return torch.cat([y, subsample(x[:, self.ghosts], self.spec.stride).to(y.dtype)], dim=1)

    def macs(self, h: int, w: int) -> int:
        """H'·W'·C'·2·N·nk·N."""
        oh, ow = self.spec.output_size(h, w)
        return oh * ow * (self.horizontal.weight.numel() + self.vertical.weight.numel())

    def params(self) -> int:
        """C'·(2·N·nk·N + 1)."""
        channels, _, n, length = self.horizontal.weight.shape
        return channels * (2 * n * length + 1)
