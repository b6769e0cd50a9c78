"""From a set of images and masks to batches: reading, transforming, stacking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from torchvision import tv_tensors

from tasks.data.images import read_image
from tasks.data.memory import Memory
from tasks.data.order import Draw
from tasks.seeds import seeded
from tasks.segmentation.masks import MaskSet, read_mask


class MaskDataset(Dataset[tuple[Tensor, Tensor]]):
    """The pairs of a set, read and transformed; draws are a function of (seed, epoch, index).

    Args:
        masks: the set.
        transform: of an image (tv_tensors.Image) and a mask (tv_tensors.Mask) together.
        seed: of the draws.
        memory_mb: decoded pairs are kept up to this size.
    """

    def __init__(
        self, masks: MaskSet, transform: Callable[..., Any], seed: int, memory_mb: int = 0
    ) -> None:
        self.masks = masks
        self.transform = transform
        self.seed = seed
        self._memory = Memory(self._decode, memory_mb)

    def __len__(self) -> int:
        return len(self.masks.pairs)

    def __getitem__(self, key: int | Draw) -> tuple[Tensor, Tensor]:
        """Return image and mask of an index, or of an (epoch, index)."""
        epoch, index = (0, key) if isinstance(key, int) else key
        pixels, labels = self._memory[index]
        image, mask = tv_tensors.Image(pixels), tv_tensors.Mask(labels)
        with seeded(self.seed, "augmentation", epoch, index):
            image, mask = self.transform(image, mask)
        return image.as_subclass(Tensor), mask.as_subclass(Tensor)

    def _decode(self, index: int) -> tuple[Tensor, Tensor]:
        image_path, mask_path = self.masks.pairs[index]
        masks = self.masks
        image = read_image(image_path, upright=image_path not in masks.as_stored).contiguous()
        return image, torch.from_numpy(read_mask(mask_path, masks.zero_ignored, masks.binary))


def collate(batch: Sequence[tuple[Tensor, Tensor]]) -> Any:
    """Stack images and masks where all of a batch have one size; keep lists otherwise.

    Example:
        >>> one, other = (torch.zeros(3, 4, 4), torch.zeros(4, 4)), (torch.zeros(3, 2, 4), None)
        >>> collate([one, one])[0].shape, len(collate([one, (other[0], torch.zeros(2, 4))])[0])
        (torch.Size([2, 3, 4, 4]), 2)
    """
    if len({(image.shape, mask.shape) for image, mask in batch}) == 1:
        return default_collate(list(batch))
    return [image for image, _ in batch], [mask for _, mask in batch]
