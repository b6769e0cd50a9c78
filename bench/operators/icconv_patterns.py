"""Which dilation each output channel of an IC-Conv has, and the files that say so."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.errors import UserError, require
from bench.operators.base import require_count

_KEY = re.compile(r"\(\s*(\d+)\s*,\s*(\d+)\s*\)")


class Strand(NamedTuple):
    """The output channels `start` … `stop` − 1, which have one dilation, (height, width)."""

    dilation: tuple[int, int]
    start: int
    stop: int


def key(dilation: tuple[int, int]) -> str:
    """Return the pattern's key of a dilation: "(i, j)" with i and j one less.

    Example:
        >>> key((1, 3))
        '(0, 2)'
    """
    return f"({dilation[0] - 1}, {dilation[1] - 1})"


def strands(pattern: Mapping[str, int], out_channels: int, unit: int = 1) -> list[Strand]:
    """Return the strands of a pattern in its order, those of no channel left out.

    Args:
        pattern: {"(i, j)": n}: n output channels with dilation i + 1 on the height, j + 1 on the
            width, in this order.
        out_channels: what the counts add up to.
        unit: what each count is a multiple of: the number of groups, as every strand is a grouped
            convolution of its own.

    Raises:
        ValueError: a key or count of another kind, a dilation twice, or a wrong sum.

    Example:
        >>> strands({"(0, 0)": 4, "(1, 0)": 0, "(1, 3)": 2}, 6)
        [Strand(dilation=(1, 1), start=0, stop=4), Strand(dilation=(2, 4), start=4, stop=6)]
    """
    if not isinstance(pattern, Mapping):
        raise UserError(f'`pattern` (={pattern!r}) must be a mapping like {{"(0, 0)": 64}}.')
    layout: list[Strand] = []
    start = 0
    for name, count in pattern.items():
        match = _KEY.fullmatch(str(name).strip())
        if match is None:
            raise UserError(f'`pattern` (={name!r}) must have keys like "(0, 3)".')
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise UserError(f"`pattern` (={name!r}: {count!r}) must count channels, from 0 up.")
        if count % unit:
            raise UserError(
                f"`pattern` (={name!r}: {count}) must count multiples of `groups` (={unit}), as "
                "each dilation is a grouped convolution of its own."
            )
        if not count:
            continue
        dilation = (int(match[1]) + 1, int(match[2]) + 1)
        if any(s.dilation == dilation for s in layout):
            raise UserError(f"`pattern` (={name!r}) must name each dilation once.")
        layout.append(Strand(dilation, start, start + count))
        start += count
    if start != out_channels:
        raise UserError(
            f"`pattern` (={dict(pattern)!r}) must count `out_channels` (={out_channels}) "
            f"channels, not {start}."
        )
    return layout


def default_pattern(
    out_channels: int, dmax: int = 4, plain_share: float = 0.7, unit: int = 1
) -> dict[str, int]:
    """Return a pattern without a search: a share on (1, 1), the rest evenly on the others.

    The fallback of the paper's authors takes half of the channels in the first layer and 0.7
    later. What does not divide evenly goes to the first dilations in order, height slowest.

    Args:
        out_channels: how many channels to spread, a multiple of `unit`.
        dmax: largest dilation of an axis.
        plain_share: share of the channels on (1, 1), in [0, 1].
        unit: what each count is a multiple of, the number of groups.

    Example:
        >>> default_pattern(20, dmax=2)
        {'(0, 0)': 14, '(0, 1)': 2, '(1, 0)': 2, '(1, 1)': 2}
        >>> list(default_pattern(64, plain_share=0.5).values())
        [32, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    """
    require_count("dmax", dmax)
    require("plain_share", plain_share, 0 <= plain_share <= 1, "in [0, 1]")
    keys = [key((i, j)) for i in range(1, dmax + 1) for j in range(1, dmax + 1)]
    units = out_channels // unit
    others = len(keys) - 1
    plain = round(plain_share * units) if others else units
    counts = [plain]
    for place in range(others):
        counts.append((units - plain) // others + (place < (units - plain) % others))
    return {k: n * unit for k, n in zip(keys, counts, strict=True)}


def read_patterns(path: str | Path) -> list[dict[str, int]]:
    """Read a pattern file: a JSON list with one pattern per convolution, in construction order.

    Raises:
        ValueError: no such file, or not a list of patterns.
    """
    file = Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"`path` (={str(path)!r}) must be a file: {error.strerror}.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"`path` (={str(path)!r}) must be a JSON file: {error}.") from error
    if not isinstance(content, list) or not all(isinstance(p, dict) for p in content):
        raise UserError(f"`path` (={str(path)!r}) must hold a list of patterns, one per layer.")
    for number, pattern in enumerate(content):
        try:
            strands(pattern, sum(n for n in pattern.values() if isinstance(n, int)))
        except ValueError as error:
            raise UserError(f"`path` (={str(path)!r}), entry {number}: {error}") from error
    return content


def write_patterns(path: str | Path, patterns: Sequence[Mapping[str, int]]) -> None:
    """Write a pattern file; zero counts and the order of the keys are kept.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_patterns(folder + "/patterns.json", [{"(0, 0)": 6, "(0, 1)": 0}])
        ...     read_patterns(folder + "/patterns.json")
        [{'(0, 0)': 6, '(0, 1)': 0}]
    """
    for pattern in patterns:
        strands(pattern, sum(pattern.values()))
    lines = ",\n".join(json.dumps(dict(pattern)) for pattern in patterns)
    Path(path).write_text(f"[\n{lines}\n]\n", encoding="utf-8")
