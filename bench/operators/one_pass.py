"""Sums of normed depthwise convolutions, with all gradients, in one pass over each channel.

    y = Σ_b BN_b(w_b ∗ x)  [+ x]

is what Shiftwise, SLaK, ACB, UniRepLK and RepLK compute as they learn. By torch's calls it takes
three passes over memory a term, and as many again for the gradients. Each channel is by itself,
its norms too: here all that happens to it happens while it lies in the caches.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import product
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.operators import jit
from bench.operators.base import Operator
from bench.operators.choices import problem
from bench.operators.depthwise import Ends
from bench.operators.forms import active, like, traced

FLOATS = 3072
"""Numbers of a channel that are laid out at once, about: a quarter of a small cache."""
WIDE = 9
"""Taps that are added in one turn; a group of them is filled up with weights of zero."""
VECTORS = 64
"""Loops along a line run over multiples of so many numbers."""


class Term(NamedTuple):
    """A depthwise convolution and the norm behind it.

    Attributes:
        kernel: (C, 1, Kh, Kw).
        norm: of C channels.
        padding: zeros at top, bottom, left and right, which keep the size of the map.
        dilation: step between taps, along height and width.
    """

    kernel: Tensor
    norm: nn.Module
    padding: Ends
    dilation: tuple[int, int]

    @classmethod
    def of(cls, conv: nn.Conv2d, norm: nn.Module) -> Term | None:
        """Return the term of two modules; None where they are something else.

        A dense convolution, a bias, a stride, other padding than zeros, or somebody who watches.
        """
        groups = conv.groups == conv.in_channels == conv.out_channels
        plain = groups and conv.bias is None and conv.stride == (1, 1)
        if not plain or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            return None
        if watched(conv) or watched(norm):
            return None
        (ph, pw), (dh, dw) = conv.padding, conv.dilation
        return cls(conv.weight, norm, (ph, ph, pw, pw), (dh, dw))

    def keeps_size(self) -> bool:
        """Whether the map that comes out is as large as the one that goes in."""
        top, bottom, left, right = self.padding
        down, across = (
            d * (k - 1) for d, k in zip(self.dilation, self.kernel.shape[2:], strict=True)
        )
        return (top + bottom, left + right) == (down, across) and min(self.padding) >= 0


def watched(module: nn.Module) -> bool:
    """Return whether hooks wait for what passes through a module."""
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    return any(hooks) or any((module._backward_hooks, module._backward_pre_hooks))


class Channels(NamedTuple):
    """Which channels of a map a sum is over, and which pass through behind them.

    Attributes:
        summed: int64, (C).
        resting: int64, (G).
    """

    summed: Tensor
    resting: Tensor


class NormedSum(Operator):
    """An operator that learns as a sum of normed depthwise convolutions, Σ_b BN_b(w_b ∗ x) [+ x].

    A subclass computes it by torch's calls, and names its terms. The one pass is taken where it was
    measured to be faster (`bench.operators.forms.fastest`), and where it can be: on a CPU, in
    float32, with numba, while all norms learn from the batch. `form` may say otherwise.

    Attributes:
        form: "auto", "terms" (torch's calls) or "one pass".
        residual: whether x is added.
    """

    form: Literal["auto", "terms", "one pass"] = "auto"
    residual = False

    @abstractmethod
    def by_terms(self, x: Tensor) -> Tensor:
        """Compute the value by torch's calls."""

    @abstractmethod
    def terms(self) -> Sequence[Term | None]:
        """Return what is added up; None for what is no normed depthwise convolution."""

    def channels(self, x: Tensor) -> Channels:
        """Return which channels are summed, and which rest: by default all, and none."""
        every = torch.arange(x.shape[1])
        return Channels(every, every[:0])

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, Cin, H, W) to (N, Cout, H', W')."""
        if self.form == "terms" or not _passable(self, x):
            return self.by_terms(x)
        terms = self.terms()
        if not _learning(terms):
            return self.by_terms(x)
        if self.form == "auto" and self._fastest(x, terms) == "terms":
            return self.by_terms(x)
        return normed_sum(x, terms, self.channels(x), residual=self.residual)

    def _fastest(self, x: Tensor, terms: Sequence[Term]) -> str:
        choices = active()
        if choices is None:
            return "terms"
        shapes = [[*t.kernel.shape, *t.padding, *t.dilation] for t in terms]
        key = (self.name, x.shape, x.stride(), str(shapes))
        form = choices.recalled(key)
        if form is None:
            described = {"terms": shapes, "residual": self.residual}
            of = problem(f"{self.name}, training", x, type(self), **described)
            probes = {form: self._probe(form) for form in ("terms", "one pass")}
            steps = {form: partial(_step, op, x) for form, op in probes.items()}
            form = choices.best(of, steps, key)
        return form

    def _probe(self, form: Literal["terms", "one pass"]) -> NormedSum:
        """Return a copy in a form, whose norms may meet what they like."""
        probe = copy.deepcopy(self)
        probe.form = form
        return probe


@torch.enable_grad()
def _step(operator: NormedSum, x: Tensor) -> Sequence[Tensor]:
    x = x.detach().requires_grad_()
    y = operator(x)
    inputs = [x, *(p for p in operator.parameters() if p.requires_grad)]
    return torch.autograd.grad(y, inputs, y.detach().square())


def _passable(operator: Operator, x: Tensor) -> bool:
    """Whether an operator learns from maps that the kernels take."""
    return (
        operator.training
        and torch.is_grad_enabled()
        and jit.usable(x)
        and x.dim() == 4
        and x.shape[1] == operator.spec.in_channels
        and x.numel() > 0
        and not traced()
        and not torch._C._is_any_autocast_enabled()
        and not watched(operator)
    )


def _learning(terms: Sequence[Term | None]) -> TypeGuard[Sequence[Term]]:
    """Whether all are there, keep the map's size, and learn from the batch as the kernels do."""
    return all(
        term is not None
        and term.keeps_size()
        and term.kernel.dtype == torch.float32
        and type(term.norm) is nn.BatchNorm2d
        and term.norm.training
        and term.norm.affine
        and term.norm.weight.dtype == torch.float32
        and term.norm.running_mean is not None
        and term.norm.momentum is not None
        for term in terms
    )


