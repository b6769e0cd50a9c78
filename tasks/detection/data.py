"""The detection data module: four layouts on disk, one way of reading and augmenting them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from torchvision import tv_tensors

from bench.errors import DataError, UserError, near
from bench.hashing import digest
from tasks.data.cache import manifest
from tasks.data.checked import check_images
from tasks.data.locations import existing_folder
from tasks.data.module import TaskData
from tasks.data.order import EpochSampler
from tasks.data.scenes import scenes
from tasks.detection.boxes import BoxSet
from tasks.detection.coco import coco_files, read_coco
from tasks.detection.dataset import AspectBatches, BoxDataset, Target, collate
from tasks.detection.transforms import Training, letterbox
from tasks.detection.visdrone import read_visdrone
from tasks.detection.voc import read_voc
from tasks.seeds import numpy_generator

SOURCES = ("scenes", "coco", "voc", "visdrone")
Batch = tuple[Tensor, list[Target]]


class DetectionData(TaskData):
    """Images with boxes (and masks), in training and in validation.

    Images are fitted to `image_size`, the aspect ratio kept, and padded black at the right and
    below. In training they are scaled, cropped, mirrored and changed in colour at random; the
    augmentation is a function of (seed, epoch, image) alone, whatever the number of workers.
    Predictions are scored in the pixels of the files, with the areas of the annotations.

    Batches are (images (N, 3, H, W) floats in 0…1, list of N targets); see
    `tasks.detection.dataset.BoxDataset`.

    Args:
        source: "scenes" (generated), "coco", "voc" or "visdrone".
        root: the folder of the set; of all generated sets for "scenes".
        image_size: side, or (height, width), in pixels.
        batch_size: images per training batch; a last, smaller batch is left out.
        eval_batch_size: images per validation batch; None for `batch_size`.
        annotations: for "coco": files of training and validation, below `root`, in place of
            those of COCO's layout.
        images: for "coco": folders of the images of both.
        scored: for "coco": the split that is scored, "val" or "test".
        scale: range of a random factor of the size; above 1 the image is cropped.
        flip: chance of a mirror image.
        photometric: whether colours are changed.
        mosaic: chance of a mosaic of four images (of YOLOv4, as YOLOX and RTMDet train).
        masks: whether to load masks, which heads with masks need.
        group_aspect: whether standing images are fitted to (width, height), and batches are of
            one kind.
        options: knobs of `tasks.data.scenes`, e.g. {"train": 500}; its size is `image_size`,
            unless given.
        num_workers: processes that load.
        memory_mb: decoded images of a split are kept in memory up to this size, per process.
        holdout: share of the training set that is held out and validated on, in place of the
            validation set; for tuning. 0 for none.
        seed: of order and augmentation.

    Raises:
        ValueError: a value out of its range.
        DataError: in `prepare_data`, before training: missing or unreadable files, annotations
            that contradict each other.
    """

    def __init__(
        self,
        source: Literal["scenes", "coco", "voc", "visdrone"] = "scenes",
        root: str | None = None,
        *,
        image_size: int | tuple[int, int] = 64,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        annotations: tuple[str, str] | None = None,
        images: tuple[str, str] | None = None,
        scored: Literal["val", "test"] = "val",
        scale: tuple[float, float] = (1.0, 1.0),
        flip: float = 0.5,
        photometric: bool = False,
        mosaic: float = 0.0,
        masks: bool = False,
        group_aspect: bool = False,
        options: dict[str, Any] | None = None,
        num_workers: int = 0,
        memory_mb: int = 1024,
        holdout: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if source not in SOURCES:
            raise UserError(f"`source` (={source!r}) is not known; {near(str(source), SOURCES)}")
        if root is None and source != "scenes":
            raise UserError(f"`root` must be the folder of the set for `source` (={source!r}).")
        if options and source != "scenes":
            raise UserError(f"`options` (={options}) has no use for `source` (={source!r}).")
        if (annotations is None) != (images is None) or (annotations and source != "coco"):
            raise UserError(
                f"`annotations` (={annotations}) and `images` (={images}) must be given together, "
                "and for `source` 'coco'."
            )
        if scored not in ("val", "test") or (scored == "test" and source != "coco"):
            raise UserError(
                f"`scored` (={scored!r}) must be 'val', or, for `source` 'coco', 'test'; "
                f"`source` is {source!r}."
            )
        if masks and source in ("voc", "visdrone"):
            raise UserError(f"`masks` (={masks}) must be False for `source` (={source!r}).")
        height, width = (image_size,) * 2 if isinstance(image_size, int) else image_size
        for argument, value, holds, rule in (
            ("image_size", image_size, min(height, width) >= 8, "at least 8 pixels"),
            ("batch_size", batch_size, batch_size >= 1, "at least 1"),
            (
                "eval_batch_size",
                eval_batch_size,
                eval_batch_size is None or eval_batch_size >= 1,
                "at least 1",
            ),
            ("scale", scale, 0 < scale[0] <= scale[1], "0 < smallest <= largest"),
            ("flip", flip, 0 <= flip <= 1, "in [0, 1]"),
            ("mosaic", mosaic, 0 <= mosaic <= 1, "in [0, 1]"),
            ("num_workers", num_workers, num_workers >= 0, "at least 0"),
            ("memory_mb", memory_mb, memory_mb >= 0, "at least 0"),
            ("holdout", holdout, 0 <= holdout < 1, "in [0, 1)"),
        ):
            if not holds:
                raise UserError(f"`{argument}` (={value}) must be {rule}.")
        self.source = source
        self.root = None if root is None else Path(root)
        self.image_size = (int(height), int(width))
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.files = None if annotations is None else (tuple(annotations), tuple(images or ()))
        self.splits = ("train", scored)
        self.training = Training((float(scale[0]), float(scale[1])), flip, photometric)
        self.mosaic = mosaic
        self.masks = masks
        self.group_aspect = group_aspect
        self.options = dict(options or {})
        self.num_workers = num_workers
        self.memory_mb = memory_mb
        self.holdout = holdout
        self.seed = seed

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        return self._published["train"].class_names

    @cached_property
    def folder(self) -> Path:
        """Where the set lies; a generated one is written first, if it is not there."""
        if self.source == "scenes":
            knobs = {"size": max(self.image_size), **self.options}
            return scenes("detection", root=self.root, **knobs)
        assert self.root is not None
        return existing_folder(self.root)

    @cached_property
    def _published(self) -> dict[str, BoxSet]:
        train, scored = self.splits
        sets = {split: self._read(split) for split in self.splits}
        if sets[train].class_names != sets[scored].class_names:
            raise DataError(
                f"{train} and {scored} must have the same classes, not "
                f"{sets[train].class_names} and {sets[scored].class_names}."
            )
        return sets

    def _read(self, split: str) -> BoxSet:
        if self.source == "voc":
            return read_voc(self.folder, split)
        if self.source == "visdrone":
            return read_visdrone(self.folder, split)
        if self.files is None:
            file, images = coco_files(self.folder, split)
        else:
            file, images = (self.folder / names[self.splits.index(split)] for names in self.files)
        return read_coco(file, images, masks=self.masks)

    @cached_property
    def _splits(self) -> dict[str, BoxSet]:
        """What is trained on (train) and scored on (val)."""
        train, scored = (self._published[split] for split in self.splits)
        if not self.holdout:
            return {"train": train, "val": scored}
        order = numpy_generator("holdout").permutation(len(train.images)).tolist()
        held = round(self.holdout * len(order))
        if not 0 < held < len(order):
            raise DataError(
                f"`holdout` (={self.holdout}) of {len(order)} training images leaves a side empty."
            )
        return {
            "train": train.subset(sorted(order[held:])),
            "val": train.subset(sorted(order[:held])),
        }

    @cached_property
    def _paths(self) -> list[Path]:
        images = [image for split in self.splits for image in self._published[split].images]
        return sorted({image.path for image in images})

    def prepare_data(self) -> None:
        """Write a generated set, or check every file of another; DataError says what is wrong."""
        train = len(self._splits["train"].images)
        if train < self.batch_size:
            raise DataError(
                f"`batch_size` (={self.batch_size}) must be at most the {train} images to train on."
            )
        if self.source != "scenes":
            faults = check_images(self.folder, self._paths).faults
            if faults:
                name, fault = next(iter(faults.items()))
                raise DataError(
                    f"{len(faults)} of {len(self._paths)} images are broken: {name} ({fault}), …"
                )

    def setup(self, stage: str) -> None:
        """Make the data sets."""
        module = None if self.trainer is None else self.trainer.lightning_module
        wanted = getattr(module, "num_classes", self.num_classes)
        if wanted != self.num_classes:
            raise DataError(
                f"`num_classes` (={wanted}) of the model must be the data's {self.num_classes}."
            )
        if getattr(module, "has_masks", False) and not self.masks:
            raise DataError("`masks` (=False) must be True for a head that predicts masks.")
        shared: dict[str, Any] = {
            "masks": self.masks,
            "turn": self.group_aspect,
            "seed": self.seed,
            "memory_mb": self.memory_mb,
        }
        self.train_set = BoxDataset(
            self._splits["train"],
            self.image_size,
            training=self.training,
            mosaic_share=self.mosaic,
            **shared,
        )
        self.val_set = BoxDataset(self._splits["val"], self.image_size, **shared)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Target]]:
        """Return the augmented training batches in the order of (seed, epoch)."""
        trainer = self.trainer
        order = EpochSampler(
            len(self.train_set),
            seed=self.seed,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
        )
        batches = AspectBatches(order, self.batch_size, self.train_set)
        return self._loader(self.train_set, batch_sampler=batches)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Target]]:
        """Return the scored images, in the order of the set; every W-th to each of W processes."""
        several = self.trainer is not None and self.trainer.world_size > 1
        sampler: DistributedSampler[Any] | None = (
            DistributedSampler(self.val_set, shuffle=False) if several else None
        )
        return self._loader(self.val_set, batch_size=self.eval_batch_size, sampler=sampler)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, Target]]:
        """Return the same as for validation."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[tuple[Tensor, Target]]:
        """Return the same as for validation."""
        return self.val_dataloader()

    def _loader(self, dataset: BoxDataset, **options: Any) -> DataLoader[tuple[Tensor, Target]]:
        return DataLoader(
            dataset,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=collate,
            **options,
        )

    def transfer_batch_to_device(self, batch: Batch, device: Any, dataloader_idx: int) -> Batch:
        """Move images and what is trained on; what is only scored stays where it is."""
        images, targets = batch
        moved = [
            {k: v.to(device) if isinstance(v, Tensor) else v for k, v in target.items()}
            for target in targets
        ]
        return images.to(device, non_blocking=True), moved

    def as_scored(self, image: Tensor) -> Tensor:
        """Return an image, uint8 (3, H, W), fitted to the frame as when scored, in 0…1."""
        height, width = image.shape[-2:]
        frame = self.image_size
        if self.group_aspect and (height > width) != (frame[0] > frame[1]):
            frame = frame[::-1]
        fitted = letterbox({"image": tv_tensors.Image(image)}, frame)["image"]
        pixels: Tensor = fitted.as_subclass(Tensor).float() / 255
        return pixels

    def describe(self) -> dict[str, Any]:
        """Return what a record says of its data: the fields of `bench.record.Data`."""
        options: dict[str, Any] = {"image_size": list(self.image_size), "masks": self.masks}
        if self.source == "scenes":
            written = manifest(self.folder)
            revision, files = written["revision"], written["files_sha256"]
            options |= dict(written["knobs"])
        else:
            hashes = check_images(self.folder, self._paths).hashes
            truth = [_truth(self._published[split]) for split in self.splits]
            files = digest([sorted(hashes.items()), truth])
            revision = files[:12]
        skipped: dict[str, int] = {}
        for boxes in self._published.values():
            for reason, count in boxes.skipped.items():
                skipped[reason] = skipped.get(reason, 0) + count
        return {
            "name": self.source if self.root is None or self.source == "scenes" else self.root.name,
            "revision": str(revision),
            "files_sha256": files,
            "split": f"holdout {self.holdout:g} of train" if self.holdout else self.splits[1],
            "train_samples": len(self._splits["train"].images),
            "scored_samples": len(self._splits["val"].images),
            "skipped": skipped,
            "options": options,
        }


def _truth(boxes: BoxSet) -> Sequence[Any]:
    """Everything that scores depend on, for the hash of a set."""
    rows = [
        [i.path.name, i.boxes.tolist(), i.labels.tolist(), i.crowd.tolist(), i.area.tolist()]
        for i in boxes.images
    ]
    return [list(boxes.class_names), rows]
