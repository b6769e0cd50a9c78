"""Slots: the spatial convolutions of any model and the operators in it, found by one forward."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.hooks import RemovableHandle

from bench.backbones.probe import blank_forward
from bench.operators.base import ConvSpec, Operator, pair

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)
_Holder = nn.Conv2d | Operator


@dataclass(frozen=True)
class Slot:
    """A place in a host where an operator can stand: it holds a spatial convolution or operator.

    Attributes:
        name: the convolution's name in the host, as `named_modules` gives it.
        spec: what the convolution is; `spec.resolution` is the size of the map that enters.
        holds: the name of the operator that stands there, None for a plain convolution.
        output_size: height and width of the map that leaves, in pixels.
        reduction: pixels of the input image per pixel of the map that leaves, along an axis.
        stage: log2(reduction) − 1, at least 0: the stem up to stride 2 is stage 0, maps at
            strides 4, 8, 16 and 32 are stages 1 to 4, whatever the host calls them.
        norm: the name of the norm that takes exactly the convolution's output, if one does.
        calls: how often one forward pass runs the convolution (2 or more: it is shared).
        refusal: why no operator can stand here, or None.
    """

    name: str
    spec: ConvSpec
    output_size: tuple[int, int]
    reduction: float
    stage: int
    holds: str | None = None
    norm: str | None = None
    calls: int = 1
    refusal: str | None = None


def _padding(conv: nn.Conv2d) -> tuple[tuple[int, int], bool]:
    """Padding per axis, and whether it is the same on both sides of the map."""
    if not isinstance(conv.padding, str):
        return pair("padding", conv.padding, 0), True
    if conv.padding == "valid":
        return (0, 0), True
    total = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    return (total[0] // 2, total[1] // 2), all(t % 2 == 0 for t in total)


def _refusal(conv: nn.Conv2d | Operator) -> str | None:
    if isinstance(conv, Operator):
        absorbed = f"it holds {conv.name}, which took the place of the norm behind it too."
        return absorbed if conv.absorbs_norm else None
    if type(conv) is not nn.Conv2d:
        return (
            f"it is a {type(conv).__name__}, which computes more than torch.nn.Conv2d "
            "(padding by the size of the map, or weights of its own making)."
        )
    if "weight" not in conv._parameters:
        return "its weight is computed by a hook or a parametrisation."
    if not _padding(conv)[1]:
        return "its padding='same' is not equal on both sides of an even kernel."
    return None


@dataclass
class _Trace:
    """What the hooks see of one forward pass."""

    names: dict[nn.Module, str]
    sizes: dict[_Holder, tuple[tuple[int, int], tuple[int, int]]] = field(default_factory=dict)
    calls: dict[nn.Module, int] = field(default_factory=dict)
    # The tensor is kept so that its id is not used again, with its version: an in-place
    # operation between the convolution and the norm leaves the tensor but counts it up.
    outputs: dict[int, tuple[Tensor, int, _Holder]] = field(default_factory=dict)
    norms: dict[_Holder, nn.Module] = field(default_factory=dict)
    takers: dict[_Holder, int] = field(default_factory=dict)

    def conv_ran(self, conv: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        assert isinstance(conv, _Holder)
        self.calls[conv] = self.calls.get(conv, 0) + 1
        size = args[0].shape
        self.sizes.setdefault(conv, ((size[-2], size[-1]), (out.shape[-2], out.shape[-1])))
        self.outputs[id(out)] = (out, out._version, conv)

    def leaf_starts(self, leaf: nn.Module, args: tuple[object, ...]) -> None:
        """Note which norm takes a convolution's output, and how many others do."""
        if isinstance(leaf, _NORMS):
            self.calls[leaf] = self.calls.get(leaf, 0) + 1
        tensor = args[0] if args else None
        if not isinstance(tensor, Tensor) or id(tensor) not in self.outputs:
            return
        _, version, conv = self.outputs[id(tensor)]
        self.takers[conv] = self.takers.get(conv, 0) + 1
        if isinstance(leaf, _NORMS) and tensor._version == version:
            self.norms[conv] = leaf

    def norm_behind(self, conv: _Holder) -> str | None:
        norm = self.norms.get(conv)
        alone = norm is not None and self.takers[conv] == self.calls[conv] == self.calls[norm] == 1
        return self.names[norm] if alone and norm is not None else None


