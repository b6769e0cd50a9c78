"""A detector: images in 0…1 to losses or detections, whatever head of mmdet stands inside."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import UserError
from tasks.detection import heads
from tasks.feature_maps import feature_maps
from tasks.openmm import configs, detectors, models

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Detector(nn.Module):
    """A detector of mmdet around a backbone, with normalisation and padding inside.

    Args:
        backbone: a timm model made with `features_only=True`.
        num_classes: number of classes, ≥ 1.
        head: a short name (see `heads.HEADS`), or the path of a config of one's own.
        strides: which feature maps the neck takes; None for the head's usual ones.
        extra_levels: coarser levels that the neck adds; None for the head's usual number.
        neck_channels: width of neck and heads; None for the config's.
        head_convs: convolutions in a row in the head; None for the config's.
        anchor_scale: size of the smallest anchor in strides; None for the config's.
        head_options: keys of mmdet's `model` to change, nested as there.
        trust_config: run a config that is a Python file.
        mean: of each channel, in 0…1, subtracted from the images.
        std: of each channel, by which they are divided.
        owned: see `models.ConvBoardBackbone`.

    Raises:
        ValueError: an argument out of its range, or a backbone that does not fit the head.
    """

    mean: Tensor
    std: Tensor

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
        head_options: Mapping[str, Any] | None = None,
        trust_config: bool = False,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        owned: bool = True,
    ) -> None:
        super().__init__()
        for argument, value, least in (
            ("num_classes", num_classes, 1),
            ("extra_levels", extra_levels, 0),
            ("neck_channels", neck_channels, 1),
            ("head_convs", head_convs, 0),
        ):
            if value is not None and value < least:
                raise UserError(f"`{argument}` (={value}) must be >= {least}.")
        if anchor_scale is not None and anchor_scale <= 0:
            raise UserError(f"`anchor_scale` (={anchor_scale}) must be > 0.")
        maps = feature_maps(backbone)
        extra = extra_levels
        if Path(head).suffix:
            config = configs.read_config("mmdet", head, trust=trust_config)
            taken = heads.maps_taken(config, maps)
            maps = heads.choose_maps(maps, strides, [m.stride for m in taken])
        else:
            known = heads.head(head)
            config = configs.shipped_config("mmdet", known.config)
            # The short names choose the maps themselves; the neck then takes all of them.
            heads.first_neck(config).pop("start_level", None)
            maps = heads.choose_maps(maps, strides, known.strides)
            extra = known.extra if extra_levels is None else extra_levels
        config = heads.wire(
            config,
            maps,
            num_classes,
            extra=extra,
            neck_channels=neck_channels,
            head_convs=head_convs,
            anchor_scale=anchor_scale,
        )
        if head_options:
            config = configs.merged(config, head_options)
        self.model: Any = models.build(
            "mmdet", config, backbone, indices=[m.index for m in maps], owned=owned
        )
        self.num_classes = num_classes
        self.divisor = maps[-1].stride
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    @property
    def has_masks(self) -> bool:
        """Whether masks are predicted, and needed to train."""
        return bool(self.model.with_mask)

    def around(self, backbone: nn.Module) -> Detector:
        """Return a copy of the detector around another backbone with the same feature maps."""
        lent = self.model.backbone
        self.model.backbone = None
        try:
            other = copy.deepcopy(self)
        finally:
            self.model.backbone = lent
        other.model.backbone = models.ConvBoardBackbone(backbone, lent.indices)
        return other

    def _prepared(self, images: Tensor) -> Tensor:
        """Normalise, and pad at the right and below to a multiple of the coarsest stride.

        The padding repeats the border. Zeros would be a constant map behind a convolution without
        bias, whose variance over channels is 0: layer norms then multiply gradients by 1/√ε.
        """
        x = (images - self.mean) / self.std
        height, width = x.shape[-2:]
        room = (0, -width % self.divisor, 0, -height % self.divisor)
        return F.pad(x, room, mode="replicate") if any(room) else x

    def loss(self, images: Tensor, targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the losses by name.

        Args:
            images: (N, 3, H, W) in 0…1.
            targets: as `detector_losses` takes them.

        Raises:
            ValueError: a target that does not fit its image or the head.
        """
        if len(images) != len(targets):
            raise UserError(f"`targets` (={len(targets)} of them) must be one for each image.")
        for target in targets:
            self._check(target)
        given = [
            target if self.has_masks else {k: v for k, v in target.items() if k != "masks"}
            for target in targets
        ]
        given = [{"size": torch.tensor(images.shape[-2:])} | dict(target) for target in given]
        return detectors.detector_losses(self.model, self._prepared(images), given)

    def _check(self, target: Mapping[str, Tensor]) -> None:
        boxes, labels = target["boxes"], target["labels"]
        if boxes.ndim != 2 or boxes.shape[1] != 4 or len(labels) != len(boxes):
            raise UserError(
                f"`boxes` (of shape {tuple(boxes.shape)}) must be (n, 4) with n `labels` "
                f"(of shape {tuple(labels.shape)})."
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise UserError(
                f"`labels` (up to {int(labels.max())}) must be below `num_classes` "
                f"(={self.num_classes}) and at least 0."
            )
        if self.has_masks and "masks" not in target:
            raise UserError("`targets` need `masks` for a head that predicts them.")

    def detect(
        self,
        images: Tensor,
        sizes: Sequence[tuple[int, int]] | None = None,
        originals: Sequence[tuple[int, int]] | None = None,
    ) -> list[dict[str, Tensor]]:
        """Return the detections of each image, best first; see `detector_results`."""
        if sizes is None:
            sizes = [(images.shape[-2], images.shape[-1])] * len(images)
        return detectors.detector_results(self.model, self._prepared(images), sizes, originals)

    def compared(self, images: Tensor) -> Any:
        """Return the maps that the head reads: what comes after is the same for all backbones."""
        return self.model.extract_feat(self._prepared(images))

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Return the detections: what is timed end to end."""
        return self.detect(images)
