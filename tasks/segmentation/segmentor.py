"""A segmentor: images in 0…1 to losses or labels, whatever head of mmsegmentation stands inside."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from bench.errors import UserError
from tasks.openmm import models, segmentors
from tasks.segmentation.inference import Inference


class Segmentor(models.Wrapped):
    """A segmentor of mmsegmentation around a backbone, with normalisation and resizing inside.

    Args:
        model: what `models.build` returned for mmsegmentation.
        normalize: images in 0…1 → what the backbone was made for.
        inference: how labels are made.
    """

    def __init__(self, model: nn.Module, normalize: nn.Module, inference: Inference) -> None:
        super().__init__(model, normalize)
        self.inference = inference

    def loss(self, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Return the losses by name.

        Args:
            images: (N, 3, H, W) in 0…1.
            masks: (N, H, W) int64 labels, 255 ignored.

        Raises:
            ValueError: shapes that don't fit, or a batch of one image where batch norm needs two.
        """
        if masks.shape != (images.shape[0], *images.shape[-2:]):
            raise UserError(
                f"`masks` (of shape {tuple(masks.shape)}) must be (N, H, W) of the images' "
                f"{tuple(images.shape)}."
            )
        try:
            return segmentors.segmentor_losses(self.model, self.normalize(images), masks)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                f"`batch` (of {len(images)} image) must have at least 2 images while training "
                "with batch norm: a map pooled to 1×1 has one value per channel and image. Or "
                "choose `head_norm='group'`."
            ) from error

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (N, C, H, W) of images as they stand, without windows or scales."""
        return segmentors.segmentor_logits(self.model, self.normalize(images))

    def label(self, images: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Return labels (N, height, width) of `size`, by default the images'."""
        return self.inference(self.logits, images, size or images.shape[-2:])

    def compared(self, images: Tensor) -> Tensor:
        """Return the logits, of which the labels are made."""
        return self.logits(images)

    def forward(self, images: Tensor) -> Tensor:
        """Return the labels: what is timed end to end."""
        return self.label(images)
