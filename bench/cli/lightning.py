"""The verb `fit`: one run by a Lightning configuration."""

from __future__ import annotations

import argparse
import sys

from bench.cli.arguments import Verbs, add_data, runs_of


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    text = (
        "one run by a Lightning configuration: --config FILE, then any argument over it, e.g. "
        "--model.lr 0.01 --trainer.max_epochs 3; alone, it lists them"
    )
    add_data(verbs.add("fit", fit, text))


def fit(options: argparse.Namespace) -> None:
    """Run one Lightning configuration with its bar."""
    from bench.cli.progress import console
    from bench.cli.suites import line_of
    from bench.config import lightning
    from bench.config.plan import Cell
    from bench.run.cell import run_cell

    if not options.arguments:
        lightning.parser().print_help()
        return
    config = lightning.resolve(lightning.from_arguments(options.arguments))
    backbone = config["model"]["init_args"]["backbone"].get("init_args") or {}
    cell = Cell(
        suite="fit",
        task=config["model"]["class_path"].rpartition(".")[2].lower(),
        host=str(backbone.get("host", "own")),
        operator=backbone.get("operator") or "host",
        recipe="fit",
        baseline=False,
        config=config,
    )
    folder = runs_of(options)
    record = run_cell(cell, folder, options.line, progress_bar=True)
    console.print(line_of(cell, record), soft_wrap=True)
    console.print(f"MLflow run {record.provenance.mlflow_run} in {folder.name}/")
    if record.status != "ok":
        sys.exit(1)
