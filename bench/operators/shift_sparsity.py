"""Coarse sparsity of Shiftwise in training: which of its N × N filters are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bench.errors import require


def filter_saliency(weight: Tensor, grad: Tensor) -> Tensor:
    """SNIP's saliency of whole filters: Σ |w · ∂L/∂w| over each N × N filter (arXiv 1810.02340).

    Args:
        weight: (..., N, N).
        grad: gradient of the loss, of the same shape.

    Returns:
        (...): one number per filter.
    """
    return (weight.detach() * grad).abs().sum((-2, -1))


def snip_densities(saliencies: Sequence[Tensor], sparsity: float) -> list[float]:
    """Return the share of filters that each layer keeps if the least salient ones of all go.

    Every layer keeps one filter at least.

    Args:
        saliencies: one tensor per layer.
        sparsity: share of all filters to drop, in [0, 1).

    Example:
        >>> snip_densities([torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.1])], 0.25)
        [1.0, 0.5]
    """
    require("sparsity", sparsity, 0 <= sparsity < 1, "in [0, 1)")
    all_saliencies = torch.cat([s.flatten() for s in saliencies])
    dropped = torch.zeros(len(all_saliencies), dtype=torch.bool, device=all_saliencies.device)
    dropped[all_saliencies.argsort(stable=True)[: round(sparsity * len(all_saliencies))]] = True
    parts = torch.split(dropped, [s.numel() for s in saliencies])
    return [max(int((~part).sum()), 1) / len(part) for part in parts]


def random_mask(shape: Sequence[int], density: float, generator: torch.Generator) -> Tensor:
    """Return a mask of `shape` with round(density · numel) filters kept (True), at random."""
    count = math.prod(shape)
    mask = torch.zeros(count, dtype=torch.bool)
    mask[torch.randperm(count, generator=generator)[: round(density * count)]] = True
    return mask.view(*shape)


def cosine_rate(step: int, total: float, start: float = 0.3) -> float:
    """Share of the kept filters that is exchanged at `step`: from `start` to 0, half a cosine.

    Example:
        >>> [round(cosine_rate(step, 100), 3) for step in (0, 50, 100, 200)]
        [0.3, 0.15, 0.0, 0.0]
    """
    return start * (1 + math.cos(math.pi * min(step / total, 1))) / 2


def exchange(weight: Tensor, mask: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Drop the smallest of the kept filters (by Σ|w|), and keep as many others at random.

    Args:
        weight: (..., N, N).
        mask: (...), which filters are kept.
        rate: share of the kept filters to exchange; no more than there are others.
        generator: for the choice among the filters that were not kept before.

    Returns:
        The new mask, with as many kept filters as before.
    """
    active = mask.flatten()
    size = weight.detach().abs().sum((-2, -1)).flatten().to(active.device)
    inactive = (~active).nonzero()[:, 0]
    count = min(int(rate * int(active.sum())), len(inactive))
    smallest = size.masked_fill(~active, math.inf).argsort(stable=True)[:count]
    regrown = inactive[torch.randperm(len(inactive), generator=generator)[:count].to(active.device)]
    updated = active.clone()
    updated[smallest] = False
    updated[regrown] = True
    return updated.view_as(mask)
