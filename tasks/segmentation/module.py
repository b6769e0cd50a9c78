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

from bench.errors import UserError, require
from tasks.base import TaskModule
from tasks.data.order import joined
from tasks.feature_maps import feature_maps
from tasks.seeds import seeded
from tasks.segmentation.heads import HEADS, fit_config, last_maps, needs_compiled
from tasks.segmentation.inference import Inference, shipped_inference
from tasks.segmentation.losses import weigh_classes
from tasks.segmentation.scores import confusion, sampling_error, scores


class Segmentation(TaskModule):
    """A backbone with a segmentation head, its losses and its scores.

    Heads are mmsegmentation's, from the configs that it ships: `upernet` (arXiv 1807.10221),
    `fpn` (Semantic FPN, 1901.02446), `deeplabv3plus` (1802.02611), `pspnet` (1612.01105),
    `segformer` (2105.15203), `mask2former` (2112.01527). Channels and strides are taken from the
    backbone's last four feature maps.

    Args:
        backbone: a timm model made with `features_only=True`, swapped or not.
        num_classes: number of classes, 2…255, of which the background may be one; labels are
            0…num_classes − 1, and 255 is ignored.
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
        **training: optimizer, lr, weight_decay, momentum, nesterov, warmup_epochs, schedule,
            milestones, final_lr, layer_decay, frozen_norm, ema_decay, channels_last, compile, mean,
            std, seed: see `TaskModule`.

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
    built_with: ClassVar[tuple[str, ...]] = ("tasks.segmentation.segmentor",)
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
        **training: Any,
    ) -> None:
        super().__init__(backbone, **training)
        unit = 32 if head == "mask2former" else 8
        fits = head_channels is None or (head_channels > 0 and head_channels % unit == 0)
        require("num_classes", num_classes, 2 <= num_classes <= 255, "in 2…255")
        require("head_channels", head_channels, fits, f"a multiple of {unit}, or None")
        require("head_norm", head_norm, head_norm in ("batch", "group"), "'batch' or 'group'")
        if class_weights is not None:
            valid = len(class_weights) == num_classes and min(class_weights) >= 0
            valid = valid and max(class_weights) > 0
            rule = f"{num_classes} numbers >= 0, one per class, and not all 0"
            require("class_weights", class_weights, valid, rule)
        inference = Inference(window, window_stride, tuple(scales), flip)
        # Only here, so that OpenMMLab's packages are imported when they are used.
        from tasks.openmm import configs, models, packages
        from tasks.segmentation.segmentor import Segmentor

        maps = last_maps(feature_maps(backbone))
        config = fit_config(
            configs.head_config("mmseg", head, HEADS, trust=trust_config),
            maps,
            num_classes,
            head_channels=head_channels,
            norm=head_norm,
            auxiliary=auxiliary,
        )
        config = configs.merged(config, head_options or {})
        reason = needs_compiled(config)
        if reason is not None and packages.WITHOUT_COMPILED:
            raise UserError(f"`head` (={head!r}) needs a compiled mmcv; {reason}.")
        indices = [m.index for m in maps]
        with seeded(self.seed, "head"):
            model = models.build("mmseg", config, backbone, indices=indices, owned=False)
        if not weigh_classes(model, class_weights) and class_weights is not None:
            raise UserError(
                f"`class_weights` (={list(class_weights)}) must be None for `head` (={head!r}), "
                "which trains without cross-entropy of pixels."
            )
        shipped = shipped_inference(config)
        inference = replace(
            inference,
            window=window or shipped.window,
            stride=window_stride if window else shipped.stride,
            threshold=shipped.threshold,
        )
        self.segmentor = Segmentor(model, self.normalize, inference)
        self.num_classes = num_classes
        self.reset_scores()

    @property
    def behind(self) -> nn.Module:
        """Neck and heads, as OpenMMLab names them."""
        model: nn.Module = self.segmentor.model
        return model

    def loss(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Return the losses of the head, and of the auxiliary head, by name.

        Args:
            batch: images (N, 3, H, W) in 0…1, masks (N, H, W) int64 with 255 ignored.

        Raises:
            ValueError: shapes that don't fit, or a batch of one image where batch norm needs two.
        """
        images, masks = batch
        return self.segmentor.loss(self.laid_out(images), masks)

    def predict(self, images: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Label every pixel.

        Args:
            images: (N, 3, H, W) in 0…1.
            size: (height, width) of the labels; None for the images'.

        Returns:
            (N, height, width) int64 labels.
        """
        with self.evaluating():
            return self.segmentor.label(self.laid_out(images), size)

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
        values = scores(self._total())
        return {name: float(values[name]) for name in self.metrics_info}

    def per_class(self) -> dict[str, float]:
        """Return class → IoU; a class that is neither labelled nor predicted is left out."""
        iou = scores(self._total())["IoU"].tolist()
        return {
            name: value for name, value in zip(self.class_names, iou, strict=True) if value == value
        }

    def outcomes(self) -> dict[str, np.ndarray]:
        """Return `confusion`: (images, classes, classes) int32 pixels, labels in rows."""
        matrices = joined(self._matrices)
        empty = np.zeros((0, self.num_classes, self.num_classes), dtype=np.int32)
        return {"confusion": np.stack(matrices) if matrices else empty}

    def sampling_error(self) -> float | None:
        """Return the standard error of mIoU over images, by the jackknife."""
        matrices = self.outcomes()["confusion"]
        return sampling_error(torch.from_numpy(matrices)) if len(matrices) > 1 else None

    def _total(self) -> Tensor:
        """Return the pixels of the whole set, (C, C); only sums pass between processes."""
        total = np.zeros((self.num_classes, self.num_classes), dtype=np.int64)
        for matrix in self._matrices:
            total += matrix
        return torch.from_numpy(sum(joined([total])))
