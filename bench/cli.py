"""The command `convboard`: its verbs and their arguments."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bench import __version__
from bench.operators.registry import near

if TYPE_CHECKING:
    from bench.suite import Choice

KINDS = ("suites", "tasks", "hosts", "operators", "recipes", "networks")


class _Parser(argparse.ArgumentParser):
    """argparse, with near matches for a mistyped command and short messages."""

    def error(self, message: str) -> NoReturn:
        if "invalid choice" in message and self._subparsers is not None:
            typed = message.split("'")[1]
            message = f"`command` (={typed!r}) is not known; {near(typed, _commands())}"
        self.exit(2, f"{self.prog}: {message}\n")


def _commands() -> list[str]:
    return [
        name.removeprefix("_do_").replace("_", "-") for name in globals() if name.startswith("_do_")
    ]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = _Parser(prog="convboard", description="Which convolution operator should stand here?")
    made.add_argument("--version", action="version", version=f"convboard {__version__}")
    verbs = made.add_subparsers(dest="command", required=True, metavar="command")

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.add_argument(
            "--runs",
            type=Path,
            default=None,
            help="folder of the MLflow store; default $CONVBOARD_RUNS or ./runs",
        )
        return added

    def data(added: argparse.ArgumentParser) -> argparse.ArgumentParser:
        added.add_argument(
            "--data",
            type=Path,
            default=None,
            help="folder in which sets of images lie; default $CONVBOARD_DATA or .",
        )
        return added

    def choice(added: argparse.ArgumentParser) -> argparse.ArgumentParser:
        data(added)
        added.add_argument("suite", help="name of a suite, or a path to its YAML file")
        added.add_argument(
            "--only",
            action="append",
            default=[],
            metavar="AXIS=A,B",
            help="keep cells by task, host, operator, recipe, seed or cell",
        )
        added.add_argument("--seeds", help="comma-separated, in place of the suite's")
        added.add_argument("--hosts", help="comma-separated, in place of the boards'")
        added.add_argument("--operators", help="comma-separated, in place of the boards'")
        added.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="lay a value over every cell's configuration, e.g. trainer.max_epochs=3",
        )
        return added

    def running(added: argparse.ArgumentParser) -> argparse.ArgumentParser:
        added.add_argument("--workers", type=int, default=None, help="processes at a time")
        return added

    def places(added: argparse.ArgumentParser) -> argparse.ArgumentParser:
        added.add_argument("--records", type=Path, default=None, help="default: RUNS/records")
        added.add_argument("--out", type=Path, default=Path("site"), help="default: site")
        return added

    places(
        running(choice(verb("bench", "run a suite, time it, export its records, write the site")))
    )
    choice(verb("plan", "show the cells of a suite and which are done"))
    running(choice(verb("run", "run the cells of a suite that are not done")))
    choice(verb("speed", "measure the speed of a suite's operators, all arms interleaved"))
    added = verb("show", "show one cell: its state, scores, error and configuration")
    added.add_argument("cell", help="hash of the cell, or its beginning")
    added = verb("list", "list what there is")
    added.add_argument("kind", choices=KINDS, metavar="kind", help=", ".join(KINDS))
    added = verb(
        "fit",
        "one run by a Lightning configuration: --config FILE, then any argument over it, e.g. "
        "--model.lr 0.01 --trainer.max_epochs 3; alone, it lists them",
    )
    data(added)
    added = verb("tune", "search learning rate, weight decay and an operator's options by Optuna")
    choice(added)
    added.add_argument("--trials", type=int, default=20, help="trials in the study, in all")
    added.add_argument("--out", type=Path, default=None, help="the best trial's configuration")
    added = choice(
        verb("erf", "draw what the operators of a suite see: receptive fields, Grad-CAM")
    )
    added.add_argument(
        "--fresh", action="store_true", help="networks before training, in place of trained ones"
    )
    added.add_argument("--images", type=int, default=16, help="images of the scored split")
    added.add_argument(
        "--size", type=int, default=None, help="their short side; default: 7 positions on the map"
    )
    added = data(verb("predict", "draw what a finished cell predicts on images"))
    added.add_argument("cell", help="hash of the cell, or its beginning")
    added.add_argument("images", type=Path, nargs="+", metavar="image", help="image files")
    added.add_argument("--out", type=Path, required=True, help="folder of the drawn images")
    added.add_argument("--score", type=float, default=0.3, help="least score of a detection")
    added = verb("search-dilation", "train a supernet and read icconv's dilations off it (EDO)")
    choice(added)
    added.add_argument(
        "--reading",
        choices=("output", "weight"),
        default="output",
        help="what a dilation must keep: the expected output (default), or the weights",
    )
    added.add_argument("--dmax", type=int, default=None, help="largest dilation; default 4")
    added.add_argument("--out", type=Path, default=None, help="suite that runs what was found")
    added = verb("export", "write the records of all runs")
    added.add_argument("--records", type=Path, default=None, help="default: RUNS/records")
    places(verb("site", "write the static leaderboard from records"))
    added = verb("ui", "open the MLflow UI on loopback")
    added.add_argument("--port", type=int, default=5000)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; a user's mistake ends it with a few lines and status 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options, rest = parser().parse_known_args(given)
    if rest and options.command != "fit":
        parser().error(f"unrecognised arguments: {' '.join(rest)}")
    options.arguments = rest
    options.line = shlex.join(["convboard", *map(_without_folder, given)])
    if getattr(options, "data", None):
        if not options.data.is_dir():
            parser().error(f"`--data` (={str(options.data)!r}) must be a folder.")
        os.environ["CONVBOARD_DATA"] = str(options.data.absolute())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended as by Ctrl-C: it resumes
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    try:
        globals()[f"_do_{options.command.replace('-', '_')}"](options)
    except ValueError as error:
        print(f"convboard: {error}", file=sys.stderr)
        if os.environ.get("CONVBOARD_TRACEBACK"):
            raise
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)


def _without_folder(argument: str) -> str:
    """Return an argument as records show it: of a path from the root, its last part alone.

    Example:
        >>> _without_folder("--runs=/home/me/runs"), _without_folder("configs/a.yaml")
        ('--runs=runs', 'configs/a.yaml')
    """
    name, equals, value = argument.rpartition("=")
    return f"{name}{equals}{Path(value).name}" if Path(value).is_absolute() else argument


def _runs(options: argparse.Namespace) -> Path:
    from bench.track import default_folder

    folder: Path = options.runs or default_folder()
    return folder.resolve()


def _choice(options: argparse.Namespace) -> Choice:
    from bench.overlays import OverlayError
    from bench.suite import Choice

    only: dict[str, list[str]] = {}
    for text in options.only:
        axis, equals, values = text.partition("=")
        if not equals:
            raise OverlayError(
                f"`--only` (={text!r}) must read AXIS=VALUE, e.g. operator=parc,acb."
            )
        only.setdefault(axis, []).extend(_split(values))
    try:
        seeds = [int(seed) for seed in _split(options.seeds)] if options.seeds else None
    except ValueError:
        raise OverlayError(
            f"`--seeds` (={options.seeds!r}) must be whole numbers: 0,1,2."
        ) from None
    return Choice(
        only=only,
        seeds=seeds,
        hosts=_split(options.hosts) if options.hosts else None,
        operators=_split(options.operators) if options.operators else None,
        sets=tuple(options.set),
    )


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _do_plan(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from bench import suite
    from bench.track import Store

    cells = suite.plan(options.suite, _choice(options))
    kept = Store(_runs(options)).kept()
    table = Table("cell", "task", "host", "operator", "recipe", "seed", "state", box=None)
    for cell in cells:
        table.add_row(
            cell.hash,
            cell.task,
            cell.host,
            cell.arm.label + (" (baseline)" if cell.baseline else ""),
            cell.recipe,
            str(cell.seed),
            suite.state(cell, kept),
        )
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    left = sum(suite.state(cell, kept) not in ("done", "absent") for cell in cells)
    console.print(f"{len(cells)} cells, {left} to run.")


def _run_cells(options: argparse.Namespace) -> int:
    from bench.verbs import run_suite

    return run_suite(options.suite, _choice(options), _runs(options), options.line, options.workers)


def _do_run(options: argparse.Namespace) -> None:
    if _run_cells(options):
        sys.exit(1)


def _do_speed(options: argparse.Namespace) -> None:
    from bench.verbs import speed_suite

    speed_suite(options.suite, _choice(options), _runs(options), options.line)


def _do_bench(options: argparse.Namespace) -> None:
    failed = _run_cells(options)
    _do_speed(options)
    if _export(options):
        _do_site(options)
    if failed:
        sys.exit(1)


def _do_show(options: argparse.Namespace) -> None:
    from bench.verbs import show

    print(show(_runs(options), options.cell))


def _do_list(options: argparse.Namespace) -> None:
    from bench.verbs import listing

    print(listing(options.kind))


def _do_fit(options: argparse.Namespace) -> None:
    from bench.verbs import fit_once

    if not fit_once(options.arguments, _runs(options), options.line):
        sys.exit(1)


def _do_tune(options: argparse.Namespace) -> None:
    from bench.tune import tune

    tune(
        options.suite,
        _choice(options),
        _runs(options),
        trials=options.trials,
        out=options.out,
        command=options.line,
    )


def _do_erf(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from bench import suite, views
    from bench.erf import SHARES

    suite.hush()
    cells = suite.plan(options.suite, _choice(options))
    seen = views.look(
        cells,
        _runs(options),
        options.line,
        fresh=options.fresh,
        images=options.images,
        size=options.size,
    )
    shares = [f"{share:.0%} in" for share in SHARES]
    table = Table("task", "host", "operator", "seed", "weights", "images", *shares, box=None)
    for cell, record in seen:
        view = record.view
        assert view is not None
        height, width = view.input_size
        table.add_row(
            cell.task,
            cell.host,
            cell.arm.label,
            str(cell.seed),
            view.weights,
            f"{view.images} of {height}×{width}",
            *(f"{area.area:.1%}" for area in view.field),
        )
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    left = len(cells) - table.row_count
    more = f" {left} cells were left out, not being done." if left else ""
    console.print(f"Share of the image that holds so much of the receptive field.{more}")


def _do_predict(options: argparse.Namespace) -> None:
    from bench import suite
    from bench.predict import predict

    suite.hush()
    found = predict(_runs(options), options.cell, options.images, options.out, options.score)
    for path, words in found:
        print(f"{path}: {words}")


def _do_search_dilation(options: argparse.Namespace) -> None:
    from bench.search import search_dilation

    search_dilation(
        options.suite,
        _choice(options),
        _runs(options),
        reading=options.reading,
        dmax=options.dmax,
        out=options.out,
        command=options.line,
    )


def _records(options: argparse.Namespace) -> Path:
    folder: Path = options.records or _runs(options) / "records"
    return folder


def _export(options: argparse.Namespace) -> int:
    from bench.track import Store

    written = Store(_runs(options)).export(_records(options))
    print(f"{len(written)} records in {_records(options)}")
    return len(written)


def _do_export(options: argparse.Namespace) -> None:
    _export(options)


def _do_site(options: argparse.Namespace) -> None:
    from bench.verbs import write_site

    print(f"Site: {write_site(_records(options), options.out)}")


def _do_ui(options: argparse.Namespace) -> None:
    from bench.track import Store, serve

    sys.exit(serve(Store(_runs(options)), options.port))


if __name__ == "__main__":
    main()