def normed_sum(
    x: Tensor, terms: Sequence[Term], channels: Channels, *, residual: bool = False
) -> Tensor:
    """Return Σ_b BN_b(w_b ∗ x), and x where it is asked for, in one pass over each channel.

    The norms take the statistics of the batch, and their running ones move as torch moves them.

    Args:
        x: (N, C + G, H, W), float32, on a CPU; N·H·W > 1.
        terms: what is added up, of kernels (C, 1, Kh, Kw), which keep the map's size.
        channels: C that are summed, and G that pass through behind them.
        residual: whether to add x.

    Returns:
        (N, C + G, H, W), in the layout of x: [summed channels | resting channels].

    Raises:
        ValueError: there is one value a channel, from which the norms learn nothing; the channels
            are not those of x, each once; or kernels or norms are of another number of channels.

    Example:
        >>> x, conv = torch.rand(2, 4, 5, 5), nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        >>> term, every = Term.of(conv, nn.BatchNorm2d(4)), torch.arange(4)
        >>> plain = F.batch_norm(conv(x), None, None, training=True)
        >>> if jit.usable(x):
        ...     y = normed_sum(x, [term], Channels(every, every[:0]))
        ...     assert torch.allclose(y, plain, atol=1e-5)
    """
    images, _, height, width = x.shape
    count = images * height * width
    if count == 1:
        raise ValueError(f"`x` (of shape {list(x.shape)}) must have more than one value a channel.")
    norms = [cast(nn.BatchNorm2d, term.norm) for term in terms]
    # The kernels look at no bounds.
    if not torch.cat(channels).sort().values.equal(torch.arange(x.shape[1])):
        raise ValueError(f"`channels` must be the {x.shape[1]} channels of `x`, each once.")
    sizes = {*(len(term.kernel) for term in terms), *(norm.num_features for norm in norms)}
    if sizes != {len(channels.summed)}:
        raise ValueError(f"`terms` must have {len(channels.summed)} channels each, not {sizes}.")
    shapes = tuple(
        _Shape((t.kernel.shape[2], t.kernel.shape[3]), (t.padding[0], t.padding[2]), t.dilation)
        for t in terms
    )
    layout = _layout(images, height, width, len(channels.summed), shapes)
    eps = _numbers(tuple(norm.eps for norm in norms))
    fixed = _Fixed(channels, shapes, eps, residual, layout)
    learnt = [
        *(term.kernel for term in terms),
        *(norm.weight for norm in norms),
        *(norm.bias for norm in norms),
    ]
    out, mean, var = _OnePass.apply(x.contiguous(), fixed, *learnt)
    with torch.no_grad():
        for norm, middle, spread in zip(norms, mean, var * (count / (count - 1)), strict=True):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            assert norm.num_batches_tracked is not None
            assert norm.momentum is not None
            norm.running_mean.lerp_(middle, norm.momentum)
            norm.running_var.lerp_(spread, norm.momentum)
            norm.num_batches_tracked.add_(1)
    return like(out, x)


