"""Labelled images of a split, and a source of two splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import DataError
from bench.hashing import files_digest
from tasks.data.checked import fault_of, trained_too
from tasks.data.faults import some
from tasks.data.images import read_image
from tasks.data.lists import require_class_names


@dataclass(frozen=True)
class Labelled:
    """Labelled images of one split.

    Attributes:
        load: index → uint8 (3, H, W), its short side at most the given pixels where it is shrunk.
        labels: from 0, one per image.
        class_names: by label.
        hashes: file → SHA-256.
        skipped: reason → number of files left out.
    """

    load: Callable[[int, int], Tensor]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    hashes: dict[str, str]
    skipped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Source:
    """A training split, a scored split, and what they are known by."""

    name: str
    revision: str
    train: Labelled
    scored: Labelled

    @property
    def files_sha256(self) -> str:
        """One hash over all files of both splits."""
        return files_digest({**self.train.hashes, **self.scored.hashes})

    @property
    def skipped(self) -> dict[str, int]:
        """Reason → files left out of either split."""
        reasons = sorted({*self.train.skipped, *self.scored.skipped})
        return {r: self.train.skipped.get(r, 0) + self.scored.skipped.get(r, 0) for r in reasons}


def told_overlap(train: Labelled, scored: Labelled) -> Labelled:
    """Return a scored split that tells how many of its files are trained on too."""
    told = trained_too(train.hashes.values(), scored.hashes.values())
    return replace(scored, skipped=scored.skipped | told)


def from_array(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    class_names: tuple[str, ...],
    hashes: dict[str, str],
) -> Labelled:
    """Return decoded images, grey (N, H, W) or RGB (N, H, W, 3) or (N, 3, H, W), as a split."""
    tensor = torch.from_numpy(np.array(images))
    if tensor.ndim == 3:
        # Expanded, not repeated: the three channels share their memory.
        tensor = tensor[:, None].expand(-1, 3, -1, -1)
    elif tensor.shape[-1] == 3:
        tensor = tensor.permute(0, 3, 1, 2)
    return Labelled(partial(_of_array, tensor), labels, class_names, hashes)


def _of_array(images: Tensor, index: int, short_side: int) -> Tensor:
    return images[index]


def from_files(
    paths: Sequence[Path],
    labels: NDArray[np.int64],
    class_names: tuple[str, ...],
    hashes: dict[str, str],
    skipped: dict[str, int] | None = None,
) -> Labelled:
    """Return image files as a split."""
    return Labelled(
        partial(_of_files, tuple(paths)), labels, class_names, hashes, dict(skipped or {})
    )


def _of_files(paths: tuple[Path, ...], index: int, short_side: int) -> Tensor:
    try:
        return read_image(paths[index], short_side)
    except Exception as error:
        raise DataError(
            f"{paths[index]} has changed since it was checked: {fault_of(error)} ({error})"
        ) from None


def require_labels(
    labels: NDArray[np.int64], class_names: Sequence[str], images: int, source: str
) -> None:
    """DataError unless there is a label for every image, and a name for every label."""
    require_class_names(class_names, source)
    if labels.shape != (images,):
        raise DataError(f"{source} must hold as many labels as images: {labels.shape}, {images}.")
    wrong = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if wrong.size:
        raise DataError(
            f"image {wrong[0]} of {source}: `label` (={labels[wrong[0]]}) must be from 0 to "
            f"{len(class_names) - 1}; {wrong.size} labels are not."
        )


def require_all_classes(train: Labelled, scored: Labelled) -> None:
    """DataError unless every class has an image in both splits."""
    for part, where in ((train, "training"), (scored, "scored")):
        missing = sorted(set(range(len(part.class_names))) - set(part.labels.tolist()))
        if missing:
            names = some([part.class_names[label] for label in missing])
            raise DataError(
                f"{len(missing)} class(es) have no image in the {where} split: {names}."
            )


def revision(*splits: Labelled) -> str:
    """Return a short name of the files' content, for a set that has no version of its own."""
    return files_digest({k: v for split in splits for k, v in split.hashes.items()})[:12]
