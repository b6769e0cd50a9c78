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
    from bench.config.cell import Cell
    from bench.config.network import hashes_of
    from bench.errors import Failure
    from bench.locks import Held
    from bench.run.cell import run_cell
    from bench.run.suite import preflight

    if not options.arguments:
        lightning.parser().print_help()
        return
    config = lightning.resolve(lightning.from_arguments(options.arguments))
    network = config["model"]["init_args"]["backbone"]
    backbone = network.get("init_args") or {}
    if network["class_path"] == "bench.backbones.build":  # what it names counts, and not its name
        hashes = hashes_of(backbone["host"], backbone.get("weights"))
        for name, value in hashes.items():
            if backbone.get(name) is None:  # one that is given must be met
                backbone[name] = value
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
    data = preflight([cell])
    try:
        ran = run_cell(
            cell, folder, options.line, data=data[cell.hash], again=True, progress_bar=True
        )
    except Held:
        raise Failure(f"{cell.title} goes on in another process.") from None
    record = ran.record
    if record is None:
        console.print(f"{cell.title}: done before; `convboard show {cell.hash}` shows it.")
        return
    console.print(line_of(cell, record), soft_wrap=True)
    for note in ran.notes:
        console.print(note)
    console.print(f"MLflow run {record.provenance.mlflow_run} in {folder.name}/")
    if record.status != "ok":
        sys.exit(1)
