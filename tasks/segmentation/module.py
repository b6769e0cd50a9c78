"""Semantic segmentation: any segmentor of mmsegmentation around any backbone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.errors import require
from tasks.base import TaskModule
from tasks.seeds import seeded
from tasks.segmentation.data import SegmentationData
from tasks.segmentation.inference import Inference
from tasks.segmentation.scores import confusion, sampling_error, scores

__all__ = ["Segmentation", "SegmentationData"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Segmentation(TaskModule):
    """A backbone with a segmentation head, its losses and its scores.

    Heads are mmsegmentation's, from the configs that it ships: `upernet` (arXiv 1807.10221),
    `fpn` (Semantic FPN, 1901.02446), `deeplabv3plus` (1802.02611), `pspnet` (1612.01105),
    `segformer` (2105.15203), `mask2former` (2112.01527). Channels and strides are taken from the
    backbone's last four feature maps.

    Args:
        backbone: a timm model made with `features_only=True`, swapped or not.
        num_classes: number of classes, 1…255; labels are 0…num_classes − 1, and 255 is ignored.
        head: a short name, or the path of your own mmsegmentation config (YAML or JSON, see
            `tasks.openmm.read_config`; its backbone and pre-processing are left aside).
        head_channels: width of head and neck, a multiple of 8 (mask2former: 32); None for the
            config's (512; fpn, segformer, mask2former: 256).
        head_norm: "batch", or "group" (8 groups), which also trains on batches of one image.
        head_options: keys of mmsegmentation's `model` to change, nested as there, e.g.
            {"decode_head": {"num_queries": 20}}.
        auxiliary: whether to train the config's auxiliary head, if it has one.
        class_weights: of the cross-entropy, one per class, e.g. [0.1, 1, 1] where the first class
            fills most of the image; None for the config's own.
        trust_config: run `head` if it is a Python file.
        window: (height, width) of sliding windows for inference; None runs images whole, or as
            a config of your own says.
        window_stride: step between windows; None for two thirds of the window.
        scales: factors of the image's size, over which inference averages probabilities.
        flip: whether inference averages mirror images too.
        mean: per channel, subtracted from the images (in 0…1) before the backbone.
        std: per channel, by which they are divided then.
        **training: what `tasks.base.TaskModule` takes: optimizer, lr, weight_decay, ….

    Raises:
        ValueError: an unknown head, a backbone without feature maps, a value out of its range.

    Example:
        >>> import timm
        >>> m = timm.create_model("test_convnext", features_only=True)
        >>> task = Segmentation(backbone=m, head="upernet", head_channels=16, num_classes=5)
        >>> images, masks = torch.rand(2, 3, 64, 64), torch.randint(0, 5, (2, 64, 64))
        >>> sorted(task.loss((images, masks)))
        ['aux.loss_ce', 'decode.loss_ce']
        >>> task.predict(images).shape
        torch.Size([2, 64, 64])
    """

    headline: ClassVar[str] = "mIoU"
    metrics_info: ClassVar[dict[str, tuple[str, bool]]] = {
        "mIoU": ("fraction", True),
        "mAcc": ("fraction", True),
        "aAcc": ("fraction", True),
    }
    outcomes_kind: ClassVar[str] = (
        "`confusion`: pixels of an image by label (rows) and prediction (columns)"
    )

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        head: str = "upernet",
        head_channels: int | None = None,
        head_norm: Literal["batch", "group"] = "batch",
        head_options: dict[str, Any] | None = None,
        auxiliary: bool = True,
        class_weights: Sequence[float] | None = None,
        trust_config: bool = False,
        window: tuple[int, int] | None = None,
        window_stride: tuple[int, int] | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        **training: Any,
    ) -> None:
        super().__init__(backbone, **training)
        unit = 32 if head == "mask2former" else 8
        fits = head_channels is None or (head_channels > 0 and head_channels % unit == 0)
        require("num_classes", num_classes, 1 <= num_classes <= 255, "in 1…255")
        require("head_channels", head_channels, fits, f"a multiple of {unit}, or None")
        require("head_norm", head_norm, head_norm in ("batch", "group"), "'batch' or 'group'")
        if class_weights is not None:
            valid = len(class_weights) == num_classes and min(class_weights) >= 0
            valid = valid and max(class_weights) > 0
            rule = f"{num_classes} numbers >= 0, one per class, and not all 0"
            require("class_weights", class_weights, valid, rule)
        require("mean", mean, len(mean) == 3, "three numbers, one per channel")
        require("std", std, len(std) == 3 and min(std) > 0, "three numbers > 0, one per channel")
        asked = Inference(window, window_stride, tuple(scales), flip)
        from tasks.segmentation.segmentor import Segmentor

        with seeded(self.seed, "head"):
            self.segmentor = Segmentor(
                backbone,
                num_classes,
                head=head,
                head_channels=head_channels,
                head_norm=head_norm,
                head_options=head_options,
                auxiliary=auxiliary,
                class_weights=class_weights,
                trust_config=trust_config,
                mean=mean,
                std=std,
                owned=False,
            )
        own = self.segmentor.inference
        self.segmentor.inference = replace(
            asked,
            window=window or own.window,
            stride=window_stride if window else own.stride,
            threshold=own.threshold,
        )
        self.num_classes = num_classes
        self.reset_scores()

    def loss(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Return the losses of the head, and of the auxiliary head, by name.

        Args:
            batch: images (N, 3, H, W) in 0…1, masks (N, H, W) int64 with 255 ignored.

        Raises:
            ValueError: shapes that don't fit, or a batch of one image where batch norm needs two.
        """
        images, masks = batch
        return self.segmentor.loss(self._laid_out(images), masks)

    def predict(self, images: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Label every pixel.

        Args:
            images: (N, 3, H, W) in 0…1.
            size: (height, width) of the labels; None for the images'.

        Returns:
            (N, height, width) int64 labels.
        """
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                return self.segmentor.label(self._laid_out(images), size)
        finally:
            self.train(training)

    def _laid_out(self, images: Tensor) -> Tensor:
        if self.channels_last:
            return images.contiguous(memory_format=torch.channels_last)
        return images

    def inference_module(self) -> nn.Module:
        """Return images (N, 3, H, W) in 0…1 → labels (N, H, W), resizing included."""
        return self.segmentor.around(copy.deepcopy(self.backbone)).eval()

    def reset_scores(self) -> None:
        """Forget all scored batches."""
        self._matrices: list[NDArray[np.int32]] = []

    def score(self, batch: tuple[Any, Any]) -> None:
        """Predict at the size of the masks and count; images and masks are tensors or lists."""
        images, masks = batch
        if not (isinstance(images, Tensor) and isinstance(masks, Tensor)):
            for image, mask in zip(images, masks, strict=True):
                self.score((image[None], mask[None]))
            return
        predicted = self.predict(images, masks.shape[-2:])
        for one, mask in zip(predicted, masks, strict=True):
            counts = confusion(one, mask, self.num_classes)
            self._matrices.append(counts.to(torch.int32).cpu().numpy())

    def scores(self) -> dict[str, float]:
        """Return mIoU, mAcc and aAcc over the set, as mmsegmentation's IoUMetric counts them."""
        found = scores(self._total())
        return {name: float(found[name]) for name in self.metrics_info}

    def per_class(self) -> dict[str, float]:
        """Return class → IoU; a class that is neither labelled nor predicted is left out."""
        iou = scores(self._total())["IoU"].tolist()
        return {
            name: value
            for name, value in zip(self._class_names(), iou, strict=True)
            if value == value
        }

    def outcomes(self) -> dict[str, np.ndarray]:
        """Return `confusion`: (images, classes, classes) int32 pixels, labels in rows."""
        empty = np.zeros((0, self.num_classes, self.num_classes), dtype=np.int32)
        rows = np.stack(self._matrices) if self._matrices else empty
        return {"confusion": self.gathered(rows)}

    def sampling_error(self) -> float | None:
        """Return the standard error of mIoU over images, by the jackknife."""
        rows = self.outcomes()["confusion"]
        return sampling_error(torch.from_numpy(rows)) if len(rows) > 1 else None

    def _total(self) -> Tensor:
        return torch.from_numpy(self.outcomes()["confusion"]).sum(0)

    def _class_names(self) -> Sequence[str]:
        data = getattr(self._trainer, "datamodule", None)
        names: Sequence[str] | None = getattr(data, "class_names", None)
        return names or [str(label) for label in range(self.num_classes)]