@lru_cache(64)
def _numbers(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class _Shape(NamedTuple):
    """How a kernel is laid over a map."""

    kernel: tuple[int, int]
    before: tuple[int, int]
    dilation: tuple[int, int]


class _Layout(NamedTuple):
    """How a channel lies in memory while it is computed, as `one_pass_kernels` reads it.

    Images lie one behind the other along a line, row by row. Those of terms that are wider than
    high lie turned, so that the many taps of a strip step from row to row. Taps that fall outside
    of the map wherever they stand are left out.

    Attributes:
        order: of every tap, where its first channel stands among all weights, and the step to the
            next channel, (T, 2); −1 fills a group up.
        steps: of every tap, along the line, (T).
        groups: of taps, (G, 6).
        turned: whether the images of a term lie turned, (B).
        lines: of images as they are, and turned, (2, 7); zeros where no term needs them.
        inside: 1 on pixels, 0 between them; for full lines and for the last one, (2, 2, length).
        slots: images of a line.
    """

    order: Tensor
    steps: Tensor
    groups: Tensor
    turned: Tensor
    lines: Tensor
    inside: Tensor
    slots: int


@lru_cache(64)
def _layout(
    images: int, height: int, width: int, channels: int, shapes: tuple[_Shape, ...]
) -> _Layout:
    turned = _turned(shapes)
    taps: list[list[_Tap]] = []
    start = 0
    for flip, ((kh, kw), (top, left), (dh, dw)) in zip(turned, shapes, strict=True):
        reached = []
        for u, v in product(range(kh), range(kw)):
            down, across = u * dh - top, v * dw - left
            if abs(down) < height and abs(across) < width:
                place = (across, down) if flip else (down, across)
                reached.append(_Tap(*place, start + u * kw + v, kh * kw))
        taps.append(sorted(reached))
        start += channels * kh * kw
    most = max(1, FLOATS // (height * width))
    chunks = -(-images // most)
    slots = -(-images // chunks)
    lines = [
        _Line.of([t for flip, t in zip(turned, taps, strict=True) if flip == way], size, slots)
        for way, size in ((False, (height, width)), (True, (width, height)))
    ]
    left = images - (chunks - 1) * slots
    inside = torch.zeros(2, 2, max(line.length for line in lines))
    for line, masks in zip(lines, inside, strict=True):
        for count, mask in zip((slots, left), masks, strict=True):
            line.mark(mask, count)
    places: list[tuple[int, int]] = []
    steps: list[int] = []
    groups = []
    for term, (flip, mine) in enumerate(zip(turned, taps, strict=True)):
        line = lines[flip]
        for group in _groups(mine):
            groups.append([term, len(places), *line.reach(group, 1), *line.reach(group, -1)])
            fill = WIDE - len(group)
            places += [(tap.weight, tap.next) for tap in group] + [(-1, 0)] * fill
            filled = [*group, *[group[-1]] * fill]
            steps.extend(tap.down * line.pitch + tap.across for tap in filled)
    return _Layout(
        torch.tensor(places),
        torch.tensor(steps),
        torch.tensor(groups),
        torch.tensor(turned, dtype=torch.int64),
        torch.tensor(lines),
        inside,
        slots,
    )


def _turned(shapes: Sequence[_Shape]) -> list[bool]:
    """Return which terms lie turned: those that reach farther aside than up, and than the others.

    What lies as it is has as many zeros beside it as its widest term needs anyway.
    """
    reaches = [((kh - 1) * dh, (kw - 1) * dw) for (kh, kw), _, (dh, dw) in shapes]
    least = max((across for down, across in reaches if across <= down), default=0)
    return [across > max(down, least) for down, across in reaches]


class _Tap(NamedTuple):
    """A tap of a kernel: the steps to its pixel, its place among all weights, and the next one's.

    The places are those of the first channel and the distance to the next.
    """

    down: int
    across: int
    weight: int
    next: int


def _groups(taps: Sequence[_Tap]) -> list[Sequence[_Tap]]:
    return [taps[at : at + WIDE] for at in range(0, len(taps), WIDE)]


class _Line(NamedTuple):
    """Images that lie one behind the other, row by row, apart by zeros; empty if no term has any.

    Attributes:
        height: rows of an image as it lies.
        width: pixels of a row.
        pitch: numbers from row to row.
        gap: rows of zeros between images.
        front: zeros before the first image, and behind the last one.
        length: numbers of all images, whole vectors.
        room: numbers with those before and behind.
    """

    height: int
    width: int
    pitch: int
    gap: int
    front: int
    length: int
    room: int

    @classmethod
    def of(cls, terms: Sequence[Sequence[_Tap]], size: tuple[int, int], slots: int) -> _Line:
        """Return the line that the taps of some terms need, for images of a size."""
        if not terms:
            return cls(0, 0, 0, 0, 0, 0, 0)
        height, width = size
        taps = [tap for mine in terms for tap in mine]
        margin = max(abs(tap.across) for tap in taps)
        gap = max(abs(tap.down) for tap in taps) if slots > 1 else 0
        span = max(group[-1].down - group[0].down for mine in terms for group in _groups(mine))
        pitch = width + margin
        length = _vectors((slots * (height + gap) - gap) * pitch)
        front = _vectors(span * pitch + margin + VECTORS)
        return cls(height, width, pitch, gap, front, length, front + length + front)

    def mark(self, mask: Tensor, count: int) -> None:
        """Write 1 where pixels of `count` images lie."""
        for slot in range(count if self.length else 0):
            start = slot * (self.height + self.gap) * self.pitch
            rows = mask[start : start + self.height * self.pitch]
            rows.view(self.height, self.pitch)[:, : self.width] = 1

    def reach(self, taps: Sequence[_Tap], sign: int) -> tuple[int, int]:
        """Return where the outputs begin that taps reach, and how many there are: whole vectors."""
        first, last = sorted((sign * taps[0].down, sign * taps[-1].down))
        rows = self.length // self.pitch
        start = max(0, -last) * self.pitch // VECTORS * VECTORS
        return start, min(
            _vectors(min(rows, rows - first) * self.pitch - start), self.length - start
        )


def _vectors(numbers: int) -> int:
    return -(-numbers // VECTORS) * VECTORS


class _Fixed(NamedTuple):
    """What a sum is made with, beside what is learnt."""

    channels: Channels
    shapes: tuple[_Shape, ...]
    eps: Tensor
    residual: bool
    layout: _Layout

    def laid(self, weight: Tensor) -> tuple[Tensor | int, ...]:
        """Return what the kernels ask for first, behind the maps."""
        return (*self.channels, weight, *self.layout)

    def more(self) -> tuple[Tensor | bool, ...]:
        """Return what the kernels ask for behind the parameters of the norms."""
        return self.eps, self.residual


def _kernels() -> ModuleType:
    """Return the compiled loops, which numba is loaded for."""
    from bench.operators import one_pass_kernels

    return one_pass_kernels


class _OnePass(torch.autograd.Function):
    """The sum, and the means and variances of the batch, (B, C) each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, fixed: _Fixed, *learnt: Tensor) -> tuple[Tensor, ...]:
        layout, channels, count = fixed.layout, len(fixed.channels.summed), len(fixed.eps)
        weight = torch.cat([kernel.reshape(-1) for kernel in learnt[:count]])
        gamma, beta = torch.stack(learnt[count : 2 * count]), torch.stack(learnt[2 * count :])
        y = x.new_empty(channels, count, -(-len(x) // layout.slots), layout.inside.shape[2])
        mean, var = x.new_empty(2, count, channels).unbind()
        out = torch.empty_like(x)
        _kernels().run(
            "forward", x, *fixed.laid(weight), gamma, beta, *fixed.more(), y, mean, var, out
        )
        ctx.save_for_backward(x, y, mean, var, weight, gamma, *learnt)
        ctx.fixed = fixed
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        fixed: _Fixed = ctx.fixed
        x, y, mean, var, weight, gamma, *learnt = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            inputs = [t for t in (x, *learnt) if t.requires_grad]
            out = _by_torch(x, fixed, learnt)
            found = iter(torch.autograd.grad(out, inputs, grad, create_graph=True))
            of = [next(found) if t.requires_grad else None for t in (x, *learnt)]
            return of[0], None, *of[1:]
        of_x, of_weight = torch.empty_like(x), torch.zeros_like(weight)
        of_gamma, of_beta = torch.empty_like(gamma), torch.empty_like(gamma)
        _kernels().run(
            "backward",
            grad.contiguous(),
            x,
            *fixed.laid(weight),
            gamma,
            *fixed.more(),
            y,
            mean,
            var,
            of_x,
            of_weight,
            of_gamma,
            of_beta,
        )
        kernels = learnt[: len(fixed.eps)]
        parts = torch.split(of_weight, [kernel.numel() for kernel in kernels])
        of_kernels = [part.view_as(kernel) for part, kernel in zip(parts, kernels, strict=True)]
        return of_x, None, *of_kernels, *of_gamma, *of_beta


def _by_torch(x: Tensor, fixed: _Fixed, learnt: Sequence[Tensor]) -> Tensor:
    """Return the sum by torch's calls, which can be differentiated as often as one likes."""
    count = len(fixed.eps)
    summed = x[:, fixed.channels.summed]
    out = summed if fixed.residual else torch.zeros_like(summed)
    parts = (learnt[:count], learnt[count : 2 * count], learnt[2 * count :])
    for shape, eps, kernel, gamma, beta in zip(
        fixed.shapes, fixed.eps.tolist(), *parts, strict=True
    ):
        (top, left), (dh, dw) = shape.before, shape.dilation
        bottom, right = dh * (kernel.shape[2] - 1) - top, dw * (kernel.shape[3] - 1) - left
        padded = F.pad(summed, (left, right, top, bottom))
        y = F.conv2d(padded, kernel, dilation=(dh, dw), groups=len(kernel))
        out = out + F.batch_norm(y, None, None, gamma, beta, training=True, eps=eps)
    return torch.cat([out, x[:, fixed.channels.resting]], 1)
