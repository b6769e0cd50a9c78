"""Labelled images as training and scoring samples: memory, draws, batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from tasks.classification.labelled import Labelled
from tasks.data.memory import Memory
from tasks.data.order import Draw
from tasks.seeds import seeded

Sample = tuple[Tensor, int]
SHRINK = 2
"""Images are kept at up to this many times the size at which they are trained."""


class Images:
    """Images of a split by index, decoded at once as far as they fit into memory.

    Args:
        labelled: the split.
        size: side at which images are trained, in pixels.
        memory_mb: room in MiB; images for which there is none are read each time.
    """

    def __init__(self, labelled: Labelled, size: int, memory_mb: int) -> None:
        self.labelled = labelled
        self.short_side = SHRINK * size
        self.memory = Memory(self._load, memory_mb)
        self.memory.fill(len(labelled))

    def _load(self, index: int) -> tuple[Tensor]:
        return (self.labelled.load(index, self.short_side),)

    def __getitem__(self, index: int) -> Tensor:
        return self.memory[index][0]


class TrainingSamples(Dataset[Sample]):
    """Samples whose augmentation is a function of (seed, epoch, index).

    Args:
        images: of the split.
        indices: which of them are trained on.
        transform: uint8 (3, H, W) → the augmented image.
        seed: of the augmentation.
    """

    def __init__(
        self,
        images: Images,
        indices: NDArray[np.int64],
        transform: Callable[[Tensor], Tensor],
        seed: int,
    ) -> None:
        self.images = images
        self.indices = indices
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, draw: Draw) -> Sample:
        epoch, position = draw
        index = int(self.indices[position])
        with seeded(self.seed, "augment", epoch, index):
            image = self.transform(self.images[index])
        return image, int(self.images.labelled.labels[index])


class ScoringSamples(Dataset[Sample]):
    """Samples in the order of their split, transformed without a draw.

    Args:
        images: of the split.
        indices: which of them are scored.
        transform: uint8 (3, H, W) → the image as it is scored.
    """

    def __init__(
        self, images: Images, indices: NDArray[np.int64], transform: Callable[[Tensor], Tensor]
    ) -> None:
        self.images = images
        self.indices = indices
        self.transform = transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Sample:
        index = int(self.indices[position])
        return self.transform(self.images[index]), int(self.images.labelled.labels[index])


def collate(samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """Return images (N, 3, H, W) floats in 0…1 and labels (N)."""
    images = torch.stack([image for image, _ in samples])
    return images.float().div_(255), torch.tensor([label for _, label in samples])
