"""The detection data module: several layouts on disk, one way of reading and augmenting them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import DataError, require
from tasks.data.images import read_image
from tasks.data.module import height_width
from tasks.data.order import AspectSampler
from tasks.data.sources import GENERATORS
from tasks.detection.boxes import (
    BoxSet,
    checked,
    object_counts,
    rarest_labels,
    renumbered,
    told_unlearnt,
)
from tasks.detection.coco import read_coco
from tasks.detection.dataset import BoxDataset, collate
from tasks.detection.object_data import ObjectData
from tasks.detection.transforms import Augmentation, is_turned
from tasks.detection.visdrone import read_visdrone
from tasks.detection.voc import read_voc
from tasks.detection.xml_folders import read_xml_folders
from tasks.detection.yolo import read_yolo
from tasks.layouts.coco import coco_files, named_files
from tasks.layouts.xml_folders import xml_files
from tasks.layouts.yolo import read_layout

REGIONS = "region to ignore"


class DetectionData(ObjectData[BoxSet]):
    """Images with boxes (and masks), in training and in validation.

    Images are fitted to `image_size`, the aspect ratio kept, and padded black at the right and
    below. In training they are scaled, cropped, mirrored and changed in colour at random; the
    augmentation is a function of (seed, epoch, image) alone, whatever the number of workers.
    Predictions are scored in the pixels of the files, with the areas of the annotations.

    Batches are (images (N, 3, H, W) floats in 0…1, list of N targets); see
    `tasks.detection.dataset.BoxDataset`.

    Args:
        source: "scenes" (generated), "coco", "voc", "visdrone", "yolo" or "xml" (files as
            VOC's, with classes of their own).
        root: the folder of the set; of all generated sets for "scenes".
        image_size: side, or (height, width), in pixels.
        batch_size: images per training batch; a last, smaller batch is left out.
        eval_batch_size: images per validation batch; None for `batch_size`.
        annotations: for "coco": files of training and validation, below `root`, in place of
            those of COCO's layout; with `val_share` the first alone is read.
        images: for "coco": folders of the images of both.
        scored: for "coco", "yolo" and "xml": the split that is scored, "val" or "test".
        scale: range of a random factor of the size; above 1 the image is cropped.
        flip: chance of a mirror image.
        photometric: whether colours are changed.
        mosaic: chance of a mosaic of four images (of YOLOv4, as YOLOX and RTMDet train).
        masks: whether to load masks, which heads with masks need.
        group_aspect: whether standing images are fitted to (width, height), and batches are of
            one kind.
        options: knobs of `tasks.data.scenes`, e.g. {"train": 500}; its size is `image_size`,
            unless given.
        **loading: num_workers, memory_mb, holdout, val_share, max_skipped, seed: see
            `TaskData`.

    Raises:
        ValueError: a value out of its range.
        DataError: in `prepare_data`, before training: missing or unreadable files, annotations
            that contradict each other.
    """

    collate = staticmethod(collate)
    task: ClassVar[str] = "detection"
    sources: ClassVar[tuple[str, ...]] = ("scenes", "coco", "voc", "visdrone", "yolo", "xml")
    of_any_splits: ClassVar[tuple[str, ...]] = ("coco", "yolo", "xml")

    def __init__(
        self,
        source: Literal["scenes", "coco", "voc", "visdrone", "yolo", "xml"] = "scenes",
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
        **loading: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, **loading)
        self._take_from(source, root, annotations, images, scored, options)
        without = source in ("voc", "visdrone", "yolo", "xml")
        require("masks", masks, not (masks and without), f"False for `source` (={source!r})")
        size = height_width(image_size)
        require("image_size", image_size, min(size) >= 8, ">= 8")
        require("scale", scale, 0 < scale[0] <= scale[1], "0 < smallest <= largest")
        require("flip", flip, 0 <= flip <= 1, "in [0, 1]")
        require("mosaic", mosaic, 0 <= mosaic <= 1, "in [0, 1]")
        self.image_size = size
        self.augmentation = Augmentation((float(scale[0]), float(scale[1])), flip, photometric)
        self.mosaic = mosaic
        self.masks = masks
        self.group_aspect = group_aspect

    @cached_property
    def _checked(self) -> tuple[dict[str, BoxSet], dict[str, str]]:
        """The published splits, with what is wrong told or mended, and the hashes of their files.

        What was generated here needs no check.
        """
        if self.val_share:
            sets = self._drawn(self.val_share)
        else:
            sets = {split: self._read(split) for split in ("train", self.scored)}
            sets[self.scored] = renumbered(
                sets[self.scored], sets["train"].class_names, self.scored
            )
        if self.source in GENERATORS:
            return sets, {}
        sets["train"] = told_unlearnt(sets["train"])
        return checked(sets, self.folder, self.max_skipped)

    def has_split(self, split: str) -> bool:
        """Say whether the files of a set, where none are named, tell of a split."""
        if self.source == "yolo":
            return bool(read_layout(self.folder).splits.get(split))
        if self.source == "xml":
            return bool(xml_files(self.folder, split))
        return named_files(self.folder, split) is not None

    def strata(self, whole: BoxSet) -> NDArray[np.int64]:
        """Return what each image is, by which a part is drawn or held out alike."""
        return rarest_labels(whole)

    def _read(self, split: str) -> BoxSet:
        if self.source == "voc":
            return read_voc(self.folder, split)
        if self.source == "visdrone":
            return read_visdrone(self.folder, split)
        if self.source == "yolo":
            return read_yolo(self.folder, split)
        if self.source == "xml":
            whole = None if self.val_share else split
            return read_xml_folders(self.folder, whole, self.max_skipped)
        if self.files is None:
            file, images = coco_files(self.folder, split)
        else:
            file, images = (self.folder / names[split != "train"] for names in self.files)
        return read_coco(file, images, masks=self.masks)

    def check_files(self) -> None:
        """Check every image that is not generated: opening the set does."""
        _ = self._checked

    def setup(self, stage: str) -> None:
        """Check that the model fits, and make the data sets."""
        module = None if self.trainer is None else self.trainer.lightning_module
        if getattr(module, "has_masks", False) and not self.masks:
            raise DataError("`masks` (=False) must be True for a head that predicts masks.")
        super().setup(stage)

    def datasets(self) -> tuple[BoxDataset, BoxDataset]:
        """Return what is trained on, augmented, and what is scored."""
        shared: dict[str, Any] = {
            "masks": self.masks,
            "turn": self.group_aspect,
            "seed": self.seed,
            "memory_mb": self.memory_mb,
        }
        train, scored = self._splits
        return (
            BoxDataset(
                train,
                self.image_size,
                augmentation=self.augmentation,
                mosaic_share=self.mosaic,
                **shared,
            ),
            BoxDataset(scored, self.image_size, **shared),
        )

    def sampler(self, **order: int) -> AspectSampler:
        """Return the order of training, in which batches are of one aspect where asked for."""
        upright = [self.train_set.upright(index) for index in range(len(self.train_set))]
        return AspectSampler(upright, self.batch_size, **order)

    def example(self, split: str, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return an image of a split as it is read, and its `boxes` and `labels`."""
        image = self._part(split).images[index]
        return read_image(image.path, upright=image.upright), {
            "boxes": torch.from_numpy(image.boxes),
            "labels": torch.from_numpy(image.labels),
        }

    def class_counts(self, split: str) -> dict[str, int]:
        """Return class → number of its objects in a split; regions to ignore apart, if any."""
        part = self._part(split)
        counts = dict(zip(self.class_names, object_counts(part).tolist(), strict=True))
        # One that is to be ignored for several classes is listed for each.
        regions = sum(len(np.unique(i.boxes[i.crowd], axis=0)) for i in part.images)
        return counts | ({REGIONS: regions} if regions else {})

    def frame(self, size: Sequence[int]) -> tuple[int, int]:
        """Return the (height, width) that an image of a size is fitted to."""
        turned = self.group_aspect and is_turned(size, self.image_size)
        return self.image_size[::-1] if turned else self.image_size

    def known_options(self) -> dict[str, Any]:
        """Return what scores depend on beside the files."""
        return {"image_size": list(self.image_size), "masks": self.masks}

    def truth(self, part: BoxSet) -> Sequence[Any]:
        """Return everything in a split that scores depend on, for the hash of a set."""
        rows = [
            [i.path.name, i.boxes.tolist(), i.labels.tolist(), i.crowd.tolist(), i.area.tolist()]
            for i in part.images
        ]
        outlines = [[list(i.segmentations or ()) for i in part.images]] if self.masks else []
        return [list(part.class_names), rows, *outlines]
