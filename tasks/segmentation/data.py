"""The segmentation data module: five layouts on disk, one way of reading and augmenting them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import tv_tensors

from bench.errors import DataError, UserError, near
from tasks.data.cache import manifest
from tasks.data.locations import existing_folder
from tasks.data.module import TaskData
from tasks.data.order import Draw, EpochSampler
from tasks.data.paths import paths
from tasks.data.scenes import scenes
from tasks.seeds import seeded
from tasks.segmentation.ade20k import read_ade20k
from tasks.segmentation.mask_folders import read_mask_folders
from tasks.segmentation.masks import MaskSet, check, read_image, read_mask
from tasks.segmentation.transforms import evaluation_transform, training_transform
from tasks.segmentation.voc_masks import read_voc_masks

SOURCES = ("scenes", "paths", "ade20k", "masks", "voc")
GENERATED = ("scenes", "paths")


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
        num_workers: processes that load.
        memory_mb: decoded images of a split are kept in memory up to this size, per process.
        holdout: share of the training set that is held out and validated on, in place of the
            validation set; for tuning. 0 for none.
        seed: of order and augmentation.

    Raises:
        ValueError: a value out of its range.
        DataError: in `prepare_data`, before training: missing folders or partners, unreadable
            files, sizes that differ, labels without a class.
    """

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
        num_workers: int = 0,
        memory_mb: int = 1024,
        holdout: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if source not in SOURCES:
            raise UserError(f"`source` (={source!r}) is not known; {near(source, SOURCES)}")
        if root is None and source not in GENERATED:
            raise UserError(f"`root` must be the folder of the set for `source` (={source!r}).")
        if options and source not in GENERATED:
            raise UserError(f"`options` (={options}) has no use for `source` (={source!r}).")
        if source in GENERATED:
            generator = scenes if source == "scenes" else paths
            known = set(signature(generator).parameters) - {"task", "root"}
            for knob in sorted({*(options or {})} - known):
                raise UserError(f"`options` ({knob!r}) is no knob of {source}; {near(knob, known)}")
        if not 0 <= holdout <= 0.5:
            raise UserError(f"`holdout` (={holdout}) must be in [0, 0.5].")
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value is not None and value < 1:
                raise UserError(f"`{name}` (={value}) must be at least 1.")
        if num_workers < 0:
            raise UserError(f"`num_workers` (={num_workers}) must be at least 0.")
        if memory_mb < 0:
            raise UserError(f"`memory_mb` (={memory_mb}) must be at least 0.")
        if not 0 <= flip <= 1:
            raise UserError(f"`flip` (={flip}) must be in [0, 1].")
        self.source = source
        self.root = None if root is None else Path(root)
        crop = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        if min(crop) < 1:
            raise UserError(f"`image_size` (={image_size}) must be at least 1 pixel.")
        self.image_size = (int(crop[0]), int(crop[1]))
        self.eval_size = image_size if eval_size is None else eval_size
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.options = dict(options or {})
        self.num_workers = num_workers
        self.memory_mb = memory_mb
        self.holdout = holdout
        self.seed = seed
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
        if self.source in GENERATED:
            knobs = {"size": self.image_size[0], **self.options}
            if self.source == "scenes":
                return scenes("segmentation", root=self.root, **knobs)
            return paths(root=self.root, **knobs)
        assert self.root is not None
        return existing_folder(self.root)

    @cached_property
    def _published(self) -> dict[str, MaskSet]:
        return {split: self._read(split) for split in ("train", "val")}

    def _read(self, split: str) -> MaskSet:
        if self.source == "voc":
            return read_voc_masks(self.folder, split)
        if self.source == "masks":
            return read_mask_folders(
                self.folder,
                split,
                class_names=self._names,
                zero_ignored=self._zero_ignored,
                **self._suffixes,
            )
        return read_ade20k(self.folder, split, self._num_classes)

    @cached_property
    def _splits(self) -> dict[str, MaskSet]:
        """What is trained and scored on."""
        train = self._published["train"]
        if not self.holdout:
            return self._published
        count = len(train.pairs)
        held = {i * count // self._held(count) for i in range(self._held(count))}
        kept = [i for i in range(count) if i not in held]
        return {"train": train.subset(kept), "val": train.subset(sorted(held))}

    def _held(self, count: int) -> int:
        """Number of training images held out, evenly spaced in the order of their names."""
        held = max(1, round(self.holdout * count))
        if held == count:
            raise DataError(f"`holdout` (={self.holdout}) leaves no training image of {count}.")
        return held

    @property
    def _all_files(self) -> MaskSet:
        train, val = self._published["train"], self._published["val"]
        return MaskSet(train.pairs + val.pairs, train.class_names, train.zero_ignored)

    def prepare_data(self) -> None:
        """Write a generated set, or check every file of another; DataError says what is wrong."""
        if len(self._splits["train"].pairs) < self.batch_size:
            raise DataError(
                f"`batch_size` (={self.batch_size}) must be at most the "
                f"{len(self._splits['train'].pairs)} images to train on."
            )
        if self.source not in GENERATED:
            check(self._all_files, self.folder)

    def setup(self, stage: str) -> None:
        """Make the datasets."""
        module = None if self.trainer is None else self.trainer.lightning_module
        wanted = getattr(module, "num_classes", self.num_classes)
        if wanted != self.num_classes:
            raise DataError(
                f"`num_classes` (={wanted}) of the model must be the data's {self.num_classes}."
            )
        train, val = self._splits["train"], self._splits["val"]
        self.train_set = MaskDataset(train, self._train_transform, self.seed, self.memory_mb)
        self.val_set = MaskDataset(val, self._eval_transform, self.seed, self.memory_mb)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Return the augmented training batches in the order of (seed, epoch)."""
        order = EpochSampler(
            len(self.train_set),
            seed=self.seed,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
        )
        return self._loader(self.train_set, self.batch_size, sampler=order, drop_last=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Return the scored images, in the order of their names."""
        return self._loader(self.val_set, self.eval_batch_size, collate_fn=collate)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Return the same as for validation."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Return the same as for validation."""
        return self.val_dataloader()

    def _loader(
        self, dataset: MaskDataset, batch_size: int, **options: Any
    ) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(
            dataset,
            batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            **options,
        )

    def as_scored(self, image: Tensor) -> Tensor:
        """Return an image, uint8 (3, H, W), resized as when scored, in 0…1."""
        resized: Tensor = self._eval_transform(tv_tensors.Image(image))
        return resized.as_subclass(Tensor)

    def describe(self) -> dict[str, Any]:
        """Return what a record says of its data: the fields of `bench.record.Data`."""
        if self.source in GENERATED:
            written = manifest(self.folder)
            revision, files = written["revision"], written["files_sha256"]
            options = dict(written["knobs"])
        else:
            revision, files, options = "as given", check(self._all_files, self.folder), {}
        options |= {"image_size": list(self.image_size), "eval_size": self.eval_size}
        return {
            "name": self.source if self.source in GENERATED else self.folder.name,
            "revision": revision,
            "files_sha256": files,
            "split": f"held out {self.holdout:g} of train" if self.holdout else "val",
            "train_samples": len(self._splits["train"].pairs),
            "scored_samples": len(self._splits["val"].pairs),
            "skipped": {},
            "options": options,
        }


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
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._room = memory_mb * 2**20

    def __len__(self) -> int:
        return len(self.masks.pairs)

    def __getitem__(self, key: int | Draw) -> tuple[Tensor, Tensor]:
        """Return image and mask of an index, or of an (epoch, index)."""
        epoch, index = (0, key) if isinstance(key, int) else key
        pixels, labels = self._decoded(index)
        image, mask = tv_tensors.Image(pixels), tv_tensors.Mask(labels)
        with seeded(self.seed, "augmentation", epoch, index):
            image, mask = self.transform(image, mask)
        return image.as_subclass(Tensor), mask.as_subclass(Tensor)

    def _decoded(self, index: int) -> tuple[Tensor, Tensor]:
        if index in self._kept:
            return self._kept[index]
        image_path, mask_path = self.masks.pairs[index]
        image = torch.from_numpy(read_image(image_path)).permute(2, 0, 1).contiguous()
        mask = torch.from_numpy(read_mask(mask_path, self.masks.zero_ignored))
        size = image.nbytes + mask.nbytes
        if size <= self._room:
            self._room -= size
            self._kept[index] = image, mask
        return image, mask


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
