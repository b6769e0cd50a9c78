"""The pose data module: COCO's files of key points, read and augmented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import require
from tasks.data.images import read_image
from tasks.data.module import height_width
from tasks.data.sources import GENERATORS
from tasks.detection.boxes import checked
from tasks.detection.object_data import ObjectData
from tasks.layouts.coco import coco_files, named_files
from tasks.pose.coco import read_keypoints
from tasks.pose.dataset import PoseDataset, collate
from tasks.pose.names import mirrored, sigmas_of, tells_sides
from tasks.pose.poses import PoseSet, labelled, same_points, with_figures
from tasks.pose.transforms import Augmentation

KIND = "person_keypoints"
"""Of COCO's files."""
UNTOLD = "set whose names tell no left from right: mirror images keep every key point"


class PoseData(ObjectData[PoseSet]):
    """Images with figures and their key points, in training and in validation.

    Images are fitted to `image_size`, the aspect ratio kept, and padded black at the right and
    below. In training they are scaled, turned, cropped, mirrored (a left hand becomes a right
    one, by the names of the key points) and changed in colour at random; the augmentation is a
    function of (seed, epoch, image) alone. Predictions are scored in the pixels of the files.

    Batches are (images (N, 3, H, W) floats in 0…1, list of N targets); see
    `tasks.pose.dataset.PoseDataset`. The classes are the key points.

    Args:
        source: "figures" (generated) or "coco".
        root: the folder of the set; of all generated sets for "figures".
        image_size: side, or (height, width), in pixels.
        batch_size: images per training batch; a last, smaller batch is left out.
        eval_batch_size: images per validation batch; None for `batch_size`.
        annotations: for "coco": files of training and validation, below `root`, in place of
            those of COCO's layout; with `val_share` the first alone is read.
        images: for "coco": folders of the images of both.
        scored: for "coco": the split that is scored, "val" or "test".
        empty_images: whether images without any figure are trained on.
        scale: range of a random factor of the size; above 1 the image is cropped.
        rotate: largest random turn to either side, in degrees.
        flip: chance of a mirror image.
        photometric: whether colours are changed.
        sigmas: of each key point, how far from it still counts, as a share of the root of a
            figure's area; None for COCO's where its names are COCO's, else 0.05.
        options: knobs of `tasks.data.figures`, e.g. {"train": 500}; its size is `image_size`,
            unless given.
        **loading: num_workers, memory_mb, holdout, val_share, max_skipped, seed: see
            `TaskData`.

    Raises:
        ValueError: a value out of its range.
        DataError: in `prepare_data`, before training: missing or unreadable files, annotations
            that contradict each other.
    """

    collate = staticmethod(collate)
    task: ClassVar[str] = "pose"
    sources: ClassVar[tuple[str, ...]] = ("figures", "coco")
    of_any_splits: ClassVar[tuple[str, ...]] = ("coco",)

    def __init__(
        self,
        source: Literal["figures", "coco"] = "figures",
        root: str | None = None,
        *,
        image_size: int | tuple[int, int] = 64,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        annotations: tuple[str, str] | None = None,
        images: tuple[str, str] | None = None,
        scored: Literal["val", "test"] = "val",
        empty_images: bool = True,
        scale: tuple[float, float] = (1.0, 1.0),
        rotate: float = 0.0,
        flip: float = 0.5,
        photometric: bool = False,
        sigmas: tuple[float, ...] | None = None,
        options: dict[str, Any] | None = None,
        **loading: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, **loading)
        self._take_from(source, root, annotations, images, scored, options)
        size = height_width(image_size)
        require("image_size", image_size, min(size) >= 8, ">= 8")
        require("scale", scale, 0 < scale[0] <= scale[1], "0 < smallest <= largest")
        require("rotate", rotate, 0 <= rotate <= 180, "in [0, 180]")
        require("flip", flip, 0 <= flip <= 1, "in [0, 1]")
        positive = sigmas is None or (len(sigmas) > 0 and min(sigmas) > 0)
        require("sigmas", sigmas, positive, "numbers > 0, one per key point, or None")
        self.image_size = size
        self.empty_images = empty_images
        self.scale = (float(scale[0]), float(scale[1]))
        self.rotate = rotate
        self.flip = flip
        self.photometric = photometric
        self.given_sigmas = sigmas

    @property
    def skeleton(self) -> tuple[tuple[int, int], ...]:
        """Pairs of key points, by place, that lines join in drawings."""
        return self._published["train"].skeleton

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Of each key point, how far from it still counts."""
        names = self.class_names
        if self.given_sigmas is None:
            return sigmas_of(names)
        fits = len(self.given_sigmas) == len(names)
        require("sigmas", self.given_sigmas, fits, f"{len(names)} numbers, one per key point")
        return tuple(float(sigma) for sigma in self.given_sigmas)

    @cached_property
    def _checked(self) -> tuple[dict[str, PoseSet], dict[str, str]]:
        """The published splits, with what is wrong told or mended, and the hashes of their files.

        What was generated here needs no check.
        """
        if self.val_share:
            sets = self._drawn(self.val_share)
        else:
            sets = {split: self._read(split) for split in ("train", self.scored)}
            same_points(sets["train"], sets[self.scored], self.scored)
        if not self.empty_images:
            sets["train"] = with_figures(sets["train"])
        if self.source in GENERATORS:
            return sets, {}
        if self.flip and not tells_sides(sets["train"].class_names):
            train = sets["train"]
            sets["train"] = replace(train, skipped=train.skipped | {UNTOLD: 1})
        return checked(sets, self.folder, self.max_skipped)

    def has_split(self, split: str) -> bool:
        """Say whether the files of a set, where none are named, tell of a split."""
        return named_files(self.folder, split, KIND) is not None

    def strata(self, whole: PoseSet) -> NDArray[np.int64]:
        """Return what each image is, by which a part is drawn or held out alike."""
        posed = [int((~image.unlearnt).any()) for image in whole.images]
        return np.array(posed, dtype=np.int64)

    def _read(self, split: str) -> PoseSet:
        if self.files is None:
            file, images = coco_files(self.folder, split, KIND)
        else:
            file, images = (self.folder / names[split != "train"] for names in self.files)
        return read_keypoints(file, images)

    def check_files(self) -> None:
        """Check every image that is not generated: opening the set does."""
        _ = self._checked, self.sigmas

    def datasets(self) -> tuple[PoseDataset, PoseDataset]:
        """Return what is trained on, augmented, and what is scored."""
        shared: dict[str, Any] = {"seed": self.seed, "memory_mb": self.memory_mb}
        train, scored = self._splits
        augmentation = Augmentation(
            mirrored(self.class_names), self.scale, self.rotate, self.flip, self.photometric
        )
        return (
            PoseDataset(train, self.image_size, augmentation=augmentation, **shared),
            PoseDataset(scored, self.image_size, **shared),
        )

    def example(self, split: str, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return an image of a split as it is read, its `keypoints` (n, K, 3), and `skeleton`."""
        image = self._part(split).images[index]
        points = torch.from_numpy(image.points[~image.unlearnt])
        return read_image(image.path, upright=image.upright), {
            "keypoints": points,
            "skeleton": torch.tensor(self.skeleton, dtype=torch.int64).reshape(-1, 2),
        }

    def class_counts(self, split: str) -> dict[str, int]:
        """Return key point → number of figures in a split that have it."""
        counts = labelled(self._part(split)).tolist()
        return dict(zip(self.class_names, counts, strict=True))

    def known_options(self) -> dict[str, Any]:
        """Return what scores depend on beside the files."""
        return {"image_size": list(self.image_size), "sigmas": list(self.sigmas)}

    def truth(self, part: PoseSet) -> Sequence[Any]:
        """Return everything in a split that scores depend on, for the hash of a set."""
        rows = [
            [i.path.name, i.points.tolist(), i.boxes.tolist(), i.crowd.tolist(), i.area.tolist()]
            for i in part.images
        ]
        return [list(part.class_names), rows]
