"""The data of classification: `ClassificationData`."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bench.errors import require
from tasks.classification.augment import augmentation, scoring
from tasks.classification.labelled import Labelled, Source
from tasks.classification.samples import Images, ScoringSamples, TrainingSamples, collate
from tasks.classification.sources import open_source
from tasks.data.holdout import Indices, held_out
from tasks.data.module import TaskData

LARGE = 640
"""Short side, in pixels, to which an image is shrunk when it is looked at."""


class ClassificationData(TaskData):
    """Batches of images (N, 3, S, S), floats in 0…1, and labels (N).

    The order of the samples and their augmentation are functions of `seed` and the epoch alone,
    whatever the number of workers and whatever the network.

    Args:
        source: "scenes" (generated; the default), "folder" (class folders, as ImageNet has them:
            root/train/<class>/*, root/val/<class>/*; with `val_share` also root/<class>/*), the
            name of a torchvision set ("CIFAR10", "FashionMNIST", …), or "fashion-mnist-debian"
            (Debian's dataset-fashion-mnist).
        root: folder of the set; for "scenes" the cache, by default.
        image_size: side S of the images, in pixels.
        batch_size: images per batch, of training and of scoring.
        scored: split of class folders that is scored, "val" or "test".
        download: let torchvision download its set into `root`.
        crop: smallest share of the area that a random resized crop keeps; 1 for no random crop.
        pad: padding, in pixels, of which a random crop is taken.
        flip: flip half of the training images left to right.
        randaugment: magnitude of torchvision's RandAugment, 0 for none.
        auto_augment: timm's words for its RandAugment, e.g. "rand-m9-mstd0.5-inc1"; None for none.
        erasing: share of the training images in which a rectangle is erased.
        centre: share of the short side that is scored; 0.875 is usual for photographs.
        interpolation: "bilinear" (None) or "bicubic", of crops and resizes.
        max_skipped: largest share of a folder's images that may be unreadable; they are counted.
            One may be in any folder, unless it is 0.
        options: knobs of `scenes` (train, val, classes, ratio, contrast, seed), or further
            arguments of the torchvision set.
        **loading: num_workers, memory_mb, holdout, val_share, seed: see `TaskData`.

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

    collate = staticmethod(collate)

    def __init__(
        self,
        source: str = "scenes",
        *,
        root: str | None = None,
        image_size: int = 64,
        batch_size: int = 64,
        scored: str = "val",
        download: bool = False,
        crop: float = 1.0,
        pad: int = 0,
        flip: bool = False,
        randaugment: int = 0,
        erasing: float = 0.0,
        centre: float = 1.0,
        auto_augment: str | None = None,
        interpolation: Literal["bilinear", "bicubic"] | None = None,
        max_skipped: float = 0.01,
        options: dict[str, Any] | None = None,
        **loading: Any,
    ) -> None:
        super().__init__(
            batch_size=batch_size, eval_batch_size=None, max_skipped=max_skipped, **loading
        )
        require("image_size", image_size, image_size >= 8, ">= 8")
        require("scored", scored, scored in ("val", "test"), "'val' or 'test'")
        only = scored == "val" or source == "folder"
        require("scored", scored, only, f"'val' for `source` (={source!r})")
        require("crop", crop, 0 < crop <= 1, "in (0, 1]")
        require("pad", pad, 0 <= pad < image_size, "in [0, image_size)")
        require("randaugment", randaugment, 0 <= randaugment <= 30, "in [0, 30]")
        require("erasing", erasing, 0 <= erasing <= 1, "in [0, 1]")
        require("centre", centre, 0 < centre <= 1, "in (0, 1]")
        self.image_size = image_size
        self.scored = scored
        self.options = dict(options or {})
        self._open = partial(
            open_source,
            source,
            root=root,
            image_size=image_size,
            scored=scored,
            download=download,
            max_skipped=self.max_skipped,
            val_share=self.val_share,
            options=self.options,
        )
        self._augmented = augmentation(
            image_size,
            crop=crop,
            pad=pad,
            flip=flip,
            randaugment=randaugment,
            auto_augment=auto_augment,
            erasing=erasing,
            interpolation=interpolation,
        )
        self._plain = scoring(image_size, centre, interpolation)

    @cached_property
    def source(self) -> Source:
        """The opened source; it is checked, and generated or downloaded, at the first use."""
        return self._open()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return self.source.train.class_names

    @cached_property
    def _indices(self) -> tuple[Indices, Indices]:
        """What is trained on and scored, in the training split where it is held out of it."""
        train, scored = self.source.train, self.source.scored
        if self.holdout:
            return held_out(train.labels, self.holdout)
        return np.arange(len(train)), np.arange(len(scored))

    @property
    def split_sizes(self) -> tuple[int, int]:
        """Numbers of images that are trained on and scored."""
        trained, scored = self._indices
        return len(trained), len(scored)

    def check_files(self) -> None:
        """Check every file: opening the source does."""
        _ = self.source

    def datasets(self) -> tuple[TrainingSamples, ScoringSamples]:
        """Return the two sets, with what fits into memory decoded."""
        trained, scored = self._indices
        images = Images(self.source.train, self.image_size, self.memory_mb)
        held = images
        if not self.holdout:
            held = Images(self.source.scored, self.image_size, self.memory_mb)
        return (
            TrainingSamples(images, trained, self._augmented, self.seed),
            ScoringSamples(held, scored, self._plain),
        )

    def example(self, split: str, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return an image of a split as it is read, and its `label`."""
        part, indices = self._part(split)
        place = int(indices[index])
        return part.load(place, LARGE), {"label": torch.tensor(part.labels[place])}

    def class_counts(self, split: str) -> dict[str, int]:
        """Return class → number of its images in a split."""
        part, indices = self._part(split)
        counts = np.bincount(part.labels[indices], minlength=self.num_classes)
        return dict(zip(self.class_names, counts.tolist(), strict=True))

    def _part(self, split: str) -> tuple[Labelled, Indices]:
        """Return where the images are that are trained on, for "train", or scored, and which."""
        trained = split == "train"
        part = self.source.train if trained or self.holdout else self.source.scored
        return part, self._indices[not trained]

    def as_scored(self, image: Tensor) -> Tensor:
        """Return an image, uint8 (3, H, W), resized and cropped as when scored, in 0…1."""
        cropped: Tensor = self._plain(image)
        return cropped.float() / 255

    def identity(self) -> dict[str, Any]:
        """Return what the set is known by."""
        return {
            "name": self.source.name,
            "revision": self.source.revision,
            "files_sha256": self.source.files_sha256,
            "skipped": self.source.skipped,
            "options": {"image_size": self.image_size, **self.options},
        }
