"""What the data of all tasks have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F


class TaskData(L.LightningDataModule, ABC):
    """The data of a task: batches to train on and to score, and what they are."""

    @property
    def num_classes(self) -> int:
        """Number of classes; an ignored one is none."""
        return len(self.class_names)

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""

    @abstractmethod
    def as_scored(self, image: Tensor) -> Tensor:
        """Return an image, uint8 (3, H, W), as it is when scored: (3, H', W') floats in 0…1."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return the fields of `bench.record.Data`."""

    def scored_images(self, count: int, size: Sequence[int]) -> Tensor:
        """Return images of the scored split, (N, 3, *size) in 0…1; all of them if it has fewer.

        They are evenly spaced, as splits are often sorted by class.
        """
        self.prepare_data()
        self.setup("validate")
        loader = self.val_dataloader()
        samples = loader.dataset
        count = min(count, len(samples))
        found = []
        for index in range(count):
            images, _ = loader.collate_fn([samples[index * len(samples) // count]])
            found.append(resized(images[0][None], size))
        return torch.cat(found)


def resized(images: Tensor, size: Sequence[int]) -> Tensor:
    """Resize images (N, 3, H, W) in 0…1 to `size`, bilinearly; the same size is handed back."""
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    larger = F.interpolate(images, tuple(size), mode="bilinear", antialias=True)
    return larger.clamp(0, 1)
