"""What the page of an operator shows: what it is, where it wins and loses, what papers say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from bench.record import Record
from leaderboard.charts import lines_chart, taps_chart
from leaderboard.families import colour, families
from leaderboard.growth import NAMES, Growth
from leaderboard.names import operator_file
from leaderboard.published import Figure
from leaderboard.rows import Board, Row
from leaderboard.wording import processor

OWN = "host"
"""What records call the convolutions of a host as it is."""


def _setup(record: Record) -> str:
    """Machine and settings that the points of a growth share."""
    speed, machine = record.speed, record.machine
    assert speed is not None
    where = machine.cpu if speed.device == "cpu" else (machine.gpu or speed.device)
    threads = f"{speed.threads} thread{'s' * (speed.threads != 1)}"
    return f"{processor(where)}, {threads}, {speed.dtype}, protocol {speed.protocol}"


def growth_charts(growth: Growth, forms: Sequence[str]) -> str:
    """Draw how the time of each exact form grows, a line a form: for a window, for a telephone.

    Args:
        growth: what is drawn.
        forms: all that the page draws, by which one has the same colour everywhere.
    """
    curves = [
        (
            form,
            (index + 2) % 9,
            [(float(x), t.value, t.low, t.high) for x, t in sorted(points.items())],
        )
        for index, form in enumerate(forms)
        if (points := growth.forms.get(form))
    ]
    titles = f"time of a batch of {growth.batch} (ms)", f"{NAMES[growth.axis]} (pixels)"
    return "".join(lines_chart(curves, *titles, wide=wide) for wide in (True, False))


def operators_of(rows: Iterable[Row], figures: Iterable[Figure]) -> list[str]:
    """Return the operators that have a page: those on a board, and those with published figures."""
    found = {row.first.entry.operator for row in rows}
    return sorted(found | {figure.operator for figure in figures if figure.operator})


def operator_view(
    operator: str,
    boards: Sequence[Board],
    figures: Sequence[Figure],
    growths: Sequence[Growth],
) -> dict[str, Any]:
    """Return the variables of `operator.html`, but for the rows of its table."""
    family = families().get(operator)
    places = places_of(operator, boards)
    own = [growth for growth in growths if growth.first.entry.operator == operator]
    forms = sorted({form for growth in own for form in growth.forms})
    return {
        "operator": operator,
        "family": family,
        "colour": colour(operator),
        "taps": Markup(
            taps_chart([(t.caption, t.rows) for t in family.taps], family.title, family.colour)
        )
        if family and family.taps
        else None,
        "counts": _counts(places),
        "figures": [figure for figure in figures if figure.operator == operator],
        "options": _options([row for _, row in places]),
        "growth": [
            {
                "svg": Markup(growth_charts(growth, forms)),
                "growth": growth,
                "setup": _setup(growth.first),
            }
            for growth in own
        ],
        "code": _code(operator, [row for _, row in places]),
    }


def places_of(operator: str, boards: Iterable[Board]) -> list[tuple[Board, Row]]:
    """Return the rows of an operator, with their boards."""
    return [
        (board, row)
        for board in boards
        for row in board.rows
        if row.first.entry.operator == operator
    ]


def _counts(places: Iterable[tuple[Board, Row]]) -> dict[str, int]:
    """On how many boards it is surely better or worse than the baseline, or neither.

    Where it has several arms on a board, such as a tuned one, the best of them counts.
    """
    kinds = ("baseline", "better", "open", "worse", "unknown")  # the first that is there counts
    found: dict[str, set[str]] = {}
    for board, row in places:
        within = row.difference.interval if row.difference else None
        if row.baseline:
            kind = "baseline"
        else:
            kind = "unknown" if within is None else board.surely(row) or "open"
        found.setdefault(board.key, set()).add(kind)
    counts = dict.fromkeys(kinds, 0)
    for of_board in found.values():
        counts[next(kind for kind in kinds if kind in of_board)] += 1
    return counts


def _options(rows: Iterable[Row]) -> list[str]:
    """The options with which it was run, the commonest first."""
    seen = [_arguments(row.first.entry.operator_options) for row in rows]
    return sorted(set(filter(None, seen)), key=lambda words: (-seen.count(words), words))


def _arguments(options: Mapping[str, Any]) -> str:
    """Options as the arguments of a call; what is no name of an argument is left out."""
    return ", ".join(f"{k}={v!r}" for k, v in sorted(options.items()) if k.isidentifier())


def _code(operator: str, rows: Sequence[Row]) -> str:
    """Code that builds a network with it, as it stands on a board."""
    if not rows:
        return (
            "from bench import operators\n\n"
            f"op = operators.create({operator!r}, in_channels=64, out_channels=64, kernel_size=7)\n"
        )
    row = rows[0]
    entry = row.first.entry
    own = entry.operator == OWN  # the host's own convolutions
    arguments = {
        "operator": None if own else entry.operator,
        "options": entry.operator_options,
        "where": entry.selection,
        "mix": entry.mix,
        "input_size": tuple(row.cost.input_size if row.cost else (224, 224)),
        "features_only": True,
        "host_options": entry.host_options,
    }
    given = "".join(f"    {name}={value!r},\n" for name, value in arguments.items() if value)
    return (
        "from bench.backbones import build, fuse\n\n"
        f"model = build(\n    {entry.host!r},\n{given})\n"
        "fast = fuse(model)  # of equal value, for inference\n"
    )


def operator_links(operators: Iterable[str]) -> list[dict[str, Any]]:
    """Return name, title, colour and address of operators, for lists of them."""
    known = families()
    return [
        {
            "name": name,
            "title": known[name].title if name in known else name,
            "colour": colour(name),
            "page": operator_file(name),
        }
        for name in operators
    ]
