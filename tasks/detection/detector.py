"""A detector: images in 0…1 to losses or detections, whatever head of mmdet stands inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import UserError
from tasks.openmm import detectors, models


class Detector(models.Wrapped):
    """A detector of mmdet around a backbone, with normalisation and padding inside.

    Args:
        model: what `models.build` returned for mmdet.
        normalize: images in 0…1 → what the backbone was made for.
        num_classes: number of classes, ≥ 1.
        stride: of the coarsest feature map that the neck takes: images are padded to multiples.
    """

    def __init__(
        self, model: nn.Module, normalize: nn.Module, *, num_classes: int, stride: int
    ) -> None:
        super().__init__(model, normalize)
        self.num_classes = num_classes
        self.stride = stride

    @property
    def has_masks(self) -> bool:
        """Whether masks are predicted, and needed to train."""
        return bool(self.model.with_mask)

    def prepared(self, images: Tensor) -> Tensor:
        """Normalise images, and pad at the right and below to a multiple of the coarsest stride.

        The padding repeats the border. Zeros would be a constant map behind a convolution without
        bias, whose variance over channels is 0: layer norms then multiply gradients by 1/√ε.
        """
        x: Tensor = self.normalize(images)
        height, width = x.shape[-2:]
        room = (0, -width % self.stride, 0, -height % self.stride)
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
        whole = {"size": torch.tensor(images.shape[-2:])}
        unused = set() if self.has_masks else {"masks"}
        trained = [
            whole | {key: value for key, value in target.items() if key not in unused}
            for target in targets
        ]
        return detectors.detector_losses(self.model, self.prepared(images), trained)

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
        return detectors.detector_results(self.model, self.prepared(images), sizes, originals)

    def compared(self, images: Tensor) -> Any:
        """Return the maps that the head reads: what comes after is the same for all backbones."""
        return self.model.extract_feat(self.prepared(images))

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Return the detections: what is timed end to end."""
        return self.detect(images)
