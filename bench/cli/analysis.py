"""The verbs that look at trained networks: erf and predict."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.arguments import Verbs, add_choice, add_data, cell_of, choice_of, runs_of


def add(verbs: Verbs) -> None:
    """Describe the verbs."""
    text = "draw what the operators of a suite see: receptive fields, Grad-CAM"
    verb = verbs.add("erf", erf, text)
    add_choice(verb)
    verb.add_argument(
        "--fresh", action="store_true", help="networks before training, in place of trained ones"
    )
    verb.add_argument("--images", type=int, default=16, help="images of the scored split")
    verb.add_argument(
        "--size", type=int, default=None, help="their short side; default: 7 positions on the map"
    )
    verb = verbs.add("predict", predict, "draw what a finished cell predicts on images")
    add_data(verb)
    verb.add_argument("cell", help="hash of the cell, or its beginning")
    verb.add_argument(
        "images", type=Path, nargs="+", metavar="image", help="image files, or folders of them"
    )
    verb.add_argument(
        "--out", type=Path, default=Path("drawn"), help="folder of the pictures; default: drawn"
    )
    verb.add_argument("--score", type=float, default=0.3, help="least score of a detection")


def erf(options: argparse.Namespace) -> None:
    """Draw what the operators of a suite see."""
    from rich.table import Table

    from bench.analysis import views
    from bench.analysis.receptive_field import SHARES
    from bench.cli.progress import console
    from bench.cli.suites import tell_absent, tell_unfit
    from bench.config.plan import plan
    from bench.run.fits import unfit
    from bench.run.suite import hush

    hush()
    planned = plan(options.suite, choice_of(options))
    tell_absent(planned)
    present = [cell for cell in planned if not cell.absent]
    reasons = unfit(present)
    tell_unfit(present, reasons)
    cells = [cell for cell in present if cell.hash not in reasons]
    shares = [f"{share:.0%} in" for share in SHARES]
    table = Table("task", "host", "operator", "seed", "weights", "images", *shares, box=None)
    for cell, record in views.look(
        cells,
        runs_of(options),
        options.line,
        fresh=options.fresh,
        images=options.images,
        size=options.size,
    ):
        view = record.view
        assert view is not None
        height, width = view.input_size
        table.add_row(
            cell.task,
            cell.host,
            cell.operator,
            str(cell.seed),
            view.weights,
            f"{view.images} of {height}×{width}",
            *(f"{area.area:.1%}" for area in view.field),
        )
    console.print(table)
    left = len(cells) - table.row_count
    more = f" {left} cells were left out, not being done." if left else ""
    console.print(f"Share of the image that holds so much of the receptive field.{more}")


def predict(options: argparse.Namespace) -> None:
    """Draw what a finished cell predicts on images."""
    run, store = cell_of(options)
    from bench.analysis.predict import predict
    from bench.run.suite import hush

    hush()
    drawn = predict(store, run, options.images, options.out, options.score)
    for path, words in drawn:
        print(f"{path}: {words}")
