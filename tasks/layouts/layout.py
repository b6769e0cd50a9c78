"""What was recognised of a set of images: its task, format, classes and splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median_low
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.errors import DataError, require
from tasks.data.images import image_size

Task = Literal["classification", "detection", "segmentation", "pose"]
TASKS: tuple[Task, ...] = ("classification", "detection", "segmentation", "pose")
VAL_SHARE = 0.2
"""Share of a set without splits that is drawn to be scored."""
MOST_SIZES = 64


@dataclass(frozen=True)
class Layout:
    """A set of images, as its files show it.

    Attributes:
        task: which it can train.
        format: in the words of its sentence.
        folder: where it lies.
        data: the part `data` of a suite's task: `class_path` and `init_args`. Its `root` is the
            folder's name: the folder above is what `--data` must name.
        class_names: in the order of the labels.
        counts: split → number of images; "train" first, then the one that is scored.
        sizes: (height, width), upright, of up to 64 training images.
        oddities: what the listing and the annotations show → number; the data module counts all.
        has_poses: whether its objects have key points, of which the task makes no use.
    """

    task: Task
    format: str
    folder: Path
    data: dict[str, Any]
    class_names: tuple[str, ...]
    counts: dict[str, int]
    sizes: tuple[tuple[int, int], ...]
    oddities: dict[str, int] = field(default_factory=dict)
    has_poses: bool = False

    def allowing(self, max_skipped: float | None) -> Layout:
        """Return the layout with a share of images that may be unreadable; None leaves it."""
        if max_skipped is None:
            return self
        require("--max-skipped", max_skipped, 0 <= max_skipped < 1, "in [0, 1)")
        arguments = self.data["init_args"] | {"max_skipped": max_skipped}
        return replace(self, data=self.data | {"init_args": arguments})

    @property
    def num_classes(self) -> int:
        """Number of classes; an ignored one is none."""
        return len(self.class_names)

    @property
    def scored(self) -> str:
        """The split that is scored."""
        scored: str = self.data["init_args"].get("scored", "val")
        return scored

    @property
    def held_out(self) -> bool:
        """Whether the set has no split to score, so that one is drawn."""
        return bool(self.data["init_args"].get("val_share"))

    @property
    def typical_size(self) -> tuple[int, int]:
        """Medians of height and width, in pixels."""
        return (
            median_low(height for height, _ in self.sizes),
            median_low(width for _, width in self.sizes),
        )

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        pair = f"{self.counts['train']} + {self.counts[self.scored]} images"
        if self.held_out:
            pair += " (no split of its own: the second are drawn, always the same)"
        elif self.scored != "val":
            pair += f" (scored on {self.scored})"
        one, several = ("key point", "key points") if self.task == "pose" else ("class", "classes")
        classes = f"{self.num_classes} {one if self.num_classes == 1 else several}"
        more = " (and key points, for `--task pose`)" if self.has_poses else ""
        return f"{self.task}: {self.format}, {pair}, {classes}{more}"


def data_of(task: Task, source: str, folder: Path, **more: Any) -> dict[str, Any]:
    """Return the part `data` of a suite's task; what is None is left out."""
    arguments = {"source": source, "root": folder.name, **more}
    given = {name: value for name, value in arguments.items() if value is not None}
    return {"class_path": f"tasks.{task.capitalize()}Data", "init_args": given}


def scoring(splits: Mapping[str, object]) -> dict[str, Any]:
    """Return the arguments by which a set with these splits is scored: "val", "test", or drawn.

    Example:
        >>> scoring({"train": 1, "test": 2}), scoring({"train": 1}), scoring({"train": 1, "val": 1})
        ({'scored': 'test'}, {'val_share': 0.2}, {})
    """
    if "val" in splits:
        return {}
    return {"scored": "test"} if "test" in splits else {"val_share": VAL_SHARE}


def after_draw(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts of a set, about, once its scored split is drawn where it has none."""
    if "val" in counts or "test" in counts:
        return dict(counts)
    drawn = round(VAL_SHARE * counts["train"])
    return {"train": counts["train"] - drawn, "val": drawn}


def evenly(paths: Sequence[Path], most: int) -> list[Path]:
    """Return at most so many of the paths, evenly spaced.

    Example:
        >>> [path.name for path in evenly([Path(name) for name in "abcdef"], 3)]
        ['a', 'c', 'e']
    """
    count = min(most, len(paths))
    return [paths[i * len(paths) // count] for i in range(count)]


def sizes_of(paths: Sequence[Path]) -> tuple[tuple[int, int], ...]:
    """Return (height, width) of some of the images, out of their heads; damaged ones are left out.

    Raises:
        DataError: none can be read.
    """
    sizes = []
    for path in evenly(paths, MOST_SIZES):
        try:
            sizes.append(image_size(path))
        except DataError as error:
            fault = error
    if not sizes:
        raise DataError(f"no image can be read: {fault}" if paths else "There are no images.")
    return tuple(sizes)


def stored_mask(path: Path) -> NDArray[Any] | None:
    """Return what a mask holds as it is stored; None if it can't be read.

    Whatever is wrong with it, the check before training tells it.
    """
    try:
        with Image.open(path) as image:
            return np.array(image)
    except Exception:
        return None
