"""What `plan` says of the GPU hours that a suite would take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.config.cell import Cell


def tell_gpu_hours(cells: Sequence[Cell]) -> None:
    """Print the estimate of each network of a suite that says how many images it trains on."""
    if not any(cell.train_images for cell in cells):
        return
    from rich.table import Table

    from bench.analysis.gpu_hours import ASSUMED, gpu_hours
    from bench.cli.progress import console

    estimates = gpu_hours(cells)
    table = Table("task", "host", "operator", "recipe", "GPU hours each", "cells", box=None)
    arms: dict[tuple[str, str, str, str], list[float]] = {}
    for cell in cells:
        if cell.hash in estimates:
            arm = (cell.task, cell.host, cell.operator, cell.recipe)
            arms.setdefault(arm, []).append(estimates[cell.hash])
    for arm, values in arms.items():
        table.add_row(*arm, f"{values[0]:,.0f}", str(len(values)))
    console.print(table)
    console.print(
        f"About {sum(estimates.values()):,.0f} GPU hours in all: an estimate from counted "
        f"operations, on {ASSUMED}; a second GPU halves the time, not the hours.",
        soft_wrap=True,
    )
