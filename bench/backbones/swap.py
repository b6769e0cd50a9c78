"""Put an operator into the slots of a host, in place."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from bench.backbones.change import SPEC_OPTIONS, Change, build_change
from bench.backbones.fits import why_not
from bench.backbones.fuse import take_hooks
from bench.backbones.recipe import note_swap
from bench.backbones.select import select
from bench.backbones.slots import Slot, find_slots
from bench.errors import DoesNotFit, UserError, near
from bench.operators.registry import get
from bench.operators.registry import options as own_options


@dataclass
class SwapReport:
    """What `swap` did to a model.

    Attributes:
        swapped: names of the slots that hold the operator now.
        refused: name of each slot of the selection that kept its convolution → the reason.
        absorbed: slot → name of the norm behind it, which the operator replaced too.
        mixed: slots where a 1×1 convolution follows the operator (mix="pointwise").
        carried: slots whose operator took over the weights of the convolution.
    """

    swapped: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    absorbed: dict[str, str] = field(default_factory=dict)
    mixed: list[str] = field(default_factory=list)
    carried: list[str] = field(default_factory=list)


def swap(
    model: nn.Module,
    operator: str,
    *,
    where: Mapping[str, Any] | None = None,
    input_size: tuple[int, int] = (224, 224),
    mix: str | None = None,
    carry: bool = True,
    **options: Any,
) -> nn.Module:
    """Replace convolutions, or operators in their place, of `model` by `operator`, in place.

    Channels, stride, groups, bias, device, dtype and training mode are the slot's. An operator
    with a norm of its own replaces the BatchNorm2d behind the slot too (what is inside it, such
    as the activation of timm's BatchNormAct2d, stays). All operators are built before the first
    is put in, so an error leaves the model as it was. `swap_report(model)` says what was done.

    Args:
        model: any model that takes (N, C, H, W), a timm feature extractor included.
        operator: one of `bench.operators.names()`.
        where: which slots; None for every slot that the operator can replace, else the keys of
            `bench.backbones.select.select`.
        input_size: height and width, in pixels, of the images that the model will see.
        mix: "pointwise" lets a depthwise operator into a slot that is not depthwise, with a 1×1
            convolution from Cin to Cout behind it.
        carry: let the operator take over the slot's weights where it contains them.
        **options: `kernel_size`, `groups` and `dilation` in place of the slot's (with "same"
            padding), and the operator's own options.

    Returns:
        The model.

    Raises:
        UserError: unknown operator, option or key.
        DoesNotFit: a selection in which the operator can replace nothing, or not all where each
            slot has options of its own (`icconv` with a list of patterns); the message gives the
            reasons, and what would help.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("test_convnext", features_only=True)
        >>> model = swap(model, "dwconv", where={"names": "stages_3.*_dw"}, kernel_size=5)
        >>> swap_report(model).swapped
        ['stages_3.blocks.0.conv_dw', 'stages_3.blocks.1.conv_dw']
    """
    _check(operator, mix, options)
    found = find_slots(model, input_size)
    slots = select(found, where)
    by_slot = get(operator).for_slots(options, len(slots))
    selection = list(zip(slots, by_slot, strict=True))
    # What was made for one slot must not be lost on another's reasons.
    strict = any(slot_options != options for slot_options in by_slot)
    report = exchange(model, operator, selection, mix=mix, carry=carry, strict=strict)
    if not report.swapped:
        others = [slot for slot in found if slot not in slots]
        raise DoesNotFit(why_not(model, operator, slots, others, mix=mix, options=options))
    step = {"operator": operator, "where": where, "input_size": input_size, "mix": mix}
    note_swap(model, {**step, "options": options})
    return model


def exchange(
    model: nn.Module,
    operator: str,
    selection: Sequence[tuple[Slot, Mapping[str, Any]]],
    *,
    mix: str | None = None,
    carry: bool = True,
    strict: bool = False,
) -> SwapReport:
    """Put `operator` into the slots of `selection`, each with options of its own, as `swap` does.

    Returns:
        What was done; a slot that refuses is in the report.

    Raises:
        UserError: `strict`, and a slot refuses; the model is as it was. What an operator raises
            beside UserError is no refusal but a fault of its own: it passes as it is, with a note.
    """
    report, changes = SwapReport(), list[Change]()
    for slot, slot_options in selection:
        try:
            changes.append(build_change(model, slot, operator, mix, carry, slot_options))
        except UserError as refusal:
            if strict:
                raise DoesNotFit(f"{operator} cannot stand in {slot.name}: {refusal}") from refusal
            report.refused[slot.name] = str(refusal)
        except Exception as fault:
            fault.add_note(
                f"The operator {operator!r} was being built for the slot {slot.name!r}. It refuses "
                "a convolution by `requires` or by bench.errors.UserError; this is neither."
            )
            raise
    for change in changes:
        _put_in(model, change)
        name = change.slot.name
        report.swapped.append(name)
        if change.absorbed is not None:
            report.absorbed[name] = change.absorbed
        report.mixed += [name] * change.mixed
        report.carried += [name] * change.carried
    if changes:
        model._convboard_swaps = _joined(swap_report(model), report)  # type: ignore[assignment]
    return report


def swap_report(model: nn.Module) -> SwapReport:
    """Return what all calls of `swap` did to `model`; empty if there were none."""
    report = getattr(model, "_convboard_swaps", None)
    return copy.deepcopy(report) if isinstance(report, SwapReport) else SwapReport()


def _check(operator: str, mix: str | None, swap_options: Mapping[str, Any]) -> None:
    get(operator)
    if mix not in (None, "pointwise"):
        raise UserError(f"`mix` (={mix!r}) must be None or 'pointwise'.")
    allowed = [*SPEC_OPTIONS, *own_options(operator)]
    for option, value in swap_options.items():
        if option not in allowed:
            raise UserError(
                f"`{option}` (={value!r}) is no option of {operator}; {near(option, allowed)}"
            )


def _put_in(model: nn.Module, change: Change) -> None:
    conv = model.get_submodule(change.slot.name)
    take_hooks(change.module, conv)
    _replace(model, conv, change.module)
    if change.absorbed is not None:
        norm = model.get_submodule(change.absorbed)
        inside = [child for child in norm.children() if not isinstance(child, nn.Identity)]
        rest: nn.Module = inside[0] if len(inside) == 1 else nn.Sequential(*inside)
        rest = rest if inside else nn.Identity()
        rest.train(norm.training)
        take_hooks(rest, norm)
        _replace(model, norm, rest)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` wherever `old` is registered (a module can have several names)."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is old:
                parent._modules[name] = new


def _joined(old: SwapReport, new: SwapReport) -> SwapReport:
    """Add `new` to `old`: a slot that was swapped again is as `new` says."""
    again = {*new.swapped}
    return SwapReport(
        swapped=[name for name in old.swapped if name not in again] + new.swapped,
        refused={k: v for k, v in {**old.refused, **new.refused}.items() if k not in again},
        absorbed={k: v for k, v in old.absorbed.items() if k not in again} | new.absorbed,
        mixed=[name for name in old.mixed if name not in again] + new.mixed,
        carried=[name for name in old.carried if name not in again] + new.carried,
    )
