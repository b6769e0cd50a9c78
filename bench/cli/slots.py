"""The verb slots: where operators can stand in a host, and why not elsewhere."""

from __future__ import annotations

import argparse
import re
from string import ascii_lowercase

from bench.cli.arguments import Verbs, add_slots, add_trust, size_of, split, where_of

FITS, MIXED = "✓", "+"
SHOWN = 110
"""Characters of a reason in the legend."""
WIDEST = 10_000
"""Columns that a table of slots may have: their names are shown whole in any terminal."""


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    verb = verbs.add("slots", slots, "show a host's slots, which operators fit, and why not")
    verb.add_argument(
        "host", help="a model of timm, package.module:callable, or path/to/file.py:callable"
    )
    verb.add_argument("--size", metavar="HxW", help="of the images, in pixels; default 224")
    verb.add_argument("--operators", help="comma-separated; default all")
    add_slots(verb)
    add_trust(verb)


def slots(options: argparse.Namespace) -> None:
    """Print the table of a host's slots."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    from bench import operators
    from bench.backbones import build, find_slots
    from bench.backbones.fits import refusals
    from bench.backbones.select import select
    from bench.cli.progress import console
    from bench.config.network import options_of
    from bench.config.schema import load_host, load_operator
    from bench.config.trust import refuse_code

    size = size_of(options.size)
    host = load_host(options.host)
    refuse_code({"host": host.host})
    model = build(host.host, host_options=host.host_options, input_size=size)
    chosen = select(find_slots(model, size), where_of(options))
    names = split(options.operators) if options.operators else operators.names()
    arms = [arm for arm in map(load_operator, names) if arm.operator is not None]
    legend: dict[str, str] = {}
    marks: dict[str, dict[str, str]] = {}
    for arm in arms:
        assert arm.operator is not None
        given = options_of(arm)
        refused = refusals(model, chosen, arm.operator, mix=options.mix, options=given)
        left = [slot for slot in chosen if slot.name in refused]
        mixed = (
            refused
            if options.mix
            else refusals(model, left, arm.operator, mix="pointwise", options=given)
        )
        for slot in chosen:
            mark = FITS if slot.name not in refused else MIXED
            if slot.name in mixed:
                reason = short(arm.operator, refused[slot.name])
                mark = legend.setdefault(reason, _letter(len(legend)))
            marks.setdefault(slot.name, {})[arm.label] = mark
    labels = [arm.label for arm in arms]
    table = Table("slot", "stage", "kernel", "stride", "map", "convolution", *labels, box=None)
    for slot in chosen:
        spec = slot.spec
        kind = "depthwise" if spec.depthwise else "dense" if spec.groups == 1 else "grouped"
        table.add_row(
            slot.name,
            str(slot.stage),
            _times(spec.kernel_size),
            _times(spec.stride),
            _times(spec.resolution or (0, 0)),
            f"{kind} {spec.in_channels}→{spec.out_channels}",
            *(marks[slot.name][label] for label in labels),
        )
    whole = Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum
    wide = Console(
        file=console.file, width=max(whole, console.width), markup=False, highlight=False
    )
    wide.print(table)
    console.print(f"{FITS} fits   {MIXED} fits with --mix pointwise (a 1×1 convolution behind it)")
    for reason, letter in legend.items():
        console.print(f"{letter} {reason}", soft_wrap=True)


def short(operator: str, reason: str) -> str:
    """Return a reason without the operator's name and the values, so that slots share it.

    Example:
        >>> short("parc", "parc keeps the channels: `out_channels` (=64) must equal `groups` (=3).")
        'keeps the channels: `out_channels` must equal `groups`.'
    """
    reason = reason.partition(" mix='pointwise' puts")[0]
    reason = re.sub(r" \(=(\([^()]*\)|[^()])*\)", "", reason)
    reason = reason.removeprefix(f"{operator} ")
    return reason if len(reason) <= SHOWN else f"{reason[: SHOWN - 1]}…"


def _letter(number: int) -> str:
    return ascii_lowercase[number % 26] * (number // 26 + 1)


def _times(sides: tuple[int, int]) -> str:
    return f"{sides[0]}×{sides[1]}"
