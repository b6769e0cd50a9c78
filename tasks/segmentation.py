"""Semantic segmentation: any segmentor of mmsegmentation around any backbone."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.operators.registry import near
from tasks.base import TaskModule, require, seeded
from tasks.data.segmentation import SegmentationData
from tasks.detection_heads import feature_maps
from tasks.inference import Inference
from tasks.seg_heads import HEADS, fit_config, last_maps, needs_compiled
from tasks.seg_metrics import confusion, sampling_error, scores

__all__ = ["Segmentation", "SegmentationData"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CONFIG_SUFFIXES = (".yaml", ".yml", ".json", ".py")


class Segmentation(TaskModule):
    """A backbone with a segmentation head, its losses and its scores.

    Heads are mmsegmentation's, from the configs that it ships: `upernet` (Xiao et al. 2018),
    `fpn` (Semantic FPN, Kirillov et al. 2019), `deeplabv3plus` (Chen et al. 2018), `pspnet` (Zhao
    et al. 2017), `segformer` (Xie et al. 2021), `mask2former` (Cheng et al. 2022). Channels and
    strides are taken from the backbone's last four feature maps.

    Args:
        backbone: a timm model made with `features_only=True`, swapped or not.
        num_classes: classes, 1…255; labels are 0…num_classes − 1, and 255 is ignored.
        head: a short name, or the path of your own mmsegmentation config (YAML or JSON, see
            `tasks.openmm.read_config`; its backbone and pre-processing are left aside).
        head_channels: width of head and neck; None for the config's own (512, mask2former 256).
        head_options: keys of the config's `decode_head` to change, e.g. {"num_queries": 20}.
        head_norm: "batch", or "group" (8 groups), which also trains on batches of one image.
        auxiliary: whether to train with the config's auxiliary head, if it has one.
        trust_config: run `head` if it is a Python file.
        window: (height, width) of sliding windows for inference; None runs images whole.
        window_stride: step between windows; None for two thirds of the window.
        scales: factors of the image's size, over which inference averages probabilities.
        flip: whether inference averages mirror images too.
        training: what `tasks.base.TaskModule` takes: optimizer, lr, weight_decay, ….

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

    mean: Tensor
    std: Tensor
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
        head_options: dict[str, Any] | None = None,
        head_norm: Literal["batch", "group"] = "batch",
        auxiliary: bool = True,
        trust_config: bool = False,
        window: tuple[int, int] | None = None,
        window_stride: tuple[int, int] | None = None,
        scales: tuple[float, ...] = (1.0,),
        flip: bool = False,
        **training: Any,
    ) -> None:
        super().__init__(backbone, **training)
        require("num_classes", num_classes, 1 <= num_classes <= 255, "in 1…255")
        require("head_norm", head_norm, head_norm in ("batch", "group"), "one of 'batch', 'group'")
        unit = 32 if head == "mask2former" else 8
        require(
            "head_channels",
            head_channels,
            head_channels is None or (head_channels > 0 and head_channels % unit == 0),
            f"a multiple of {unit}, or None",
        )
        from tasks import openmm

        self.num_classes = num_classes
        self.maps = last_maps(feature_maps(backbone))
        config = fit_config(
            _head_config(head, trust_config),
            self.maps,
            num_classes,
            head_channels=head_channels,
            head_options=head_options,
            norm=head_norm,
            auxiliary=auxiliary,
        )
        reason = needs_compiled(config)
        if reason is not None and openmm.WITHOUT_COMPILED:
            raise ValueError(f"`head` (={head!r}) needs a compiled mmcv; {reason}.")
        with seeded(self.seed, "head"):
            # The backbone stays outside: the segmentor gets its maps in the place of images.
            self.head = openmm.build("mmseg", config, nn.Identity())
        own = config.get("test_cfg") or {}
        if window is None and own.get("mode") == "slide":
            window, window_stride = tuple(own["crop_size"]), tuple(own["stride"])
        threshold = getattr(self.head.decode_head, "threshold", None)
        self.inference = Inference(
            window, window_stride, tuple(scales), flip, 0.5 if threshold is None else threshold
        )
        mean, std = _statistics(backbone)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.reset_scores()

    def loss(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Return the losses of head and auxiliary head.

        Args:
            batch: images (N, 3, H, W) in 0…1, masks (N, H, W) int64 with 255 ignored.

        Raises:
            ValueError: shapes that don't fit, or a batch of one image where batch norm needs two.
        """
        from tasks import openmm

        images, masks = batch
        if masks.shape != (images.shape[0], *images.shape[-2:]):
            raise ValueError(
                f"`masks` (of shape {tuple(masks.shape)}) must be (N, H, W) of the images' "
                f"{tuple(images.shape)}."
            )
        try:
            features = self._maps(self.features(self._normalised(images)))
            return openmm.segmentor_losses(self.head, features, masks)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                f"`batch` (of {len(images)} image) must have at least 2 images while training "
                "with batch norm: a map pooled to 1×1 has one value per channel and image. Or "
                "choose `head_norm='group'`."
            ) from error

    def predict(self, images: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Label every pixel.

        Args:
            images: (N, 3, H, W) in 0…1.
            size: (height, width) of the labels; None for the images'.

        Returns:
            (N, height, width) int64 labels.
        """
        with _evaluating(self):
            normalised = self._normalised(images)
            return self.inference(self._logits, normalised, size or images.shape[-2:])

    def inference_module(self) -> nn.Module:
        """Return images (N, 3, H, W) in 0…1 → labels (N, H, W), its backbone fused."""
        from bench.backbones import fuse

        return Segmenter(fuse(self.backbone), self.head, self)

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

    def _normalised(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std

    def _maps(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [maps[m.index] for m in self.maps]

    def _logits(self, images: Tensor) -> Tensor:
        from tasks import openmm

        maps = self._maps(self.features(images))
        return openmm.segmentor_logits(self.head, maps, images.shape[-2:])


class Segmenter(nn.Module):
    """A task's networks alone: images (N, 3, H, W) in 0…1 to labels (N, H, W).

    Args:
        backbone: what stands in the place of the task's backbone.
        head: the segmentor, copied.
        task: where all other settings come from.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, head: nn.Module, task: Segmentation) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = copy.deepcopy(head)
        self.indices = [m.index for m in task.maps]
        self.inference = task.inference
        self.register_buffer("mean", task.mean.clone(), persistent=False)
        self.register_buffer("std", task.std.clone(), persistent=False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the labels of every pixel."""
        return self.inference(self._logits, (images - self.mean) / self.std, images.shape[-2:])

    def _logits(self, images: Tensor) -> Tensor:
        from tasks import openmm

        maps = self.backbone(images)
        return openmm.segmentor_logits(
            self.head, [maps[i] for i in self.indices], images.shape[-2:]
        )


def _head_config(head: str, trust: bool) -> dict[str, Any]:
    from tasks import openmm

    if head in HEADS:
        return openmm.shipped_config("mmseg", HEADS[head])
    if Path(head).suffix not in CONFIG_SUFFIXES:
        raise ValueError(
            f"`head` (={head!r}) is neither a head nor a config file; {near(head, HEADS)}"
        )
    return openmm.read_config("mmseg", head, trust=trust)


def _statistics(backbone: nn.Module) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of colours for which the backbone's weights were made."""
    cfg = getattr(backbone, "default_cfg", None) or {}
    return cfg.get("mean", IMAGENET_MEAN), cfg.get("std", IMAGENET_STD)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)
