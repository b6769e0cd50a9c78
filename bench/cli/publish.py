"""The verbs that show and publish results: export, site, submit, ui."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
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
    verb = verbs.add("submit", submit, "check records, and file them among the published results")
    verb.add_argument(
        "records", nargs="+", type=Path, metavar="RECORDS", help="files, or folders that hold them"
    )
    verb.add_argument(
        "--into",
        type=Path,
        default=Path("leaderboard/results"),
        help="default: leaderboard/results, in a checkout",
    )
    verb.add_argument(
        "--dry-run", action="store_true", help="file nothing, and say what it would change"
    )
    verb.add_argument(
        "--whole",
        action="store_true",
        help="with --dry-run: the records are all that are to be there, what they lack is removed",
    )
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
    with Bar("records and pages", 1) as bar:
        build(records, options.out, progress=bar.step)
    print(f"Site: {options.out / 'index.html'}")


def submit(options: argparse.Namespace) -> None:
    """File records among the published ones; say what they change on the boards, as Markdown."""
    from bench.record import load_all
    from leaderboard.changes import changes
    from leaderboard.filing import put, records_in

    if options.whole and not options.dry_run:
        raise UserError("`--whole` (=True) must be there with --dry-run: submit removes nothing.")
    records = records_in(options.records)
    before = load_all(options.into) if options.into.is_dir() else []
    known = {record.filename for record in before}
    given = {record.filename: record for record in records.values()}
    new = [record for name, record in given.items() if name not in known]
    if options.dry_run:
        after = list(given.values()) if options.whole else [*before, *new]
        removed = f", {len(known - given.keys())} removed" if options.whole else ""
        print(changes(before, after))
        print(f"Records: {len(new)} new{removed}.")
        return
    filed = put(records, options.into)
    print(changes(before, [*before, *new]))
    print(f"{len(filed.new)} records filed in {options.into}, {len(filed.known)} were there.")
    if filed.new:
        print("Commit them, and open a pull request: its tests check them, a comment shows this.")


def ui(options: argparse.Namespace) -> None:
    """Open the MLflow UI on loopback, until Ctrl-C."""
    from bench.store import Store
    from bench.store.ui import serve

    sys.exit(serve(Store(runs_of(options)), options.port))
