"""The verbs that show results: export, site, ui."""

from __future__ import annotations

import argparse
import sys

from bench.cli.arguments import Verbs, add_records, add_site, records_of, runs_of
from bench.errors import UserError


def add(verbs: Verbs) -> None:
    """Describe the verbs."""
    add_records(verbs.add("export", export, "write the records of all runs"))
    verb = verbs.add("site", site, "write the static leaderboard from records")
    add_records(verb)
    add_site(verb)
    verb = verbs.add("ui", ui, "open the MLflow UI on loopback")
    verb.add_argument("--port", type=int, default=5000)


def export(options: argparse.Namespace) -> int:
    """Write the records of all runs; return how many there are."""
    from bench.store import Store

    written = Store(runs_of(options)).export(records_of(options))
    print(f"{len(written)} records in {records_of(options)}")
    return len(written)


def site(options: argparse.Namespace) -> None:
    """Write the static leaderboard from records."""
    from leaderboard.build import build

    records = records_of(options)
    if not records.is_dir() or not any(records.rglob("*.json")):
        raise UserError(
            f"`--records` (={str(records)!r}): no record there; "
            "run a suite, then `convboard export`."
        )
    build(records, options.out)
    print(f"Site: {options.out / 'index.html'}")


def ui(options: argparse.Namespace) -> None:
    """Open the MLflow UI on loopback, until Ctrl-C."""
    from bench.store import Store, serve

    sys.exit(serve(Store(runs_of(options)), options.port))
