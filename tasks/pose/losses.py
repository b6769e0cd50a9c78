"""What a head of heatmaps and tags is trained by: targets and losses, as pure functions.

Heatmaps (Tompson et al. 2014), tags by associative embedding (Newell et al. 2017, arXiv
1611.05424) with the pull and push of HigherHRNet (Cheng et al. 2020, 1908.10357). On a map of
stride s the pixel (i, j) is the middle of s × s pixels of the image, so a point x of the image
lies at (x + ½)/s − ½ of the map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def on_map(points: Tensor, stride: int) -> Tensor:
    """Return coordinates of the image on a map of a stride.

    Example:
        >>> on_map(torch.tensor([0.0, 0.5, 2.5]), 2).tolist()
        [-0.25, 0.0, 1.0]
    """
    return (points + 0.5) / stride - 0.5


def heatmaps(keypoints: Sequence[Tensor], size: Sequence[int], stride: int, sigma: float) -> Tensor:
    """Return what heatmaps should be: at each labelled key point a Gaussian, the largest counts.

    h[n, k, y, x] = max over figures p of exp(−((x − u)² + (y − v)²) / 2σ²), where (u, v) is the
    key point k of figure p on the map.

    Args:
        keypoints: of each of N images (p, K, 3): x, y in its pixels, and visibility.
        size: (height, width) of the maps.
        stride: pixels of the image for each of a map's, per axis.
        sigma: σ, in pixels of the map.

    Returns:
        (N, K, height, width).

    Example:
        >>> point = torch.tensor([[[1.0, 0.0, 2.0]]])
        >>> heatmaps([point], (1, 3), 1, 1.0).flatten().round(decimals=2).tolist()
        [0.6100000143051147, 1.0, 0.6100000143051147]
    """
    device, count = keypoints[0].device, keypoints[0].shape[1]
    columns, rows = (torch.arange(n, device=device, dtype=torch.float32) for n in size[::-1])
    maps = torch.zeros(len(keypoints), count, *size, device=device)
    for n, figures in enumerate(keypoints):
        # A figure at a time: all at once would take a hundredfold of the maps in a crowd.
        for figure in figures:
            place = on_map(figure[:, :2], stride)
            across = (-((columns - place[:, :1]) ** 2) / (2 * sigma**2)).exp()
            down = (-((rows - place[:, 1:]) ** 2) / (2 * sigma**2)).exp()
            labelled = (figure[:, 2] > 0).float()[:, None, None]
            peak = labelled * down[:, :, None] * across[:, None, :]
            maps[n] = torch.maximum(maps[n], peak)
    return maps


def heatmap_loss(predicted: Tensor, wanted: Tensor, learnt: Tensor) -> Tensor:
    """Return the mean squared error over what is learnt; what is not counts as right.

    Args:
        predicted: (N, K, h, w).
        wanted: the same.
        learnt: (N, h, w), booleans.
    """
    return ((predicted - wanted) ** 2 * learnt[:, None]).mean()


def tag_losses(tags: Tensor, keypoints: Sequence[Tensor], stride: int) -> tuple[Tensor, Tensor]:
    """Return the pull and push of tags: alike within a figure, apart between figures.

    With t̄ the mean tag of a figure's J labelled key points, of an image with P figures:
    pull = 1/P Σ_p 1/J Σ_j (t_pj − t̄_p)², push = ½ · 1/(P(P − 1)) Σ_{p≠q} exp(−(t̄_p − t̄_q)²),
    and 0 where there are no figures, or no two. Both are means over the images.

    Args:
        tags: (N, K, h, w).
        keypoints: of each of N images (p, K, 3): x, y in its pixels, and visibility.
        stride: pixels of the image for each of a map's, per axis.

    Returns:
        Two scalars.
    """
    height, width = tags.shape[-2:]
    high = tags.new_tensor([width - 1, height - 1])
    pulls, pushes = [], []
    for tag, figures in zip(tags, keypoints, strict=True):
        labelled = figures[..., 2] > 0
        figures, labelled = figures[labelled.any(dim=1)], labelled[labelled.any(dim=1)]
        count = len(figures)
        if not count:
            pulls.append(tag.sum() * 0)
            pushes.append(tag.sum() * 0)
            continue
        place = on_map(figures[..., :2], stride).round().clamp(min=torch.zeros_like(high), max=high)
        x, y = place.long().unbind(-1)
        values = tag[torch.arange(tag.shape[0], device=tag.device), y, x]
        weights = labelled / labelled.sum(dim=1, keepdim=True)
        means = (values * weights).sum(dim=1)
        pulls.append((((values - means[:, None]) ** 2) * weights).sum(dim=1).mean())
        near = (-((means[:, None] - means[None]) ** 2)).exp().sum() - count
        pushes.append(0.5 * near / max(1, count * (count - 1)))
    return torch.stack(pulls).mean(), torch.stack(pushes).mean()
