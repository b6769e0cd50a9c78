"""Pictures of what networks see and hold; matplotlib, imported here alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from bench.record import FieldArea

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DECADES = 4
"""Contributions below the largest by more than this power of ten are drawn as none."""
COLOURS = ("#ffffff", "#8ce0ff", "#ffb454")


def field_picture(field: Tensor, areas: Sequence[FieldArea], path: Path) -> None:
    """Draw an effective receptive field with the rectangles that hold its shares, as a PNG.

    Colours are logarithmic: a linear scale would show little but the centre.

    Args:
        field: (H, W), values ≥ 0.
        areas: as `bench.analysis.receptive_field.areas` gives them.
        path: of the PNG file.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    height, width = field.shape
    figure = _figure(4.6, 4.0)
    axes = figure.add_subplot()
    strength = (field / field.max()).numpy()
    drawn = axes.imshow(
        np.maximum(strength, 10.0**-DECADES),
        norm=LogNorm(10.0**-DECADES, 1),
        cmap="inferno",
        interpolation="nearest",
        extent=(0, width, height, 0),
    )
    for area, colour in zip(areas, COLOURS * len(areas), strict=False):
        corner = ((width - area.width_px) / 2, (height - area.height_px) / 2)
        frame = Rectangle(
            corner, area.width_px, area.height_px, fill=False, lw=1.4, edgecolor=colour
        )
        axes.add_patch(frame)
        frame.set_label(f"{area.share:.0%} in {area.area:.1%} of the image")
    axes.set_xlabel("pixel")
    bar = figure.colorbar(drawn, ax=axes, fraction=0.046)
    bar.set_label("contribution / largest")
    legend = figure.legend(loc="outside upper center", ncols=1, fontsize=7)
    legend.get_frame().set_facecolor("#555555")
    for text in legend.get_texts():
        text.set_color("white")
    _save(figure, path)


def overlay_picture(images: Tensor, heat: Tensor, titles: Sequence[str], path: Path) -> None:
    """Draw images in a row and below them the same with a heat map over it, as a PNG.

    Args:
        images: (N, 3, H, W) in 0…1.
        heat: (N, H, W) in 0…1.
        titles: one per image.
        path: of the PNG file.
    """
    count = len(images)
    figure = _figure(1.5 * count + 0.2, 3.4)
    grid = figure.subplots(2, count, squeeze=False)
    for column, (image, warmth, title) in enumerate(zip(images, heat, titles, strict=True)):
        pixels = image.clamp(0, 1).permute(1, 2, 0).numpy()
        for axes in grid[:, column]:
            axes.imshow(pixels)
            axes.set_axis_off()
        grid[1, column].imshow(warmth.numpy(), cmap="inferno", alpha=0.6, vmin=0, vmax=1)
        # A class's name is no mathematics, whatever dollars stand in it.
        grid[0, column].set_title(title, fontsize=7, parse_math=False)
    _save(figure, path)


def dilation_picture(counts: Sequence[Tensor], titles: Sequence[str], path: Path) -> None:
    """Draw how many channels of each layer have which dilation, a small table each, as a PNG.

    Colours are the share of the layer's channels, by its square root: one dilation often has most.

    Args:
        counts: per layer (dmax, dmax): channels with dilation i + 1 on the height (row i) and
            j + 1 on the width (column j).
        titles: one per layer.
        path: of the PNG file.
    """
    from matplotlib.colors import PowerNorm

    columns = min(6, len(counts))
    rows = -(-len(counts) // columns)
    figure = _figure(1.7 * columns + 0.9, 1.9 * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(counts) :]:
        axes.set_visible(False)
    for axes, count, title in zip(grid.flat, counts, titles, strict=False):
        share = (count / count.sum()).numpy()
        drawn = axes.imshow(share, norm=PowerNorm(0.5, 0, 1), cmap="viridis")
        for (row, column), part in np.ndenumerate(share):
            colour = "black" if part > 0.4 else "white"
            text = str(int(count[row, column]))
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color=colour)
        dilations = range(1, len(count) + 1)
        axes.set_xticks(range(len(count)), dilations, fontsize=6)
        axes.set_yticks(range(len(count)), dilations, fontsize=6)
        axes.set_title(title, fontsize=6, parse_math=False)
    figure.supxlabel("dilation on the width", fontsize=8)
    figure.supylabel("dilation on the height", fontsize=8)
    bar = figure.colorbar(drawn, ax=list(grid.flat), fraction=0.05)
    bar.set_label("share of the layer's channels", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    # Without pyplot there is no global state and no window.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG of 128 colours: a third of the size, for pages that show many."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    pixels.quantize(128, dither=Image.Dither.NONE).save(path, "PNG", optimize=True)
