"""The verbs that show results: export, site, ui."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from bench.cli.arguments import Verbs, add_records, add_site, records_of, runs_of
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.store.export import Exported


def add(verbs: Verbs) -> None:
    """Describe the verbs."""
    add_records(verbs.add("export", export, "write the records of all runs"))
    verb = verbs.add("site", site, "write the static leaderboard from records")
    add_records(verb)
    add_site(verb)
    verb = verbs.add("ui", ui, "open the MLflow UI on loopback")
    verb.add_argument("--port", type=int, default=5000)


def export(options: argparse.Namespace) -> None:
    """Write the records of all runs; status 1 where one had to be left out."""
    if export_records(options).faults:
        sys.exit(1)


def export_records(options: argparse.Namespace) -> Exported:
    """Write the records of all runs, and tell how many there are and which were left out."""
    from bench.cli.progress import console
    from bench.store import Store
    from bench.store.export import export

    exported = export(Store(runs_of(options)), records_of(options))
    console.print(f"{len(exported.records)} records in {records_of(options)}", soft_wrap=True)
    for fault in exported.faults:
        console.print(f"left out: {fault}", soft_wrap=True)
    return exported


def site(options: argparse.Namespace) -> None:
    """Write the static leaderboard from records."""
    from bench.cli.progress import Bar
    from leaderboard.build import build

    records = records_of(options)
    if not records.is_dir() or not any(records.rglob("*.json")):
        raise UserError(
            f"`--records` (={str(records)!r}): no record there; "
            "run a suite, then `convboard export`."
        )
    with Bar("pages", 1) as bar:
        build(records, options.out, progress=bar.step)
    print(f"Site: {options.out / 'index.html'}")


def ui(options: argparse.Namespace) -> None:
    """Open the MLflow UI on loopback, until Ctrl-C."""
    from bench.store import Store
    from bench.store.ui import serve

    sys.exit(serve(Store(runs_of(options)), options.port))
