"""The verb export-model: a finished cell's network in a file of its own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench.cli.arguments import Verbs, add_trust, cell_of, split
from bench.errors import UserError, near

FORMATS = ("safetensors", "onnx", "torch_export")


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    text = "write a finished cell's network, trained and fused, checked and timed"
    verb = verbs.add("export-model", export_model, text)
    verb.add_argument("cell", help="hash of the cell, or its beginning")
    verb.add_argument(
        "--format",
        default=FORMATS[0],
        metavar="A,B",
        help=f"{', '.join(FORMATS)}; default the first",
    )
    verb.add_argument("--out", type=Path, default=Path("models"), help="folder; default: models")
    add_trust(verb)


def export_model(options: argparse.Namespace) -> None:
    """Write a finished cell's network."""
    formats: list[Any] = split(options.format)
    for form in formats:
        if form not in FORMATS:
            raise UserError(f"`--format` (={form!r}) is not known; {near(form, FORMATS)}")
    run, store = cell_of(options)
    from bench.run.export_model import export_cell
    from bench.run.suite import hush
    from leaderboard.names import slug

    hush()
    name = f"{slug(run.tags.get('operator', 'network'))}-{run.cell[:8]}"
    for made in export_cell(store, run, formats, options.out, name):
        print(made.words)
