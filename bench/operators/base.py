"""What an operator is: a drop-in for one convolution."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self, cast, get_args

import torch
from torch import Tensor, nn

from bench.errors import UserError, near, require
from bench.operators import forms
from bench.operators.choices import Choices
from bench.operators.depthwise import DepthwiseConv2d
from bench.operators.rules import RULES, Rule, check

Size2 = int | Sequence[int]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


def pair(argument: str, value: Size2, minimum: int) -> tuple[int, int]:
    """Return `value` as (along the height, along the width); UserError below `minimum`."""
    numbers = tuple(value) if isinstance(value, Sequence) else (value, value)
    holds = len(numbers) == 2 and all(
        isinstance(n, int) and not isinstance(n, bool) and n >= minimum for n in numbers
    )
    require(argument, value, holds, f"one or two integers >= {minimum}")
    return numbers[0], numbers[1]


def require_count(argument: str, value: Any) -> None:
    """UserError unless `value` is an integer >= 1.

    Example:
        >>> require_count("paths", 0)
        Traceback (most recent call last):
            ...
        bench.errors.UserError: `paths` (=0) must be an integer >= 1.
    """
    holds = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    require(argument, value, holds, "an integer >= 1")


@dataclass(frozen=True)
class ConvSpec:
    """The convolution that an operator stands in for: (N, Cin, H, W) → (N, Cout, H', W').

    Every size is a pair (along the height, along the width). `resolution` is the size of the
    feature map that enters, in pixels, or None where it is not known; operators with weights
    as large as the map need it. `bias` says whether the replaced convolution had one.

    Example:
        >>> spec = ConvSpec.make(in_channels=8, out_channels=8, kernel_size=7, stride=2, groups=8)
        >>> spec.padding, spec.depthwise, spec.output_size(15, 20)
        ((3, 3), True, (8, 10))
    """

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    resolution: tuple[int, int] | None
    bias: bool
    padding_mode: PaddingMode

    @classmethod
    def make(
        cls,
        *,
        in_channels: int,
        out_channels: int,
        kernel_size: Size2 = 3,
        stride: Size2 = 1,
        padding: Size2 | None = None,
        dilation: Size2 = 1,
        groups: int = 1,
        resolution: Size2 | None = None,
        bias: bool = True,
        padding_mode: str = "zeros",
    ) -> Self:
        """Check and normalise; `padding=None` is "same": dilation · (kernel_size − 1) // 2."""
        require_count("in_channels", in_channels)
        require_count("out_channels", out_channels)
        require_count("groups", groups)
        for argument, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            require(argument, channels, not channels % groups, f"divisible by `groups` (={groups})")
        modes = get_args(PaddingMode)
        require("padding_mode", padding_mode, padding_mode in modes, f"one of {modes}")
        kernel = pair("kernel_size", kernel_size, 1)
        dilated = pair("dilation", dilation, 1)
        same = (dilated[0] * (kernel[0] - 1) // 2, dilated[1] * (kernel[1] - 1) // 2)
        return cls(
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=kernel,
            stride=pair("stride", stride, 1),
            padding=same if padding is None else pair("padding", padding, 0),
            dilation=dilated,
            groups=groups,
            resolution=None if resolution is None else pair("resolution", resolution, 1),
            bias=bias,
            padding_mode=cast(PaddingMode, padding_mode),
        )

    @property
    def depthwise(self) -> bool:
        """One group per channel, as many channels out as in."""
        return self.groups == self.in_channels == self.out_channels

    def output_size(self, h: int, w: int) -> tuple[int, int]:
        """Height and width of the output for an input of h × w pixels."""

        def along(axis: int, size: int) -> int:
            reach = self.dilation[axis] * (self.kernel_size[axis] - 1)
            return (size + 2 * self.padding[axis] - reach - 1) // self.stride[axis] + 1

        return along(0, h), along(1, w)

    def conv(self, **changes: Any) -> nn.Conv2d:
        """Return a freshly initialised torch convolution of this shape, with `changes` applied."""
        s = replace(self, **changes)
        kind = DepthwiseConv2d if s.depthwise else nn.Conv2d
        return kind(
            s.in_channels,
            s.out_channels,
            s.kernel_size,
            s.stride,
            s.padding,
            s.dilation,
            s.groups,
            s.bias,
            s.padding_mode,
        )

    def conv_macs(self, h: int, w: int) -> int:
        """MACs of the plain convolution on one h × w map (the bias is not counted)."""
        oh, ow = self.output_size(h, w)
        kh, kw = self.kernel_size
        return oh * ow * kh * kw * self.in_channels // self.groups * self.out_channels

    def conv_params(self) -> int:
        """Parameters of the plain convolution, its bias included where it has one."""
        kh, kw = self.kernel_size
        weights = kh * kw * self.in_channels // self.groups * self.out_channels
        return weights + self.bias * self.out_channels


class Operator(nn.Module, ABC):
    """A drop-in for one convolution: (N, Cin, H, W) → (N, Cout, ⌈H/s⌉, ⌈W/s⌉).

    A subclass takes the ConvSpec it stands in for, and its own options by keyword; the options'
    defaults are the paper's. Convolutions that it cannot replace are refused with a
    `bench.errors.UserError` that names argument, value and rule: by `requires`, and by checks of
    its own; any other error counts as a fault of the operator. Any map size and aspect ratio must
    work, and the state_dict must carry everything that the output depends on.

    Class attributes:
        name: the name that it is registered under.
        requires: rules that the replaced convolution keeps, of `bench.operators.rules`.
        depthwise: stands in for depthwise convolutions; `create` then sets groups = in_channels
            where none are given. So it is where `requires` says so.
        absorbs_norm: has its own norm, so it replaces the convolution and the norm behind it.
    """

    name: ClassVar[str]
    requires: ClassVar[tuple[Rule, ...]] = ()
    depthwise: ClassVar[bool] = False
    absorbs_norm: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check the names of the rules, and what is overridden."""
        super().__init_subclass__(**kwargs)
        for rule in cls.requires:
            if rule not in RULES:
                raise UserError(f"`requires` (={rule!r}) of {cls.__name__}: {near(rule, RULES)}")
        if "fuse" in vars(cls):
            raise UserError(
                f"{cls.__name__} must override `fused()`, not `fuse()`, which calls it."
            )
        cls.depthwise = cls.depthwise or "depthwise" in cls.requires
        if not hasattr(cls, "name"):  # a form for inference, which is not registered
            cls.name = cls.__name__

    def __init__(self, spec: ConvSpec) -> None:
        super().__init__()
        check(self.name, self.requires, spec)
        self.spec = spec

    @classmethod
    def with_files(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return `options` with files read in place of their paths: what a hash is of."""
        return dict(options)

    @classmethod
    def for_slots(cls, options: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
        """Return the options of each of `count` slots that are filled at once: all the same."""
        return [dict(options) for _ in range(count)]

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map (N, Cin, H, W) to (N, Cout, H', W')."""

    @abstractmethod
    def macs(self, h: int, w: int) -> int:
        """MACs of this form on one input map of h × w pixels (biases and norms not counted)."""

    @abstractmethod
    def params(self) -> int:
        """Learned parameters of this form, by formula."""

    def fuse(self, example: Tensor | None = None, *, choices: Choices | None = None) -> Operator:
        """Return the operator of equal value for inference; this one stays as it is.

        Args:
            example: an input (N, Cin, H, W), on the device and in the dtype that are meant: for
                inputs like it the fastest exact forms are measured, and taken. Without one the
                rule chooses.
            choices: where what was measured is kept; by default a file in the user's cache.

        Example:
            >>> from bench.operators import create
            >>> op = create("parc", in_channels=4, out_channels=4, resolution=8)
            >>> op.fuse()(torch.zeros(1, 4, 8, 8)).shape
            torch.Size([1, 4, 8, 8])
        """
        fused = self.fused()
        if example is not None:
            forms.choose(fused, example, choices or Choices())
        return fused

    def fused(self) -> Operator:
        """Return the operator of equal value for inference: what a subclass has to say here."""
        return copy.deepcopy(self).eval()

    def carry(self, conv: nn.Conv2d, norm: nn.Module | None = None) -> bool:
        """Take over the weights of the replaced convolution; False where it is not contained.

        `norm` is the replaced norm, handed to an operator that absorbs it (`absorbs_norm`).
        """
        return False

    def extra_repr(self) -> str:
        """Show the replaced convolution."""
        s = self.spec
        return (
            f"{s.in_channels}, {s.out_channels}, kernel_size={s.kernel_size}, stride={s.stride}, "
            f"padding={s.padding}, dilation={s.dilation}, groups={s.groups}"
        )


def fold_norm(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Fold y = BN(conv(x)) into one convolution: its weight (Cout, ...) and bias (Cout).

    weight' = weight · γ/√(var + ε) and bias' = (bias − mean) · γ/√(var + ε) + β, in double
    precision, returned in the dtype of `weight`.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise UserError(
            "`norm` has no running statistics (track_running_stats=False): not foldable."
        )
    gamma = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight.detach()
    beta = torch.zeros_like(norm.running_mean) if norm.bias is None else norm.bias.detach()
    scale = gamma.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = (
        -norm.running_mean.double()
        if bias is None
        else bias.detach().double() - norm.running_mean.double()
    )
    folded = weight.detach().double() * scale.view(-1, *[1] * (weight.dim() - 1))
    return folded.to(weight.dtype), (shift * scale + beta.double()).to(weight.dtype)
