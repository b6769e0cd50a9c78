"""From heatmaps and tags to figures: peaks, then groups of equal tags (Newell et al. 2017).

The steps are HigherHRNet's (Cheng et al. 2020, arXiv 1908.10357), key points in the order of the
set: the peaks of a key point are assigned to the figures so far by the smallest sum of costs, a
cost being the rounded distance of tag and the figure's mean tag, then the lower the better the
peak, and last, so that nothing is left to chance, the squared distance; one too far from its
figure begins another. At last a figure's missing key points are
taken where its tag and a heatmap agree best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from bench.errors import require

Array = NDArray[np.float64]
WINDOW = 5
"""Side, in pixels of the map, of the square in which a peak must be the largest."""

TIE = 1e-3
"""Weight of the squared distance, by which costs that are equal otherwise differ."""


@dataclass(frozen=True)
class Grouping:
    """How figures are read off maps.

    Attributes:
        most: figures of an image, and peaks of a key point, at most.
        threshold: least value of a peak.
        apart: distance of tags from which a peak is of another figure.

    Raises:
        ValueError: a value out of its range.
    """

    most: int = 30
    threshold: float = 0.1
    apart: float = 1.0

    def __post_init__(self) -> None:
        require("most_figures", self.most, self.most >= 1, ">= 1")
        require("peak_threshold", self.threshold, 0 < self.threshold < 1, "in (0, 1)")
        require("tag_threshold", self.apart, self.apart > 0, "> 0")

    def __call__(self, heat: Tensor, tags: Tensor) -> tuple[Array, Array]:
        """Return the figures of one image, best first.

        Args:
            heat: (K, h, w).
            tags: (K, h, w, T), of T dimensions.

        Returns:
            (n, K, 3), x and y on the map and the height of the peak, 0 where a key point was found
            nowhere; and (n) scores, the means of the heights.
        """
        places, values, at = peaks(heat, tags, self.most)
        figures = grouped(places, values, at, threshold=self.threshold, apart=self.apart)
        heat_there, tags_there = heat.double().cpu().numpy(), tags.double().cpu().numpy()
        completed = [filled(figure, heat_there, tags_there) for figure in figures]
        points = np.array(completed, dtype=np.float64).reshape(-1, heat.shape[0], 3)
        scores = points[:, :, 2].mean(axis=1)
        order = np.argsort(-scores, kind="stable")[: self.most]
        return refined(points[order], heat_there), scores[order]


def peaks(heat: Tensor, tags: Tensor, most: int) -> tuple[Array, Array, Array]:
    """Return the highest peaks of every map: places (K, m, 2), heights (K, m), tags (K, m, T).

    A pixel that is not the largest of its 5 × 5 neighbours has a height of 0.
    """
    largest = F.max_pool2d(heat[None], WINDOW, 1, WINDOW // 2)[0]
    only = (heat * (heat == largest)).flatten(1)
    count = min(most, only.shape[1])
    heights, places = only.topk(count, dim=1)
    rows = torch.arange(len(heat), device=heat.device)[:, None]
    at = tags.flatten(1, 2)[rows, places]
    width = heat.shape[2]
    xy = torch.stack([places % width, places // width], dim=-1)
    return (
        xy.double().cpu().numpy(),
        heights.double().cpu().numpy(),
        at.double().cpu().numpy(),
    )


def grouped(
    places: Array, heights: Array, tags: Array, *, threshold: float, apart: float
) -> list[Array]:
    """Return figures, each (K, 3 + T): place, height and tag of its key points, zeros if missing.

    Args:
        places: (K, m, 2).
        heights: (K, m).
        tags: (K, m, T).
        threshold: least height.
        apart: distance of tags from which a peak is of another figure.
    """
    count, width = len(places), 3 + tags.shape[-1]
    figures: list[Array] = []
    for k in range(count):
        good = heights[k] > threshold
        found = np.concatenate([places[k], heights[k][:, None], tags[k]], axis=1)[good]
        taken: dict[int, int] = {}
        if len(found) and figures:
            means = np.stack([_mean_tag(figure) for figure in figures])
            distance = np.linalg.norm(found[:, None, 3:] - means[None], axis=-1)
            cost = np.round(distance) * 100 - found[:, 2:3] + TIE * distance**2
            for row, column in zip(*linear_sum_assignment(cost), strict=True):
                if distance[row, column] < apart:
                    taken[int(row)] = int(column)
        for row, peak in enumerate(found):
            if row in taken:
                figures[taken[row]][k] = peak
            else:
                figures.append(np.zeros((count, width)))
                figures[-1][k] = peak
    return figures


def _mean_tag(figure: Array) -> Array:
    mean: Array = figure[figure[:, 2] > 0, 3:].mean(axis=0)
    return mean


def filled(figure: Array, heat: Array, tags: Array) -> Array:
    """Return a figure's key points (K, 3), the missing ones taken from the maps.

    A missing key point lies where its heatmap less the rounded distance of the tags to the
    figure's mean is largest, and has the heatmap's value there; below 0 it stays missing.

    Args:
        figure: (K, 3 + T).
        heat: (K, h, w).
        tags: (K, h, w, T).
    """
    points: Array = figure[:, :3].copy()
    mean = _mean_tag(figure)
    for k in np.flatnonzero(points[:, 2] == 0):
        fitting = heat[k] - np.round(np.linalg.norm(tags[k] - mean, axis=-1))
        y, x = divmod(int(fitting.argmax()), heat.shape[2])
        if heat[k, y, x] > 0:
            points[k] = x, y, heat[k, y, x]
    return points


def refined(points: Array, heat: Array) -> Array:
    """Move key points from whole pixels to where a Gaussian through the neighbours has its peak.

    With l = log h: the offset along an axis is (l₊ − l₋) / (2 (2 l₀ − l₊ − l₋)), at most half a
    pixel; exact where the heatmap is a Gaussian. At the border the pixel stays.

    Args:
        points: (n, K, 3).
        heat: (K, h, w).
    """
    moved = points.copy()
    logs = np.log(np.maximum(heat, 1e-6))
    height, width = heat.shape[1:]
    for figure in moved:
        for k in np.flatnonzero(figure[:, 2] > 0):
            x, y = int(figure[k, 0]), int(figure[k, 1])
            if 0 < x < width - 1:
                figure[k, 0] += _offset(*logs[k, y, x - 1 : x + 2])
            if 0 < y < height - 1:
                figure[k, 1] += _offset(*logs[k, y - 1 : y + 2, x])
    return moved


def _offset(before: float, middle: float, after: float) -> float:
    bend = 2 * middle - before - after
    if bend <= 0:
        return 0.0
    return float(np.clip((after - before) / (2 * bend), -0.5, 0.5))
