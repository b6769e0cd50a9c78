"""What the data of all tasks have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from bench.errors import DataError, require
from tasks.data.holdout import evenly_spaced
from tasks.data.order import EpochSampler, share_of

MAX_SKIPPED = 0.01
"""Share of a set's images that may be unreadable."""


class TaskData(L.LightningDataModule, ABC):
    """The data of a task: batches to train on and to score, and what they are.

    A task implements `class_names`, `split_sizes`, `check_files`, `datasets`, `as_scored` and
    `identity`. This class does the rest: it checks that model, batches and sets fit before any
    training, orders the samples by seed and epoch, and shares them out among the processes of a
    run on several devices, with Lightning's default settings.

    The scored split is validated, tested and predicted. Every process scores equally many batches
    of it, as Lightning's strategies need; `TaskModule` leaves out what fills them up.

    Args:
        batch_size: images per training batch of each process; a last, smaller one is left out.
        eval_batch_size: images per scored batch; None for `batch_size`.
        num_workers: processes that load; 0 loads in this one.
        memory_mb: decoded images of a split are kept in memory up to this size, per process.
        holdout: share of the training split, up to 0.5, that is held out and scored in place of
            the published split, for tuning; 0 for none.
        val_share: share, up to 0.5, that is drawn as the validation split of a set that has none
            of its own: by class, and the same for every seed; None for none.
        max_skipped: largest share of a set's images that may be unreadable; they are left out and
            counted; None for 0.01. One may be in any set, unless it is 0.
        seed: of the order and the augmentation.

    Attributes:
        scored: name of the split that is scored.
        train_set: what is trained on, by (epoch, index); there after `setup`.
        val_set: what is scored, by index; there after `setup`.

    Raises:
        ValueError: names the argument, its value and the rule.
    """

    scored: str = "val"

    def __init__(
        self,
        *,
        batch_size: int,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        memory_mb: int = 1024,
        holdout: float = 0.0,
        val_share: float | None = None,
        max_skipped: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require("batch_size", batch_size, batch_size >= 1, ">= 1")
        least = eval_batch_size is None or eval_batch_size >= 1
        require("eval_batch_size", eval_batch_size, least, ">= 1, or None")
        require("num_workers", num_workers, num_workers >= 0, ">= 0")
        require("memory_mb", memory_mb, memory_mb >= 0, ">= 0")
        require("holdout", holdout, 0 <= holdout <= 0.5, "in [0, 0.5]")
        drawable = val_share is None or 0 < val_share <= 0.5
        require("val_share", val_share, drawable, "in (0, 0.5], or None")
        most = MAX_SKIPPED if max_skipped is None else max_skipped
        require("max_skipped", most, 0 <= most < 1, "in [0, 1)")
        require("seed", seed, seed >= 0, ">= 0")
        self.batch_size = batch_size
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        self.num_workers = num_workers
        self.memory_mb = memory_mb
        self.holdout = holdout
        self.val_share = val_share
        self.max_skipped = most
        self.seed = seed
        self.train_set: Any = None
        self.val_set: Any = None

    # What a task implements.

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""

    @property
    @abstractmethod
    def split_sizes(self) -> tuple[int, int]:
        """Numbers of images that are trained on and scored."""

    @abstractmethod
    def check_files(self) -> None:
        """Check every file that is not of our own making; DataError says what is wrong."""

    @abstractmethod
    def datasets(self) -> tuple[Dataset[Any], Dataset[Any]]:
        """Return `train_set` and `val_set`."""

    @abstractmethod
    def as_scored(self, image: Tensor) -> Tensor:
        """Return an image, uint8 (3, H, W), as it is when scored: (3, H', W') floats in 0…1."""

    def scored_size(self, image: Tensor) -> tuple[int, int]:
        """Return (height, width) of what `as_scored` shows of an image, without padding."""
        height, width = self.as_scored(image).shape[-2:]
        return height, width

    @abstractmethod
    def example(self, split: str, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return an image that is trained on ("train") or scored as it is read, and its truth.

        Returns:
            uint8 (3, H, W); and `label` (), or `boxes` (n, 4) with `labels` (n), or `mask` (H, W),
            or `keypoints` (n, K, 3) with `skeleton` (lines, 2).
        """

    @abstractmethod
    def class_counts(self, split: str) -> dict[str, int]:
        """Return class → its images, objects, pixels or figures, trained on ("train") or scored."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return name, revision, files_sha256, skipped and options of `bench.record.Data`."""

    collate: Callable[[Sequence[Any]], Any]
    """Samples → a batch (images, targets)."""

    def sampler(self, **order: int) -> EpochSampler:
        """Return the order of training; `order` is seed, rank and world_size."""
        return EpochSampler(len(self.train_set), **order)

    # What all have.

    @property
    def num_classes(self) -> int:
        """Number of classes; an ignored one is none."""
        return len(self.class_names)

    def describe(self) -> dict[str, Any]:
        """Return what a record says of its data: the fields of `bench.record.Data`."""
        trained, scored = self.split_sizes
        identity = self.identity()
        if self.val_share:
            identity["options"] = identity["options"] | {"val_share": self.val_share}
        return identity | {
            "split": f"held out {self.holdout:g} of train" if self.holdout else self.scored,
            "train_samples": trained,
            "scored_samples": scored,
        }

    def scored_images(self, count: int, size: Sequence[int]) -> Tensor:
        """Return images of the scored split, (N, 3, *size) in 0…1; all of them if it has fewer.

        They are evenly spaced, as splits are often sorted by class.
        """
        self.prepare_data()
        self.setup("validate")
        images = []
        for index in evenly_spaced(len(self.val_set), min(count, len(self.val_set))).tolist():
            batch, _ = self.collate([self.val_set[index]])
            images.append(resized(batch[0][None], size))
        return torch.cat(images)

    def prepare_data(self) -> None:
        """Generate or download the set, and check it; DataError says what is wrong."""
        trained, _ = self.split_sizes
        _, world_size = self._process
        share = share_of(trained, world_size - 1, world_size)
        if share < self.batch_size:
            each = "" if world_size == 1 else f" in each of {world_size} processes"
            raise DataError(
                f"`batch_size` (={self.batch_size}) must be at most the {share} images to train "
                f"on{each}."
            )
        self.check_files()

    def setup(self, stage: str) -> None:
        """Check that the model fits, and make the data sets."""
        module = None if self.trainer is None else self.trainer.lightning_module
        expected = getattr(module, "num_classes", self.num_classes)
        if expected != self.num_classes:
            raise DataError(
                f"`num_classes` (={expected}) of the model must be the data's {self.num_classes}."
            )
        if self.train_set is None:
            self.train_set, self.val_set = self.datasets()

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the augmented training batches in the order of (seed, epoch)."""
        rank, world_size = self._process
        order = self.sampler(seed=self.seed, rank=rank, world_size=world_size)
        return self._loader(self.train_set, self.batch_size, sampler=order, drop_last=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the scored batches, in the order of the set."""
        rank, world_size = self._process
        share: DistributedSampler[Any] | None = None
        if world_size > 1:
            share = DistributedSampler(self.val_set, world_size, rank, shuffle=False)
        return self._loader(self.val_set, self.eval_batch_size, sampler=share)

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the scored batches, as for validation."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return the scored batches; Lightning shares them out, and repeats none of them."""
        return self._loader(self.val_set, self.eval_batch_size)

    @property
    def _process(self) -> tuple[int, int]:
        """Number of this process, and of how many."""
        return (
            (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        )

    def _loader(self, dataset: Dataset[Any], batch_size: int, **options: Any) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=self.collate,
            **options,
        )


def height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of a side or a pair.

    Example:
        >>> height_width(64), height_width((48, 64))
        ((64, 64), (48, 64))
    """
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def resized(images: Tensor, size: Sequence[int]) -> Tensor:
    """Resize images (N, 3, H, W) in 0…1 to `size`, bilinearly; the same size is handed back."""
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    larger = F.interpolate(images, tuple(size), mode="bilinear", antialias=True)
    return larger.clamp(0, 1)
