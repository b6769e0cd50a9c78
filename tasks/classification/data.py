"""The data of classification: `ClassificationData`."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from bench.errors import DataError, require
from tasks.classification.labelled import Source
from tasks.classification.samples import (
    Images,
    ScoringSamples,
    TrainingSamples,
    augmentation,
    collate,
    held_out,
    scoring,
)
from tasks.classification.sources import open_source
from tasks.data.module import TaskData
from tasks.data.order import EpochSampler


class ClassificationData(TaskData):
    """Batches of images (N, 3, S, S), floats in 0…1, and labels (N).

    The order of the samples and their augmentation are functions of `seed` and the epoch alone,
    whatever the number of workers and whatever the network.

    Args:
        source: "scenes" (generated; the default), "folder" (class folders, as ImageNet has them:
            root/train/<class>/*, root/val/<class>/*), the name of a torchvision set ("CIFAR10",
            "FashionMNIST", …), or "fashion-mnist-debian" (Debian's dataset-fashion-mnist).
        root: folder of the set; for "scenes" the cache, by default.
        image_size: side S of the images, in pixels.
        batch_size: images per batch.
        num_workers: processes that load; 0 loads in this one.
        seed: of the order and the augmentation.
        holdout: share of the training split that is held out and scored in place of the published
            split, for tuning; 0 for none.
        scored: split of class folders that is scored, "val" or "test".
        download: let torchvision download its set into `root`.
        crop: smallest share of the area that a random resized crop keeps; 1 for no random crop.
        pad: padding, in pixels, of which a random crop is taken.
        flip: flip half of the training images left to right.
        randaugment: magnitude of RandAugment, 0 for none.
        erasing: share of the training images in which a rectangle is erased.
        centre: share of the short side that is scored; 0.875 is usual for photographs.
        max_skipped: largest share of a folder's images that may be unreadable; they are counted.
        memory_mb: decoded images of a split are kept in memory up to this size.
        options: knobs of `scenes` (train, val, classes, ratio, contrast, seed), or further
            arguments of the torchvision set.

    Attributes:
        num_classes: number of classes; `class_names` are their names.

    Raises:
        ValueError: names the argument, its value and the rule.
        DataError: the data is missing or cannot be trained on.

    Example:
        >>> data = ClassificationData("scenes", options={"train": 20, "val": 10}, batch_size=10)
        >>> data.prepare_data()
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.val_dataloader()))
        >>> data.num_classes, images.shape, labels.shape
        (10, torch.Size([10, 3, 64, 64]), torch.Size([10]))
    """

    def __init__(
        self,
        source: str = "scenes",
        *,
        root: str | None = None,
        image_size: int = 64,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        holdout: float = 0.0,
        scored: str = "val",
        download: bool = False,
        crop: float = 1.0,
        pad: int = 0,
        flip: bool = False,
        randaugment: int = 0,
        erasing: float = 0.0,
        centre: float = 1.0,
        max_skipped: float = 0.01,
        memory_mb: int = 1024,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        require("image_size", image_size, image_size >= 8, ">= 8")
        require("batch_size", batch_size, batch_size >= 1, ">= 1")
        require("num_workers", num_workers, num_workers >= 0, ">= 0")
        require("seed", seed, seed >= 0, ">= 0")
        require("holdout", holdout, 0 <= holdout <= 0.5, "in [0, 0.5]")
        require("scored", scored, scored in ("val", "test"), "'val' or 'test'")
        require("crop", crop, 0 < crop <= 1, "in (0, 1]")
        require("pad", pad, 0 <= pad < image_size, "in [0, image_size)")
        require("randaugment", randaugment, 0 <= randaugment <= 30, "in [0, 30]")
        require("erasing", erasing, 0 <= erasing <= 1, "in [0, 1]")
        require("centre", centre, 0 < centre <= 1, "in (0, 1]")
        require("max_skipped", max_skipped, 0 <= max_skipped < 1, "in [0, 1)")
        require("memory_mb", memory_mb, memory_mb >= 0, ">= 0")
        self.image_size = image_size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.holdout = holdout
        self.memory_mb = memory_mb
        self.scored = scored
        self.options = dict(options or {})
        self._open = partial(
            open_source,
            source,
            root=root,
            image_size=image_size,
            scored=scored,
            download=download,
            max_skipped=max_skipped,
            options=self.options,
        )
        self._augmented = augmentation(
            image_size, crop=crop, pad=pad, flip=flip, randaugment=randaugment, erasing=erasing
        )
        self._plain = scoring(image_size, centre)
        self._source: Source | None = None
        self._training: TrainingSamples | None = None
        self._scoring: ScoringSamples | None = None

    @property
    def source(self) -> Source:
        """The opened source; it is checked, and generated or downloaded, at the first use."""
        if self._source is None:
            self._source = self._open()
        return self._source

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return self.source.train.class_names

    def prepare_data(self) -> None:
        """Generate or download, and check every file, before training."""
        _ = self.source

    def setup(self, stage: str) -> None:
        """Split, and decode what fits into memory."""
        if self._scoring is not None:
            return
        train, scored = self.source.train, self.source.scored
        kept = Images(train, self.image_size, self.memory_mb)
        trained = np.arange(len(train))
        if self.holdout:
            trained, held = held_out(train.labels, self.holdout)
            if not len(trained):
                raise DataError(
                    f"`holdout` (={self.holdout}) leaves no training image of {len(train)}."
                )
            self._scoring = ScoringSamples(kept, held, self._plain)
        else:
            images = Images(scored, self.image_size, self.memory_mb)
            self._scoring = ScoringSamples(images, np.arange(len(scored)), self._plain)
        self._training = TrainingSamples(kept, trained, self._augmented, self.seed)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training batches; the last one is dropped where it is not full."""
        if self._training is None:
            raise RuntimeError("`setup` must be called before `train_dataloader`.")
        trainer = self.trainer
        sampler = EpochSampler(
            len(self._training),
            seed=self.seed,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
        full = len(sampler) >= self.batch_size
        return self._loader(self._training, sampler=sampler, drop_last=full)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the scored batches: of the scored split, or of what is held out of training."""
        if self._scoring is None:
            raise RuntimeError("`setup` must be called before `val_dataloader`.")
        return self._loader(self._scoring)

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the scored batches, as for validation."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return the scored batches, as for validation."""
        return self.val_dataloader()

    def _loader(self, dataset: Any, **arguments: Any) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            **arguments,
        )

    def as_scored(self, image: Tensor) -> Tensor:
        """Return an image, uint8 (3, H, W), resized and cropped as when scored, in 0…1."""
        cropped: Tensor = self._plain(image)
        return cropped.float() / 255

    def describe(self) -> dict[str, Any]:
        """Return what the model is trained and scored on, by the keys of bench.record.Data."""
        self.setup("fit")
        if self._training is None or self._scoring is None:
            raise RuntimeError("`setup` has left no samples.")
        split = f"held out {self.holdout:g} of train" if self.holdout else self.scored
        return {
            "name": self.source.name,
            "revision": self.source.revision,
            "files_sha256": self.source.files_sha256,
            "split": split,
            "train_samples": len(self._training),
            "scored_samples": len(self._scoring),
            "skipped": self.source.skipped,
            "options": {"image_size": self.image_size, **self.options},
        }
