"""Depthwise convolution in its fastest exact form, in training too.

Both gradients of a depthwise convolution are depthwise correlations themselves, and are computed
as such: torch's own backward pass is many times slower than its forward pass on a CPU.

    ∂L/∂x = ∂L/∂y ∗ w turned by 180°, padded by dilation · (K − 1) − padding (stride 1)
    ∂L/∂w[c] = Σ_n x[n, c] ∗ ∂L/∂y[n, c], with one group per image and channel; the stride of the
    one is the dilation of the other.

Value and gradients each take the form that `bench.operators.forms.fastest()` has measured, or the
one of the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.operators import correlation, gpu
from bench.operators.choices import Choices, by_channels, problem
from bench.operators.correlation import Geometry, Pair, trimmed
from bench.operators.forms import Compute, Formed, active, traced

Ends = tuple[int, int, int, int]


def depthwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = (1, 1),
    padding: Pair | Ends = (0, 0),
    dilation: Pair = (1, 1),
) -> Tensor:
    """Return `torch.nn.functional.conv2d` with one group per channel, the quickest exact way.

    Args:
        x: (N, C, H, W).
        weight: (M · C, 1, Kh, Kw), M kernels per channel.
        bias: (M · C).
        stride: along height and width; as are the others.
        padding: zeros on both sides; or top, bottom, left, right.
        dilation: step between taps.

    Returns:
        (N, M · C, H', W').

    Example:
        >>> x, weight = torch.rand(2, 4, 5, 5), torch.rand(4, 1, 13, 13)
        >>> y = depthwise_conv2d(x, weight, padding=(6, 6))
        >>> plain = nn.functional.conv2d(x, weight, padding=6, groups=4)
        >>> bool(torch.allclose(y, plain, atol=1e-5))
        True
    """
    device = x.device.type
    if torch._C._is_any_autocast_enabled() and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        with torch.autocast(device, enabled=False):
            return depthwise_conv2d(x, weight, bias, stride, padding, dilation)
    geometry = _geometry(stride, padding, dilation)
    learning = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if learning and _derivable(x, weight, geometry):
        less, left = trimmed(weight, (x.shape[2], x.shape[3]), geometry)
        if left.symmetric or stride == (1, 1):
            weight, geometry = less, left
        out: Tensor = _Depthwise.apply(x, weight, geometry)
        return out if bias is None else out + bias[:, None, None]
    return _value(x, weight, bias, geometry)


def _value(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    able = partial(correlation.forms, x, weight, geometry)
    compute = partial(_correlate, x, weight, bias, geometry)
    return _fastest("depthwise", x, weight, geometry, able, compute)


def _correlate(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, form: str
) -> Tensor:
    return correlation.prepared(form, x, weight, bias, geometry)(x)


def _geometry(stride: Pair, padding: Pair | Ends, dilation: Pair) -> Geometry:
    if len(padding) == 2:
        padding = (padding[0], padding[0], padding[1], padding[1])
    return Geometry(stride, padding, dilation)


def _derivable(x: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """Whether the gradients can be written as correlations, and torch's types need no care."""
    known = x.is_cpu and x.dtype in (torch.float32, torch.float64)
    return (
        (known or gpu.usable(x))
        and not traced()
        and weight.shape[0] == x.shape[1]
        and x.dtype == weight.dtype
        and (geometry.symmetric or geometry.stride == (1, 1))
        and all(end >= 0 for end in _ends_of_input_gradient(weight, geometry))
    )


def _ends_of_input_gradient(weight: Tensor, geometry: Geometry) -> Ends:
    top, bottom, left, right = geometry.padding
    down, across = (d * (k - 1) for d, k in zip(geometry.dilation, weight.shape[2:], strict=True))
    return down - top, down - bottom, across - left, across - right


def _fastest(
    of: str,
    x: Tensor,
    weight: Tensor,
    geometry: Geometry,
    able: Callable[[], tuple[str, ...]],
    compute: Callable[[str], Tensor],
) -> Tensor:
    """Compute in the form that is known as the fastest; by the rule where nothing is measured.

    Args:
        of: what is computed, in words.
        x: the map that enters.
        weight: the kernel.
        geometry: how it is laid.
        able: returns the forms that can compute it, the rule's first; a form that is known to be
            the fastest needs no such look.
        compute: returns the value in a form.
    """
    choices = active()
    measured = choices is not None and (x.is_cpu or x.is_cuda) and x.numel() > 0
    if not measured or traced() or torch._C._is_any_autocast_enabled():
        return compute(able()[0])
    assert choices is not None
    again = torch.is_grad_enabled()  # a gradient that is differentiated once more
    laid = weight.shape, weight.stride()
    key: Hashable = (of, x.shape, x.stride(), x.dtype, x.device, laid, geometry, again)
    form = choices.recalled(key)
    if form is None:
        more: dict[str, Any] = {"weights": "by channels"} if by_channels(weight) else {}
        more |= {"kernel": list(weight.shape), "geometry": list(map(list, geometry))}
        described = problem(of, x, None, **more)
        candidates = {name: partial(compute, name) for name in able()}
        with torch.no_grad():
            form = choices.best(described, candidates, key)
    return compute(form)


