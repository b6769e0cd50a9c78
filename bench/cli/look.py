"""The verb that looks at a user's own images: look."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from bench.cli.arguments import Verbs, add_max_skipped, add_task

MOST_CLASSES = 20
"""Lines of classes in the terminal; the page has all."""


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    text = "recognise a set of images: task, layout, classes, oddities; a page of drawn samples"
    verb = verbs.add("look", look, text)
    verb.add_argument(
        "images", metavar="data", help="folder of the set, or the name of one of torchvision's"
    )
    add_task(verb)
    add_max_skipped(verb)
    verb.add_argument("--out", type=Path, default=Path("look"), help="folder of the page")
    verb.add_argument("--samples", type=int, default=12, help="images to draw")


def look(options: argparse.Namespace) -> None:
    """Say what a set of images is, and write a page of drawn samples."""
    from tasks.layouts import recognise

    layout = recognise(options.images, options.task).allowing(options.max_skipped)
    # Before the set is read, which takes longer.
    print(f"{layout.sentence}.", flush=True)

    from rich.table import Table

    from bench.analysis.look import look, write_page
    from bench.cli.pages import yaml_text
    from bench.cli.progress import console
    from bench.errors import require

    require("--samples", options.samples, options.samples >= 1, ">= 1")
    findings = look(layout, options.samples)
    print(
        f"{findings.train_samples} images to train on, {findings.scored_samples} to score "
        f"({layout.scored}); {findings.sizes}."
    )
    table = Table("class", f"{findings.counted}, train", layout.scored, box=None)
    for count in findings.classes[:MOST_CLASSES]:
        table.add_row(count.name, f"{count.train:,}", f"{count.scored:,}")
    console.print(table)
    if len(findings.classes) > MOST_CLASSES:
        print(f"… and {len(findings.classes) - MOST_CLASSES} more classes")
    print("left out or mended:" if findings.mended else "nothing was left out or mended.")
    for kind, number in findings.mended.items():
        print(f"  {kind}: {number:,}")
    print(f"In a task's YAML, with `--data {shlex.quote(str(layout.folder.parent))}`:")
    print(yaml_text({"data": layout.data}).rstrip())
    print(f"{write_page(findings, options.out)} shows samples.")
