"""The segmentation data module: five layouts on disk, one way of reading and augmenting them."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor
from torchvision import tv_tensors

from bench.errors import require
from tasks.data.holdout import held_out
from tasks.data.module import TaskData, height_width
from tasks.data.sources import (
    GENERATORS,
    check_source,
    drawn,
    folder_of,
    generated_identity,
    require_drawable,
    require_undivided,
)
from tasks.layouts.mask_folders import mask_folders
from tasks.segmentation.ade20k import read_ade20k
from tasks.segmentation.checks import checked
from tasks.segmentation.dataset import MaskDataset, collate
from tasks.segmentation.mask_folders import read_mask_folders
from tasks.segmentation.masks import IGNORED, MaskSet, read_mask
from tasks.segmentation.transforms import evaluation_transform, training_transform
from tasks.segmentation.voc_masks import read_voc_masks

SOURCES = (*GENERATORS, "ade20k", "masks", "voc")


class SegmentationData(TaskData):
    """Images with a label per pixel, in training and in validation.

    A training image is scaled at random, cropped to `image_size`, mirrored and changed in colour;
    its augmentation is a function of (seed, epoch, image) alone, whatever the number of workers.
    A validation image is resized, its mask is not: predictions are scored at the mask's size.

    Batches are (images (N, 3, H, W) floats in 0…1, masks (N, H, W) int64, 255 ignored); where
    validation images differ in size they are lists of (3, H, W) and (H, W).

    Args:
        source: "scenes" or "paths" (generated), "ade20k" (its layout: 0 is ignored), "masks"
            (folders, see `tasks.segmentation.mask_folders`) or "voc" (PASCAL VOC 2012 or 2007).
        root: the folder of the set; of all generated sets for the generated ones.
        image_size: side or (height, width) of training crops in pixels; the short side is also
            that of the image at scale 1.
        eval_size: short side, or (height, width), of validation images; None for `image_size`'s;
            "original" for no resize.
        eval_longest: limit of their long side in pixels.
        batch_size: images per training batch; a last, smaller batch is left out.
        eval_batch_size: images per validation batch; None for `batch_size`.
        scored: for "masks": the split that is scored, "val" (None) or "test".
        scale: range of the random scale.
        largest_share: crops are drawn again while one class fills more than this of them.
        flip: chance of a mirror image.
        photometric: whether colours are changed.
        options: knobs of `tasks.data.scenes` or `tasks.data.paths`, e.g. {"train": 500}; size
            is `image_size`, unless given.
        num_classes: for "ade20k" without a list of classes.
        class_names: for "masks" without a classes.txt.
        zero_ignored: for "masks": a stored 0 is no class and a stored k is class k − 1.
        image_suffix: for "masks": how the names of images end.
        mask_suffix: for "masks": how the names of masks end.
        **loading: num_workers, memory_mb, holdout, val_share, max_skipped, seed: see
            `TaskData`.

    Raises:
        ValueError: a value out of its range.
        DataError: in `prepare_data`, before training: missing folders or partners, unreadable
            files, sizes that differ, labels without a class.
    """

    collate = staticmethod(collate)

    def __init__(
        self,
        source: Literal["scenes", "paths", "ade20k", "masks", "voc"] = "scenes",
        root: str | None = None,
        *,
        image_size: int | tuple[int, int] = 64,
        eval_size: int | tuple[int, int] | Literal["original"] | None = None,
        eval_longest: int | None = None,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        scored: Literal["val", "test"] | None = None,
        scale: tuple[float, float] = (0.5, 2.0),
        largest_share: float = 0.75,
        flip: float = 0.5,
        photometric: bool = True,
        options: dict[str, Any] | None = None,
        num_classes: int | None = None,
        class_names: list[str] | None = None,
        zero_ignored: bool = False,
        image_suffix: str | None = None,
        mask_suffix: str | None = None,
        **loading: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, **loading)
        check_source(source, SOURCES, root, options or {})
        self.scored = scored or "val"
        only = source == "masks" or self.scored == "val"
        require("scored", scored, only, f"'val' or None for `source` (={source!r})")
        require_drawable(self.val_share, source, self.scored, ("masks",))
        require("flip", flip, 0 <= flip <= 1, "in [0, 1]")
        size = height_width(image_size)
        require("image_size", image_size, min(size) >= 1, ">= 1")
        resized = size if eval_size is None or eval_size == "original" else height_width(eval_size)
        require("eval_size", eval_size, min(resized) >= 1, ">= 1, 'original' or None")
        holds = eval_longest is None or eval_longest >= 1
        require("eval_longest", eval_longest, holds, ">= 1, or None")
        holds = eval_longest is None or isinstance(eval_size or image_size, int)
        rule = "None unless what is scored is resized to a shorter side, one number"
        require("eval_longest", eval_longest, holds, rule)
        given: dict[str, Any] = {
            "class_names": class_names,
            "zero_ignored": zero_ignored or None,
            "image_suffix": image_suffix,
            "mask_suffix": mask_suffix,
        }
        rule = f"left out for `source` (={source!r}): it is of 'masks'"
        for name, value in given.items():
            require(name, value, value is None or source == "masks", rule)
        rule = f"left out for `source` (={source!r}): it is of 'ade20k'"
        require("num_classes", num_classes, num_classes is None or source == "ade20k", rule)
        self.source = source
        self.root = root
        self.image_size = size
        self.eval_size = image_size if eval_size is None else eval_size
        self.eval_longest = eval_longest
        self.options = dict(options or {})
        self._num_classes = num_classes
        self._names = None if class_names is None else tuple(class_names)
        self._zero_ignored = zero_ignored
        self._suffixes = {"image_suffix": image_suffix, "mask_suffix": mask_suffix}
        self._train_transform = training_transform(
            self.image_size,
            scale=(float(scale[0]), float(scale[1])),
            largest_share=largest_share,
            flip=flip,
            photometric=photometric,
        )
        self._eval_transform = evaluation_transform(
            None if self.eval_size == "original" else self.eval_size, eval_longest
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        return self._published["train"].class_names

    @cached_property
    def folder(self) -> Path:
        """Where the set lies; a generated one is written first, if it is not there."""
        size = self.image_size[0]
        return folder_of(self.source, "segmentation", self.root, size, self.options)

    @cached_property
    def _checked(self) -> tuple[dict[str, MaskSet], str]:
        """The published splits, with what is wrong told or mended, and the hash of their files.

        What was generated here needs no check.
        """
        if self.val_share:
            divided = all(mask_folders(self.folder, split) for split in ("train", "val"))
            require_undivided(self.val_share, self.folder, divided)
            whole = self._read(None)
            sets = drawn(whole, np.zeros(len(whole.pairs), np.int64), self.val_share)
        else:
            sets = {split: self._read(split) for split in ("train", self.scored)}
        if self.source in GENERATORS:
            return sets, ""
        return checked(sets, self.folder, self.max_skipped)

    @property
    def _published(self) -> dict[str, MaskSet]:
        return self._checked[0]

    def _read(self, split: str | None) -> MaskSet:
        """Read a split; None for a set without splits."""
        if self.source == "masks":
            return read_mask_folders(
                self.folder,
                split,
                class_names=self._names,
                zero_ignored=self._zero_ignored,
                **self._suffixes,
            )
        assert split is not None
        if self.source == "voc":
            return read_voc_masks(self.folder, split)
        return read_ade20k(self.folder, split, self._num_classes)

    @cached_property
    def _splits(self) -> tuple[MaskSet, MaskSet]:
        """What is trained on and what is scored."""
        train = self._published["train"]
        if not self.holdout:
            return train, self._published[self.scored]
        trained, held = held_out(np.zeros(len(train.pairs), dtype=np.int64), self.holdout)
        return train.subset(trained.tolist()), train.subset(held.tolist())

    def _part(self, split: str) -> MaskSet:
        """Return what is trained on, for "train", or what is scored."""
        return self._splits[split != "train"]

    @property
    def split_sizes(self) -> tuple[int, int]:
        """Numbers of images that are trained on and scored."""
        train, scored = self._splits
        return len(train.pairs), len(scored.pairs)

    def check_files(self) -> None:
        """Check every image and mask that is not generated: opening the set does."""
        _ = self._checked

    def datasets(self) -> tuple[MaskDataset, MaskDataset]:
        """Return what is trained on, augmented, and what is scored."""
        train, scored = self._splits
        return (
            MaskDataset(train, self._train_transform, self.seed, self.memory_mb),
            MaskDataset(scored, self._eval_transform, self.seed, self.memory_mb),
        )

    def example(self, split: str, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return an image of a split as it is read, and its `mask`."""
        image, mask = MaskDataset(self._part(split), _unchanged, self.seed)[index]
        return image, {"mask": mask}

    def class_counts(self, split: str) -> dict[str, int]:
        """Return class → number of its pixels in a split."""
        masks = self._part(split)
        counts = np.zeros(IGNORED + 1, dtype=np.int64)
        for _, path in masks.pairs:
            labels = read_mask(path, masks.zero_ignored, masks.binary)
            counts += np.bincount(labels.ravel(), minlength=len(counts))
        return dict(zip(self.class_names, counts.tolist(), strict=False))

    def as_scored(self, image: Tensor) -> Tensor:
        """Return an image, uint8 (3, H, W), resized as when scored, in 0…1."""
        resized: Tensor = self._eval_transform(tv_tensors.Image(image))
        return resized.as_subclass(Tensor)

    def identity(self) -> dict[str, Any]:
        """Return what the set is known by."""
        options: dict[str, Any] = {
            "image_size": list(self.image_size),
            "eval_size": self.eval_size,
        }
        if self.eval_longest is not None:
            options["eval_longest"] = self.eval_longest
        if self.source in GENERATORS:
            generated = generated_identity(self.source, self.folder)
            return generated | {"options": generated["options"] | options}
        skipped: Counter[str] = Counter()
        for part in self._published.values():
            skipped.update(part.skipped)
        return {
            "name": self.folder.name,
            "revision": "as given",
            "files_sha256": self._checked[1],
            "skipped": dict(skipped),
            "options": options,
        }


def _unchanged(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return image, mask
