"""What `plan` says of the GPU hours that a suite would take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.config.cell import Cell


def tell_gpu_hours(cells: Sequence[Cell], tflops: float | None) -> None:
    """Print the estimate of each network of a suite that says how many images it trains on.

    Args:
        cells: of the suite.
        tflops: what a GPU reaches in training, in 10¹² operations a second; None to assume it.
    """
    if not any(cell.train_images for cell in cells):
        return
    from rich.table import Table

    from bench.analysis.gpu_hours import ASSUMED, REACHED, gpu_hours
    from bench.cli.progress import console

    estimates = gpu_hours(cells, REACHED if tflops is None else tflops * 1e12)
    how = ASSUMED if tflops is None else f"at the {tflops:g} TFLOPS of --tflops"
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
        f"operations, {how}; a second GPU halves the time, not the hours.",
        soft_wrap=True,
    )
