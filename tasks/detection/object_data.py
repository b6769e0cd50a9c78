"""What data of boxes share, and of boxes with more: splits, hold-out, what a set is known by."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors

from bench.errors import UserError, require
from bench.hashing import digest
from tasks.data.holdout import held_out
from tasks.data.module import TaskData
from tasks.data.sources import (
    GENERATORS,
    check_source,
    drawn,
    folder_of,
    generated_identity,
    require_drawable,
    require_undivided,
)
from tasks.detection.boxes import Boxes
from tasks.detection.transforms import fitted_size, letterbox

Batch = tuple[Tensor, list[dict[str, Any]]]


class ObjectData(TaskData, Generic[Boxes]):
    """Images with objects, as annotation files say them.

    Attributes:
        source: where the set is from.
        root: its folder; None for what is generated.
        scored: the split that is scored, where nothing is held out.
        files: those of annotations and the folders of images, of training and scoring; None
            where the source finds them itself.
        image_size: height and width of what the network sees.
        options: knobs of the generator.
        task: for which a set is generated.
        sources: names of them.
        of_any_splits: those whose sets may have any splits, or none.
    """

    source: str
    root: str | None
    scored: str
    files: tuple[tuple[str, ...], tuple[str, ...]] | None
    image_size: tuple[int, int]
    options: dict[str, Any]
    task: ClassVar[str]
    sources: ClassVar[tuple[str, ...]]
    of_any_splits: ClassVar[tuple[str, ...]]

    def _take_from(
        self,
        source: str,
        root: str | None,
        annotations: tuple[str, str] | None,
        images: tuple[str, str] | None,
        scored: str,
        options: Mapping[str, Any] | None,
    ) -> None:
        """Note where the set is from; UserError unless its parts fit together."""
        check_source(source, self.sources, root, options or {})
        if (annotations is None) != (images is None) or (annotations and source != "coco"):
            raise UserError(
                f"`annotations` (={annotations}) and `images` (={images}) must be given together, "
                "and for `source` 'coco'."
            )
        splits = ("val", "test") if source in self.of_any_splits else ("val",)
        require("scored", scored, scored in splits, f"one of {splits} for `source` (={source!r})")
        require_drawable(self.val_share, source, scored, self.of_any_splits)
        self.source, self.root, self.scored = source, root, scored
        self.files = None if annotations is None else (tuple(annotations), tuple(images or ()))
        self.options = dict(options or {})

    @cached_property
    def folder(self) -> Path:
        """Where the set lies; a generated one is written first, if it is not there."""
        size = max(self.image_size)
        return folder_of(self.source, self.task, self.root, size, self.options)

    @property
    @abstractmethod
    def _checked(self) -> tuple[dict[str, Boxes], dict[str, str]]:
        """The published splits, with what is wrong told or mended, and the hashes of their files.

        What was generated here needs no check.
        """

    @abstractmethod
    def known_options(self) -> dict[str, Any]:
        """Return what scores depend on beside the files."""

    @abstractmethod
    def truth(self, part: Boxes) -> Sequence[Any]:
        """Return everything in a split that scores depend on, for the hash of a set."""

    @abstractmethod
    def _read(self, split: str) -> Boxes:
        """Read a published split; of a set without splits "train" is the whole."""

    @abstractmethod
    def has_split(self, split: str) -> bool:
        """Say whether the files of a set, where none are named, tell of a split."""

    @abstractmethod
    def strata(self, whole: Boxes) -> NDArray[np.int64]:
        """Return what each image is, by which a part is drawn or held out alike."""

    def _drawn(self, share: float) -> dict[str, Boxes]:
        """A set without splits, of which the validation split is drawn."""
        divided = self.files is None and all(map(self.has_split, ("train", "val")))
        require_undivided(share, self.folder, divided)
        whole = self._read("train")
        return drawn(whole, self.strata(whole), share)

    @property
    def _published(self) -> dict[str, Boxes]:
        return self._checked[0]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels; of a pose, of its key points."""
        return self._published["train"].class_names

    @cached_property
    def _splits(self) -> tuple[Boxes, Boxes]:
        """What is trained on and what is scored."""
        train = self._published["train"]
        if not self.holdout:
            return train, self._published[self.scored]
        trained, held = held_out(self.strata(train), self.holdout)
        return train.subset(trained.tolist()), train.subset(held.tolist())

    def _part(self, split: str) -> Boxes:
        """Return what is trained on, for "train", or what is scored."""
        return self._splits[split != "train"]

    @property
    def split_sizes(self) -> tuple[int, int]:
        """Numbers of images that are trained on and scored."""
        train, scored = self._splits
        return len(train.images), len(scored.images)

    def frame(self, size: Sequence[int]) -> tuple[int, int]:
        """Return the (height, width) that an image of a size is fitted to."""
        return self.image_size

    def scored_size(self, image: Tensor) -> tuple[int, int]:
        """Return (height, width) of what `as_scored` shows of an image, without padding."""
        height, width = image.shape[-2:]
        return fitted_size((height, width), self.frame((height, width)))

    def as_scored(self, image: Tensor) -> Tensor:
        """Return an image, uint8 (3, H, W), fitted and padded as when scored, in 0…1."""
        height, width = self.frame(image.shape[-2:])
        fitted = letterbox({"image": tv_tensors.Image(image)}, (height, width))["image"]
        pixels = fitted.as_subclass(Tensor).float() / 255
        return F.pad(pixels, (0, width - pixels.shape[2], 0, height - pixels.shape[1]))

    def transfer_batch_to_device(self, batch: Batch, device: Any, dataloader_idx: int) -> Batch:
        """Move images and what is trained on; what is only scored stays where it is."""
        images, targets = batch
        moved = [
            {k: v.to(device) if isinstance(v, Tensor) else v for k, v in target.items()}
            for target in targets
        ]
        return images.to(device, non_blocking=True), moved

    def identity(self) -> dict[str, Any]:
        """Return what the set is known by: images, and all of the annotations that counts."""
        options = self.known_options()
        if self.source in GENERATORS:
            generated = generated_identity(self.source, self.folder)
            return generated | {"options": options | generated["options"]}
        parts = self._published.values()
        files = digest([sorted(self._checked[1].items()), [self.truth(part) for part in parts]])
        skipped: Counter[str] = Counter()
        for part in parts:
            skipped.update(part.skipped)
        return {
            "name": Path(self.root or self.source).name,
            "revision": files[:12],
            "files_sha256": files,
            "skipped": dict(skipped),
            "options": options,
        }
