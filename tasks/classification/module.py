"""Image classification on any timm-like network."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError
from torchvision.transforms import v2

from bench.errors import UserError, require
from tasks.base import TaskModule
from tasks.data.module import resized
from tasks.data.order import joined
from tasks.seeds import seeded

TOP = 5
BINS = 15


class Classification(TaskModule):
    """A network with a classifier of its own, trained with cross-entropy.

    Scores: `top1`, `top5` (where there are more than five classes), `ece` (expected calibration
    error, 15 bins, arXiv 1706.04599) and `nll` (mean cross-entropy without smoothing, in nats).

    Args:
        backbone: a network with timm's `reset_classifier(num_classes)`; its classifier is made
            anew, from the seed.
        num_classes: number of classes, ≥ 2.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        mixup: α of mixup (arXiv 1710.09412), 0 for none.
        cutmix: α of CutMix (arXiv 1905.04899), 0 for none; with both, one of them per batch.
        sizes: sides, in pixels, to one of which each training batch is resized (multi-scale
            training); None for none.
        class_names: names for the scores per class; None for those of the data.
        **training: optimizer, lr, weight_decay, momentum, nesterov, warmup_epochs, schedule,
            milestones, final_lr, layer_decay, frozen_norm, ema_decay, channels_last, compile, mean,
            std, seed: see `TaskModule`.

    Raises:
        ValueError: names the argument, its value and the rule.

    Example:
        >>> import timm
        >>> task = Classification(timm.create_model("test_convnext"), num_classes=10)
        >>> batch = torch.rand(2, 3, 64, 64), torch.tensor([3, 7])
        >>> sorted(task.loss(batch)), task.predict(batch[0]).shape
        (['cross_entropy'], torch.Size([2, 10]))
    """

    headline: ClassVar[str] = "top1"
    metrics_info: ClassVar[dict[str, tuple[str, bool]]] = {
        "top1": ("fraction", True),
        "top5": ("fraction", True),
        "ece": ("fraction", False),
        "nll": ("nats", False),
    }
    outcomes_kind: ClassVar[str] = (
        "one row per image: label, predicted class, right (1) or wrong (0)"
    )

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        label_smoothing: float = 0.1,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        sizes: Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
        **training: Any,
    ) -> None:
        super().__init__(backbone, **training)
        require("num_classes", num_classes, num_classes >= 2, ">= 2")
        require("label_smoothing", label_smoothing, 0 <= label_smoothing < 1, "in [0, 1)")
        require("mixup", mixup, mixup >= 0, ">= 0")
        require("cutmix", cutmix, cutmix >= 0, ">= 0")
        whole = sizes is None or (len(sizes) > 0 and min(sizes) >= 8)
        require("sizes", sizes, whole, "sides >= 8, or None")
        holds = class_names is None or len(class_names) == num_classes
        require("class_names", class_names, holds, f"`num_classes` (={num_classes}) names")
        reset = getattr(backbone, "reset_classifier", None)
        if not callable(reset):
            raise UserError(
                f"`backbone` (a {type(backbone).__name__}) must have timm's "
                "`reset_classifier(num_classes)`; a features_only network has none."
            )
        with seeded(self.seed, "head"):
            reset(num_classes)
        self.num_classes = num_classes
        self._class_names = None if class_names is None else tuple(class_names)
        self.label_smoothing = label_smoothing
        self.sizes = None if sizes is None else tuple(sizes)
        mixes = [(v2.MixUp, mixup), (v2.CutMix, cutmix)]
        with torch.device("cpu"):  # shares are drawn there, wherever the network is made
            chosen = [mix(alpha=a, num_classes=num_classes) for mix, a in mixes if a > 0]
        self.mix = v2.RandomChoice(chosen) if chosen else None
        self.metrics = nn.ModuleDict(_make_metrics(num_classes))
        self.class_accuracy = MulticlassAccuracy(num_classes, average=None)
        self._rows: list[list[int]] = []

    def logits(self, images: Tensor) -> Tensor:
        """Return the unnormalised scores (N, num_classes) for images (N, 3, H, W) in 0…1."""
        logits: Tensor = self.backbone(self.laid_out(self.normalize(images)))
        return logits

    def loss(self, batch: Any) -> dict[str, Tensor]:
        """Return {"cross_entropy"} of images (N, 3, H, W) in 0…1 and labels (N).

        In training mode the batch is first resized and mixed, where that is asked for.
        """
        images, labels = batch
        if self.sizes is not None and self.training:
            side = self.sizes[int(torch.randint(len(self.sizes), ()))]
            images = resized(images, (side, side))
        if self.mix is not None and self.training:
            images, labels = self.mix(images, labels)
        loss = F.cross_entropy(
            self.logits(images).float(), labels, label_smoothing=self.label_smoothing
        )
        return {"cross_entropy": loss}

    def predict(self, images: Tensor) -> Tensor:
        """Return the probabilities (N, num_classes) for images (N, 3, H, W) in 0…1."""
        with self.evaluating():
            return self.logits(images).float().softmax(dim=1)

    def inference_module(self) -> nn.Module:
        """Return images (N, 3, H, W) in 0…1 → logits."""
        return copy.deepcopy(nn.Sequential(self.normalize, self.backbone)).eval()

    def reset_scores(self) -> None:
        """Forget all scored batches."""
        for metric in self._metrics().values():
            metric.reset()
        self.class_accuracy.reset()
        self._rows = []

    def score(self, batch: Any) -> None:
        """Predict a batch and add it to the scores and outcomes."""
        images, labels = batch
        logits = self.logits(images).float()
        probabilities = logits.softmax(dim=1)
        for name, metric in self._metrics().items():
            if name == "nll":
                metric.update(F.cross_entropy(logits, labels, reduction="none"))
            else:
                metric.update(probabilities, labels)
        self.class_accuracy.update(probabilities, labels)
        self._rows += torch.stack([labels, probabilities.argmax(dim=1)], dim=1).tolist()

    def scores(self) -> dict[str, float]:
        """Return top1, top5, ece and nll over all scored batches."""
        return {name: float(metric.compute()) for name, metric in self._metrics().items()}

    def per_class(self) -> dict[str, float]:
        """Return class → share of its images that were classified rightly; none, no entry."""
        scored = set(self.outcomes()["label"].tolist())
        shares = enumerate(self.class_accuracy.compute().tolist())
        return {self.class_names[label]: share for label, share in shares if label in scored}

    def outcomes(self) -> dict[str, np.ndarray]:
        """Return per image its label, the predicted class, and whether that was right."""
        rows = np.array(joined(self._rows), dtype=np.int64).reshape(-1, 2)
        label, predicted = rows[:, 0], rows[:, 1]
        return {
            "label": label,
            "predicted": predicted,
            "right": (label == predicted).astype(np.uint8),
        }

    def _metrics(self) -> dict[str, Metric]:
        return cast("dict[str, Metric]", dict(self.metrics.items()))

    def sampling_error(self) -> float:
        """Return √(p(1 − p)/n): the standard error of top-1 from the finite scored split."""
        right = self.outcomes()["right"]
        p = float(right.mean())
        return math.sqrt(p * (1 - p) / len(right))


def _make_metrics(num_classes: int) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {
        "top1": MulticlassAccuracy(num_classes, average="micro"),
        "ece": MulticlassCalibrationError(num_classes, n_bins=BINS),
        "nll": MeanMetric(),
    }
    if num_classes > TOP:
        metrics["top5"] = MulticlassAccuracy(num_classes, top_k=TOP, average="micro")
    return metrics
