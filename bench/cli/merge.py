"""The verb that brings results of several machines together: merge."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.cli.arguments import Verbs, add_records, records_of


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    text = "bring the results of several machines into one folder of records"
    verb = verbs.add("merge", merge, text)
    verb.add_argument(
        "sources", nargs="+", type=Path, metavar="RUNS", help="folders of runs, or of records"
    )
    add_records(verb)


def merge(options: argparse.Namespace) -> None:
    """Merge, and tell how many records are new and from how many machines; status 1 if some failed.

    Times of different machines stay apart: a record says on which it was made, and the site has a
    column for each.
    """
    from bench.cli.progress import console
    from bench.store.merge import merge

    folder = records_of(options)
    merged = merge(options.sources, folder)
    plural = "" if len(merged.machines) == 1 else "s"
    console.print(
        f"{len(merged.new)} new, {len(merged.known)} there already, "
        f"of {len(merged.machines)} machine{plural}: {folder}",
        soft_wrap=True,
    )
    for fault in merged.faults:
        console.print(f"left out: {fault}", soft_wrap=True)
    if merged.faults:
        sys.exit(1)
