"""What the data of all tasks have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import lightning as L
from torch import Tensor


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