class _Depthwise(torch.autograd.Function):
    """One kernel per channel; differentiable twice, since its backward pass is made of torch's."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, x: Tensor, weight: Tensor, geometry: Geometry
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry  # type: ignore[attr-defined]
        return _value(x, weight, None, geometry)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        geometry = ctx.geometry  # type: ignore[attr-defined]
        of_x, of_weight = ctx.needs_input_grad[:2]  # type: ignore[attr-defined]
        return (
            _of_x(x, weight, grad, geometry) if of_x else None,
            _of_weight(x, weight, grad, geometry) if of_weight else None,
            None,
        )


def _of_x(x: Tensor, weight: Tensor, grad: Tensor, geometry: Geometry) -> Tensor:
    crossed = geometry._replace(padding=_ends_of_input_gradient(weight, geometry))

    def able() -> tuple[str, ...]:
        plain = geometry.stride == (1, 1)
        forms = correlation.forms(grad, weight, crossed) if plain else ()
        return _with_torchs(grad, geometry, forms)

    def compute(form: str) -> Tensor:
        if form == "torch":
            return _torchs(0, x, weight, grad, geometry)
        return _correlate(grad, weight.flip(2, 3), None, crossed, form)

    return _fastest("depthwise, gradient of the map", grad, weight, geometry, able, compute)


def _of_weight(x: Tensor, weight: Tensor, grad: Tensor, geometry: Geometry) -> Tensor:
    n, channels, height, width = x.shape
    kh, kw = weight.shape[2:]
    crossed = geometry._replace(stride=geometry.dilation, dilation=geometry.stride)

    def maps() -> tuple[Tensor, Tensor]:
        """Every image and channel as a group of its own, and its kernel."""
        images = x.reshape(1, n * channels, height, width)
        return images, grad.reshape(n * channels, 1, *grad.shape[2:])

    def able() -> tuple[str, ...]:
        forms = correlation.forms(*maps(), crossed) if x.is_cpu else ()
        if gpu.usable(x) and not torch.is_grad_enabled():
            forms = (*(form for form in forms if form != "toeplitz"), "diagonals")
        return _with_torchs(x, geometry, forms)

    def compute(form: str) -> Tensor:
        if form == "torch":
            return _torchs(1, x, weight, grad, geometry)
        if form == "diagonals":
            of_kernel: Tensor = gpu.kernels().kernel_gradient(x, weight, grad, geometry)
            return of_kernel
        correlations = _correlate(*maps(), None, crossed, form)
        return correlations[0, :, :kh, :kw].reshape(n, channels, 1, kh, kw).sum(0)

    return _fastest("depthwise, gradient of the kernel", x, weight, geometry, able, compute)


def _with_torchs(x: Tensor, geometry: Geometry, forms: tuple[str, ...]) -> tuple[str, ...]:
    """Return the forms of a gradient with torch's own: the rule's, but on a CPU the last."""
    if x.is_cpu:
        return (*forms, "torch") if geometry.symmetric else forms
    return "torch", *forms


def _torchs(which: int, x: Tensor, weight: Tensor, grad: Tensor, geometry: Geometry) -> Tensor:
    """Return torch's own gradient of the map (0) or of the kernel (1)."""
    top, bottom, left, right = geometry.padding
    padding = [top, left]
    if not geometry.symmetric:
        x, padding = F.pad(x, (left, right, top, bottom)), [0, 0]
    mask = [which == 0, which == 1, False]
    rest = (None, geometry.stride, padding, geometry.dilation, False, [0, 0], x.shape[1], mask)
    gradients = torch.ops.aten.convolution_backward(grad, x, weight, *rest)
    gradient: Tensor = gradients[which]
    if which == 0 and not geometry.symmetric:
        gradient = F.pad(gradient, (-left, -right, -top, -bottom))
    return gradient


class DepthwiseConv2d(Formed, nn.Conv2d):
    """torch.nn.Conv2d with one group per channel, in its fastest exact form.

    Example:
        >>> conv = DepthwiseConv2d(4, 4, 7, padding=3, groups=4)
        >>> conv(torch.rand(1, 4, 8, 8)).shape
        torch.Size([1, 4, 8, 8])
    """

    _settled = False

    def forms(self, x: Tensor) -> tuple[str, ...]:
        """Return those of `bench.operators.correlation`."""
        return correlation.forms(x, self.weight, self._laid())

    def prepared(self, form: str, x: Tensor) -> Compute:
        """Return the convolution in a form."""
        return correlation.prepared(form, x, self.weight, self.bias, self._laid())

    def choose(self, x: Tensor, choices: Choices) -> str:
        """Choose the form for inputs like `x`, and return it."""
        form = super().choose(x, choices)
        alone = set(self._chosen.values()) == {"direct"}
        self._settled = alone and self.padding_mode == "zeros"
        return form

    def reopen(self) -> None:
        """Take no call past the module until a form was chosen anew."""
        self._settled = False

    def is_settled(self) -> bool:
        """Whether torch's own call is taken now: it was the fastest wherever it was measured."""
        return self._settled and self.form == "auto" and not torch.is_grad_enabled()

    def direct(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H', W') by torch's own call."""
        held = self._parameters  # a look at `self.weight` takes longer
        shape: Any = (self.stride, self.padding, self.dilation, self.groups)
        return F.conv2d(x, held["weight"], held["bias"], *shape)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H', W')."""
        if self.is_settled():
            return self.direct(x)
        plain = self.padding_mode == "zeros" and not isinstance(self.padding, str)
        if not plain or x.dim() != 4 or x.shape[1] != self.in_channels:
            return nn.Conv2d.forward(self, x)
        if torch.is_grad_enabled() and self._learns(x):
            laid = self._laid()
            return depthwise_conv2d(x, self.weight, self.bias, *laid)
        return super().forward(x)

    def _laid(self) -> Geometry:
        assert not isinstance(self.padding, str)
        (sh, sw), (ph, pw), (dh, dw) = self.stride, self.padding, self.dilation
        return Geometry((sh, sw), (ph, ph, pw, pw), (dh, dw))
