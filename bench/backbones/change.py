"""One slot's operator: built in the form that the slot needs, or refused with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import nn

from bench.backbones.slots import Slot
from bench.errors import UserError
from bench.operators.base import ConvSpec, Operator
from bench.operators.conv import Conv
from bench.operators.registry import create, get

SPEC_OPTIONS = ("kernel_size", "groups", "dilation")
"""Options of a swap that change the convolution that is replaced; the others are the operator's."""


class Mixed(nn.Sequential):
    """A depthwise operator in a dense slot: the operator, then a 1×1 convolution Cin → Cout."""

    def __init__(self, operator: Operator, spec: ConvSpec) -> None:
        super().__init__()
        self.operator = operator
        self.pointwise = nn.Conv2d(spec.in_channels, spec.out_channels, 1, bias=spec.bias)


@dataclass
class Change:
    """One slot's operator, built and ready to be put in."""

    slot: Slot
    module: nn.Module
    absorbed: str | None
    mixed: bool
    carried: bool


def build_change(
    model: nn.Module,
    slot: Slot,
    operator: str,
    mix: str | None,
    carry: bool,
    slot_options: Mapping[str, Any],
) -> Change:
    """Build the operator for one slot; UserError says why it cannot stand there.

    Args:
        model: the host; it is left as it is.
        slot: of the host.
        operator: a registered name.
        mix: "pointwise" lets a depthwise operator into a dense slot.
        carry: let it take over the slot's weights, where it contains them.
        slot_options: of the operator in this slot, SPEC_OPTIONS among them.
    """
    if slot.refusal is not None:
        raise UserError(slot.refusal)
    operator_options = {k: v for k, v in slot_options.items() if k not in SPEC_OPTIONS}
    spec = _respec(slot.spec, {k: v for k, v in slot_options.items() if k in SPEC_OPTIONS})
    cls = get(operator)
    dense = cls.depthwise and not spec.depthwise
    mixed = dense and mix == "pointwise"
    entering = _pointwise_partner(spec) if mixed else spec
    h, w = slot.spec.resolution or (1, 1)
    if entering.output_size(h, w) != slot.output_size:
        raise UserError(
            f"`kernel_size` (={spec.kernel_size}) with `padding` (={spec.padding}) must give the "
            f"slot's output {slot.output_size} from {(h, w)}, not {entering.output_size(h, w)}."
        )
    norm = None if slot.norm is None else model.get_submodule(slot.norm)
    absorbs = cls.absorbs_norm and not mixed and type(norm) in (nn.BatchNorm2d, BatchNormAct2d)
    old = model.get_submodule(slot.name)
    conv = old.conv if isinstance(old, Conv) else old
    like = next(old.parameters())
    # Built on the CPU, so that a seed gives the same weights on every device.
    with torch.device("cpu"):
        try:
            op = create(operator, **vars(entering), **operator_options)
        except UserError as refusal:
            hint = " mix='pointwise' puts a 1x1 convolution behind it." if dense else ""
            raise UserError(f"{refusal}{'' if mixed else hint}") from refusal
        module: nn.Module = Mixed(op, spec) if mixed else op
    module.to(device=like.device, dtype=like.dtype).train(old.training)
    carried = False
    if carry and not mixed and isinstance(conv, nn.Conv2d):
        carried = op.carry(conv, norm if absorbs else None)
    return Change(slot, module, slot.norm if absorbs else None, mixed, carried)


def _respec(spec: ConvSpec, changes: Mapping[str, Any]) -> ConvSpec:
    if not changes:
        return spec
    fields = {**vars(spec), **changes}
    if changes.keys() & {"kernel_size", "dilation"}:
        fields["padding"] = None
    return ConvSpec.make(**fields)


def _pointwise_partner(spec: ConvSpec) -> ConvSpec:
    """Return the depthwise convolution over Cin; the bias is left to the 1×1 convolution."""
    return replace(spec, out_channels=spec.in_channels, groups=spec.in_channels, bias=False)
