"""Object detection: any detector of mmdet around any backbone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from bench.errors import require
from tasks.base import TaskModule
from tasks.data.order import joined
from tasks.detection import heads
from tasks.detection.scores import NAMES, Scores, match
from tasks.feature_maps import feature_maps
from tasks.seeds import seeded


class Detection(TaskModule):
    """A backbone with a detector behind it, its losses and its scores.

    Heads are mmdet's, from the configs that it ships: `faster_rcnn` (arXiv 1506.01497),
    `mask_rcnn` (1703.06870), `cascade_mask_rcnn` (1906.09756), `retinanet` (1708.02002), `fcos`
    (1904.01355), `atss` (1912.02424), `rtmdet` (2212.07784), `yolox` (2107.08430). Channels and
    strides are taken from the backbone's feature maps. The configs are made for images of some
    1000 pixels; for small ones take finer maps by `strides`, a narrow neck, fewer convolutions
    and smaller anchors.

    The R-CNNs, `retinanet` and `atss` do not train on regions to ignore (crowds, difficult
    objects), where an image has objects too: mmdet's assigners take one without for background.
    `fcos`, `rtmdet` and `yolox` cannot tell such regions, and train them as background.

    Args:
        backbone: a timm model made with `features_only=True`, swapped or not.
        num_classes: number of classes, ≥ 1; labels are 0…num_classes − 1.
        head: a short name, or the path of your own mmdet config (YAML or JSON, see
            `tasks.openmm.read_config`; its backbone and pre-processing are left aside).
        strides: of the feature maps that the neck takes; None for the head's usual ones, 4…32
            for R-CNNs and 8…32 for the others, as far as the backbone has them.
        extra_levels: coarser levels that the neck adds; None for the head's usual number, which
            is 0 and fixed in rtmdet and yolox.
        neck_channels: width of neck and head; None for the config's (256; rtmdet, yolox: 96).
        head_convs: convolutions in a row in the head; None for the config's, and for
            `faster_rcnn`, which has none.
        anchor_scale: size of the smallest anchor in strides of its map (in `fcos`, of the
            objects that a level takes); None for the config's, and for rtmdet and yolox, which
            have no anchors.
        head_options: keys of mmdet's `model` to change, nested as there, e.g.
            {"test_cfg": {"score_thr": 0.01}}.
        trust_config: run `head` if it is a Python file.
        **training: optimizer, lr, weight_decay, momentum, nesterov, warmup_epochs, schedule,
            milestones, final_lr, layer_decay, frozen_norm, ema_decay, channels_last, compile, mean,
            std, seed: see `TaskModule`.

    Raises:
        ValueError: an unknown head, a backbone without feature maps, a value out of its range, or
            one that changes nothing in the head.

    Example:
        >>> import timm
        >>> m = timm.create_model("test_convnext", features_only=True)
        >>> task = Detection(backbone=m, head="fcos", neck_channels=16, num_classes=3)
        >>> target = {"boxes": torch.tensor([[8.0, 8, 40, 32]]), "labels": torch.tensor([2])}
        >>> sorted(task.loss((torch.rand(1, 3, 64, 64), [target])))
        ['loss_bbox', 'loss_centerness', 'loss_cls']
        >>> sorted(task.predict(torch.rand(1, 3, 64, 64))[0])
        ['boxes', 'labels', 'scores']
    """

    headline: ClassVar[str] = "mAP"
    built_with: ClassVar[tuple[str, ...]] = ("tasks.detection.detector",)
    metrics_info: ClassVar[dict[str, tuple[str, bool]]] = {
        prefix + name: ("fraction", True) for prefix in ("", "mask_") for name in NAMES
    }
    outcomes_kind: ClassVar[str] = (
        "one row per detection: image, label, score, matched (at IoU 0.5: 1 right, 0 wrong, -1 in "
        "a crowd region); `objects`: objects of every image (rows) and class"
    )

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        head: str = "faster_rcnn",
        strides: Sequence[int] | None = None,
        extra_levels: int | None = None,
        neck_channels: int | None = None,
        head_convs: int | None = None,
        anchor_scale: float | None = None,
        head_options: dict[str, Any] | None = None,
        trust_config: bool = False,
        **training: Any,
    ) -> None:
        super().__init__(backbone, **training)
        for argument, value, least in (
            ("num_classes", num_classes, 1),
            ("extra_levels", extra_levels, 0),
            ("neck_channels", neck_channels, 1),
            ("head_convs", head_convs, 0),
        ):
            require(argument, value, value is None or value >= least, f">= {least}")
        holds = anchor_scale is None or anchor_scale > 0
        require("anchor_scale", anchor_scale, holds, "> 0")
        # Only here, so that OpenMMLab's packages are imported when they are used.
        from tasks.detection.detector import Detector
        from tasks.openmm import configs, models

        maps = feature_maps(backbone)
        shipped = {name: known.config for name, known in heads.HEADS.items()}
        config = configs.head_config("mmdet", head, shipped, trust=trust_config)
        usual_strides, usual_levels = heads.usual(head, config, maps)
        maps = heads.choose_maps(maps, strides, usual_strides)
        config = heads.wire(
            config,
            maps,
            num_classes,
            extra=usual_levels if extra_levels is None else extra_levels,
            neck_channels=neck_channels,
            head_convs=head_convs,
            anchor_scale=anchor_scale,
        )
        config = configs.merged(config, head_options or {})
        indices = [m.index for m in maps]
        with seeded(self.seed, "head"):
            model = models.build("mmdet", config, backbone, indices=indices, owned=False)
        self.detector = Detector(
            model, self.normalize, num_classes=num_classes, stride=maps[-1].stride
        )
        self.num_classes = num_classes
        self._scores = Scores(masks=self.has_masks)
        self._rows: list[dict[str, np.ndarray]] = []

    @property
    def has_masks(self) -> bool:
        """Whether the head predicts masks, and needs them to train."""
        return self.detector.has_masks

    @property
    def behind(self) -> nn.Module:
        """Neck and heads, as OpenMMLab names them."""
        model: nn.Module = self.detector.model
        return model

    def loss(self, batch: tuple[Tensor, Sequence[dict[str, Any]]]) -> dict[str, Tensor]:
        """Return the losses of the head by name.

        Args:
            batch: images (N, 3, H, W) in 0…1 and N targets: `boxes` (n, 4) as (x1, y1, x2, y2) in
                pixels, `labels` (n) from 0, `masks` (n, H, W) for heads with masks; and perhaps
                `iscrowd` (n), nonzero for regions to ignore, and `size`, the (height, width) of
                the image without padding.

        Raises:
            ValueError: targets that do not fit the images or the head.
        """
        images, targets = batch
        return self.detector.loss(self.laid_out(images), targets)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the draws of this step, and tell the head how far training is."""
        from tasks.openmm.models import note_progress

        super().on_train_batch_start(batch, batch_idx)
        note_progress(self.current_epoch, self.global_step)

    def predict(
        self, images: Tensor, sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[dict[str, Tensor]]:
        """Return what is found in images (N, 3, H, W) in 0…1.

        Args:
            images: (N, 3, H, W) in 0…1.
            sizes: (height, width) of each without padding; None for the whole images.

        Returns:
            For each image, best first: `boxes` (n, 4) as (x1, y1, x2, y2) in pixels, `scores` (n)
            in 0…1, `labels` (n), and `masks` (n, H, W), booleans, of heads with masks.
        """
        return self._detect(images, sizes=sizes)

    def _detect(self, images: Tensor, **sizes: Any) -> list[dict[str, Tensor]]:
        with self.evaluating():
            return self.detector.detect(self.laid_out(images), **sizes)

    def inference_module(self) -> nn.Module:
        """Return images (N, 3, H, W) in 0…1 → detections, NMS included."""
        return self.detector.around(copy.deepcopy(self.backbone)).eval()

    def reset_scores(self) -> None:
        """Forget all scored batches."""
        self._scores.reset()
        self._rows = []

    def score(self, batch: tuple[Tensor, Sequence[dict[str, Any]]]) -> None:
        """Predict a batch and add it to the scores and outcomes.

        A target with `original` is scored in the pixels of its file, any other in those of the
        image.
        """
        images, targets = batch
        truth = [target.get("original", target) for target in targets]
        sizes = [_pair(target.get("size", images.shape[-2:])) for target in targets]
        originals = [
            _pair(true["size"]) if "original" in target else size
            for true, target, size in zip(truth, targets, sizes, strict=True)
        ]
        detections = self._detect(images, sizes=sizes, originals=originals)
        self._scores.update(detections, truth)
        for detected, true in zip(detections, truth, strict=True):
            labels = true["labels"].cpu()
            if "iscrowd" in true:
                labels = labels[true["iscrowd"].cpu() == 0]
            self._rows.append(
                {
                    "label": detected["labels"].cpu().numpy(),
                    "score": detected["scores"].cpu().numpy(),
                    "matched": match(detected, true),
                    "objects": torch.bincount(labels, minlength=self.num_classes).numpy(),
                }
            )

    def scores(self) -> dict[str, float]:
        """Return COCO's average precisions over all scored batches."""
        return self._scores.summary()

    def per_class(self) -> dict[str, float]:
        """Return class → average precision of boxes; classes without objects are left out."""
        names = self.class_names
        return {names[label]: ap for label, ap in self._scores.per_class().items()}

    def outcomes(self) -> dict[str, np.ndarray]:
        """Return `image`, `label`, `score`, `matched` per detection, and `objects` per image."""
        rows = joined(self._rows)
        columns = {
            key: np.concatenate([row[key] for row in rows]) if rows else np.zeros(0)
            for key in ("label", "score", "matched")
        }
        empty = np.zeros((0, self.num_classes), dtype=np.int64)
        return {
            "image": np.repeat(np.arange(len(rows)), [len(row["label"]) for row in rows]),
            **columns,
            "objects": np.stack([row["objects"] for row in rows]) if rows else empty,
        }


def _pair(size: Any) -> tuple[int, int]:
    height, width = (int(n) for n in size)
    return height, width