def _outside_operators(module: nn.Module, prefix: str = "") -> dict[nn.Module, str]:
    """Return every module and its first name; operators are whole, their inside is their own."""
    names = {module: prefix}
    if not isinstance(module, Operator):
        for name, child in module.named_children():
            inside = _outside_operators(child, f"{prefix}.{name}" if prefix else name)
            names = {**inside, **names}
    return names


def find_slots(model: nn.Module, input_size: tuple[int, int] = (224, 224)) -> list[Slot]:
    """Find every spatial convolution (kernel > 1 along an axis) that a forward pass runs.

    Works on any model, with hooks alone; the model is left as it was. An operator, such as those
    of the papers' networks, is a slot too, as a whole. A convolution that does more than
    torch.nn.Conv2d (timm's Conv2dSame, weight standardisation, parametrisations) is listed with
    its `refusal`.

    Args:
        model: any model that takes (N, C, H, W), on any device.
        input_size: height and width of the image, in pixels; gives the slots' resolutions.

    Returns:
        The slots in the order in which they first run.

    Raises:
        ValueError: the model does not run on an image of this size.

    Example:
        >>> import timm
        >>> slots = find_slots(timm.create_model("test_resnet"), input_size=(64, 96))
        >>> slots[0].name, slots[0].spec.kernel_size, slots[0].spec.resolution, slots[0].stage
        ('conv1.0', (3, 3), (64, 96), 0)
        >>> [(slot.name, slot.stage, slot.norm) for slot in slots][-1]
        ('layer4.0.conv2', 4, 'layer4.0.bn2')
    """
    size = pair("input_size", input_size, 1)
    trace = _Trace(_outside_operators(model))
    handles: list[RemovableHandle] = []
    try:
        for module in trace.names:
            if isinstance(module, _Holder) and max(_kernel_size(module)) > 1:
                handles.append(module.register_forward_hook(trace.conv_ran))
            if isinstance(module, _NORMS) or next(module.children(), None) is None:
                handles.append(module.register_forward_pre_hook(trace.leaf_starts))
        blank_forward(model, size)
    finally:
        for handle in handles:
            handle.remove()
    return [_slot(conv, trace, size) for conv in trace.sizes]


def _kernel_size(holder: _Holder) -> tuple[int, ...]:
    return holder.spec.kernel_size if isinstance(holder, Operator) else holder.kernel_size


def _spec(holder: _Holder, entering: tuple[int, int]) -> ConvSpec:
    if isinstance(holder, Operator):
        return replace(holder.spec, resolution=entering)
    return ConvSpec.make(
        in_channels=holder.in_channels,
        out_channels=holder.out_channels,
        kernel_size=holder.kernel_size,
        stride=holder.stride,
        padding=_padding(holder)[0],
        dilation=holder.dilation,
        groups=holder.groups,
        resolution=entering,
        bias=holder.bias is not None,
        padding_mode=holder.padding_mode,
    )


def _slot(conv: _Holder, trace: _Trace, size: tuple[int, int]) -> Slot:
    entering, leaving = trace.sizes[conv]
    reduction = math.sqrt(size[0] / leaving[0] * size[1] / leaving[1])
    return Slot(
        name=trace.names[conv],
        spec=_spec(conv, entering),
        output_size=leaving,
        reduction=reduction,
        stage=max(0, round(math.log2(reduction)) - 1),
        holds=conv.name if isinstance(conv, Operator) else None,
        norm=trace.norm_behind(conv),
        calls=trace.calls[conv],
        refusal=_refusal(conv),
    )
