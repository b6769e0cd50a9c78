"""Cross-entropy with a weight per class, in the place of mmsegmentation's.

mmsegmentation 1.2's own looks up the weight of the ignored label too, and so fails on every mask
that has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks.segmentation.masks import IGNORED


class WeightedCrossEntropy(nn.Module):
    """Cross-entropy of pixels weighed by class: Σ w(y) · −log p(y) / Σ w(y), ignored ones left out.

    Args:
        weights: one per class, ≥ 0, not all 0.
        loss_weight: factor of the result.
        loss_name: what mmsegmentation calls it.

    Example:
        >>> loss = WeightedCrossEntropy([1.0, 3.0])
        >>> logits = torch.tensor([[[[2.0, 0.0, 9.0]], [[0.0, 0.0, -9.0]]]])
        >>> round(loss(logits, torch.tensor([[[0, 1, 255]]])).item(), 4)
        0.5516
    """

    weights: Tensor

    def __init__(
        self, weights: Sequence[float], loss_weight: float = 1.0, loss_name: str = "loss_ce"
    ) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32), False)
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None = None,
        ignore_index: int = IGNORED,
        **_: Any,
    ) -> Tensor:
        """Return the loss of logits (N, C, H, W) for labels (N, H, W).

        Args:
            logits: one channel per class.
            labels: int64.
            weight: per pixel (N, H, W), as mmsegmentation's samplers give it.
            ignore_index: label of the pixels that are left out.
        """
        pixels = F.cross_entropy(
            logits, labels, self.weights, ignore_index=ignore_index, reduction="none"
        )
        counted = labels != ignore_index
        total = self.weights[labels[counted]].sum()
        pixels = pixels if weight is None else pixels * weight
        return self.loss_weight * pixels.sum() / total.clamp(min=torch.finfo(total.dtype).tiny)


def weigh_classes(model: nn.Module, weights: Sequence[float] | None) -> int:
    """Put `WeightedCrossEntropy` in the place of every weighed cross-entropy of a segmentor.

    Args:
        model: a segmentor of mmsegmentation.
        weights: for all its heads; None for those of the losses that have weights of their own.

    Returns:
        The number of losses replaced.
    """
    replaced = 0
    for head in list(model.modules()):
        losses = getattr(head, "loss_decode", None)
        if isinstance(losses, nn.ModuleList):
            for index, loss in enumerate(losses):
                if (new := _weighed(loss, weights)) is not None:
                    losses[index] = new
                    replaced += 1
        elif (new := _weighed(losses, weights)) is not None:
            head.loss_decode = new
            replaced += 1
    return replaced


def _weighed(loss: Any, weights: Sequence[float] | None) -> WeightedCrossEntropy | None:
    if type(loss).__name__ != "CrossEntropyLoss" or loss.use_sigmoid or loss.use_mask:
        return None
    weights = loss.class_weight if weights is None else weights
    if weights is None:
        return None
    return WeightedCrossEntropy(weights, loss.loss_weight, loss.loss_name)
