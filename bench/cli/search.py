"""The verb search-dilation: icconv's dilations, read off a supernet (EDO)."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from bench.cli.arguments import Verbs, add_choice, choice_of, runs_of, tell_next
from bench.errors import UserError


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    text = "train a supernet and read icconv's dilations off it (EDO)"
    verb = verbs.add("search-dilation", search_dilation, text)
    add_choice(verb)
    verb.add_argument(
        "--reading",
        choices=("output", "weight"),
        default="output",
        help="what a dilation must keep: the expected output (default), or the weights",
    )
    verb.add_argument("--dmax", type=int, default=None, help="largest dilation; default 4")
    verb.add_argument("--out", type=Path, default=None, help="suite that runs what was found")


def search_dilation(options: argparse.Namespace) -> None:
    """Train a supernet for each icconv that is chosen, and read its dilations off it."""
    from bench.cli.progress import console
    from bench.config.files import require_suite_file
    from bench.config.plan import each_arm
    from bench.run.dilation import search_dilation, searchable

    require_suite_file(options.out)
    choice = choice_of(options)
    arms = each_arm(searchable(options.suite, choice))
    if options.out is not None and len(arms) > 1:
        raise UserError(
            f"`--out` (={str(options.out)!r}) takes one result, and {len(arms)} arms are chosen: "
            f"{'; '.join(arms)}; narrow them, e.g. with --only task=…, or leave it out."
        )
    for title, of in arms.items():
        console.print(title)
        parts = [Path(options.suite).stem, *title.split(" · "), options.reading]
        name = "-".join(parts + ([] if options.dmax is None else [f"dmax{options.dmax}"]))
        path = options.out or runs_of(options) / "searched" / f"{name}.yaml"
        search_dilation(
            options.suite,
            replace(choice, only={"cell": [cell.hash for cell in of]}),
            runs_of(options),
            reading=options.reading,
            dmax=options.dmax,
            out=path,
            command=options.line,
        )
        tell_next(options, path)
