"""Where an operator can stand in a host, why not elsewhere, and what would help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from bench.backbones.change import build_change
from bench.backbones.slots import Slot
from bench.errors import UserError

SHOWN = 3
"""Reasons that a message gives; most slots share a few."""


def refusals(
    model: nn.Module,
    slots: Sequence[Slot],
    operator: str,
    *,
    mix: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Return slot → why the operator cannot stand there; those where it can are not in it.

    The model is left as it is, and so is torch's generator of random numbers.

    Args:
        model: the host.
        slots: of the host, as `find_slots` gives them.
        operator: a registered name.
        mix: as in `swap`.
        options: as in `swap`.

    Example:
        >>> import timm
        >>> from bench.backbones.slots import find_slots
        >>> model = timm.create_model("test_convnext")
        >>> slots = find_slots(model, (64, 64))
        >>> refused = refusals(model, slots, "dwconv")
        >>> [slot.name for slot in slots if slot.name not in refused][0]
        'stages.0.blocks.0.conv_dw'
    """
    refused = {}
    with torch.random.fork_rng(devices=[]):
        for slot in slots:
            try:
                build_change(model, slot, operator, mix, False, options or {})
            except UserError as refusal:
                refused[slot.name] = str(refusal)
    return refused


def why_not(
    model: nn.Module,
    operator: str,
    slots: Sequence[Slot],
    others: Sequence[Slot],
    *,
    mix: str | None,
    options: Mapping[str, Any],
) -> str:
    """Return why an operator has no slot among those selected, and what would help.

    Args:
        model: the host.
        operator: a registered name.
        slots: those selected, all of which refuse it.
        others: the other slots of the host.
        mix: as in `swap`.
        options: as in `swap`.
    """
    names: dict[str, list[str]] = {}
    for name, reason in refusals(model, slots, operator, mix=mix, options=options).items():
        # what would help is said once, below, where it is known to
        names.setdefault(reason.partition(" mix='pointwise' puts")[0], []).append(name)
    reasons = [
        f"{of[0]}{f' and {len(of) - 1} more' if len(of) > 1 else ''}: {reason}"
        for reason, of in list(names.items())[:SHOWN]
    ]
    if len(names) > SHOWN:
        reasons.append(f"and {len(names) - SHOWN} more reasons.")
    count = len(slots)
    head = f"{operator} fits none of the {count} slots chosen" if count else "there is no slot"
    head = f"{operator} does not fit the slot chosen" if count == 1 else head
    told = f"{head}: {' '.join(reasons)}" if reasons else f"{head}."
    helps = _helps(model, operator, slots, others, mix=mix, options=options)
    return f"{told} What would help: {', or '.join(helps)}." if helps else told


def _helps(
    model: nn.Module,
    operator: str,
    slots: Sequence[Slot],
    others: Sequence[Slot],
    *,
    mix: str | None,
    options: Mapping[str, Any],
) -> list[str]:
    """Say what would make it fit, each by trying it."""
    helps = []
    if mix is None:
        mixed = len(slots) - len(refusals(model, slots, operator, mix="pointwise", options=options))
        if mixed:
            helps.append(f"mix 'pointwise' (a 1×1 convolution behind it: {mixed} of these slots)")
    free = len(others) - len(refusals(model, others, operator, mix=mix, options=options))
    if free:
        helps.append(f"another `where` ({free} other slots take it)")
    return helps
