"""`scenes`: real digits on real photographs, one generator for all three tasks.

Cut-outs of handwritten digits are tinted, rotated, scaled and pasted, with occlusion, on crops of
dimmed photographs. Digits and regions of photographs are disjoint between training and
validation. An image is a function of (knobs, seed, split, index) alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.errors import require
from tasks.data.cache import cached
from tasks.data.digits import INK, digits
from tasks.data.opencv import cv2
from tasks.data.photos import crop
from tasks.data.writers import write_ade20k, write_class_folder, write_coco
from tasks.seeds import numpy_generator

REVISION = "1"
SPLITS = ("train", "val")
Task = Literal["classification", "detection", "segmentation"]
TASKS = ("classification", "detection", "segmentation")
ROTATION = 20.0
VISIBLE = 0.5
"""Share of an object's pixels that must be visible for it to count."""
SMALLEST_PIXELS = 6
T = TypeVar("T")


@dataclass(frozen=True)
class Scene:
    """An image (H, W, 3), and its objects from the lowest to the topmost.

    An object is its class, its visible pixels (H, W), and whether enough of it is visible to
    count.
    """

    image: NDArray[np.uint8]
    objects: tuple[tuple[int, NDArray[np.bool_], bool], ...]

    def mask(self) -> NDArray[np.uint8]:
        """Return labels (H, W): 0 ignored, 1 background, 2 + the digit's class."""
        labels = np.ones(self.image.shape[:2], dtype=np.uint8)
        for label, visible, counts in self.objects:
            labels[visible] = label + 2 if counts else 0
        return labels


@dataclass(frozen=True)
class Knobs:
    """What a set of scenes is a function of; see `scenes`."""

    task: Task
    size: int
    train: int
    val: int
    classes: int
    ratio: float
    largest: float
    contrast: float
    objects: tuple[int, int]
    seed: int

    def __post_init__(self) -> None:
        require("task", self.task, self.task in TASKS, f"one of {TASKS}")
        for name in ("size", "train", "val", "classes", "seed"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            require(name, value, whole and value >= 0, "an integer >= 0")
        require("size", self.size, 24 <= self.size <= 1024, "from 24 to 1024")
        require("classes", self.classes, 2 <= self.classes <= 10, "from 2 to 10")
        for name in ("train", "val"):
            value = getattr(self, name)
            require(name, value, value >= self.classes, f"at least `classes` (={self.classes})")
        require("largest", self.largest, 0.2 <= self.largest <= 0.9, "from 0.2 to 0.9")
        most = self.largest * self.size / SMALLEST_PIXELS
        rule = f"from 1 to {most:.1f}, so that digits have at least {SMALLEST_PIXELS} pixels"
        require("ratio", self.ratio, 1 <= self.ratio <= most, rule)
        require("contrast", self.contrast, 0 <= self.contrast <= 1, "from 0 to 1")
        low, high = self.objects
        require("objects", self.objects, 1 <= low <= high <= 20, "(least, most), from 1 to 20")


def scenes(
    task: Task,
    *,
    size: int = 64,
    train: int = 2000,
    val: int = 500,
    classes: int = 10,
    ratio: float = 2.0,
    largest: float = 0.625,
    contrast: float = 0.55,
    objects: tuple[int, int] = (1, 3),
    seed: int = 0,
    root: Path | str | None = None,
    workers: int = 1,
) -> Path:
    """Return the folder of a generated set, in the genuine format of its task.

    - classification: class folders `train/<digit>/*.png`, `val/<digit>/*.png`; one object each.
    - detection: COCO, `train/*.jpg`, `val/*.jpg`, `annotations/instances_{train,val}.json`.
    - segmentation: ADE20K's layout; class 1 is the background, 2… are the digits, and objects
      less than half visible are 0, ignored.

    Written once, to `root/scenes/<task>-<hash>`, with a manifest of all files.

    Args:
        task: "classification", "detection" or "segmentation".
        size: side of the images, in pixels.
        train: images for training.
        val: images for validation.
        classes: number of digits, 0 … classes − 1.
        ratio: largest over smallest digit; sizes are log-uniform. The knob of scale.
        largest: longest side of the largest digit, as a share of `size`.
        contrast: photos are dimmed to 1 − contrast of their brightness; less is harder.
        objects: least and most digits in an image; classification has one.
        seed: of the set.
        root: folder of all generated sets; None for the cache folder.
        workers: threads that draw; the images do not depend on it.

    Raises:
        ValueError: a knob out of its range, with argument, value and rule.
        DataError: the folder cannot be written, or a source is missing.
    """
    counts = (1, 1) if task == "classification" else (int(objects[0]), int(objects[1]))
    knobs = Knobs(
        task, size, train, val, classes, float(ratio), float(largest), float(contrast), counts, seed
    )
    require("workers", workers, workers >= 1, ">= 1")

    def write(folder: Path) -> None:
        for split in SPLITS:
            _write(folder, split, knobs, workers)

    return cached("scenes", REVISION, asdict(knobs), write, root)


def render(knobs: Knobs, split: str, index: int) -> Scene:
    """Draw one scene.

    Example:
        >>> knobs = Knobs("segmentation", 64, 10, 10, 5, 2.0, 0.625, 0.55, (1, 3), 0)
        >>> scene = render(knobs, "val", 3)
        >>> scene.image.shape, scene.mask().shape, 1 <= len(scene.objects) <= 3
        ((64, 64, 3), (64, 64), True)
    """
    rng = numpy_generator("scenes", knobs.seed, split, index)
    canvas = crop(rng, split, knobs.size).astype(np.float32) * (1 - knobs.contrast)
    stock = digits(split)
    pasted: list[tuple[int, NDArray[np.bool_]]] = []
    for _ in range(rng.integers(knobs.objects[0], knobs.objects[1] + 1)):
        # Classes take turns, so that every class is in every split.
        label = int(index % knobs.classes if not pasted else rng.integers(knobs.classes))
        of_class = stock[label]
        ink = _placed(rng, of_class[rng.integers(len(of_class))], knobs)
        tint = rng.uniform(0.6, 1, 3).astype(np.float32) * 255
        alpha = (ink.astype(np.float32) / 255)[..., None]
        canvas += alpha * (tint - canvas)
        pasted.append((label, ink > INK))
    image = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return Scene(image, tuple(_occluded(pasted)))


def _placed(rng: np.random.Generator, digit: NDArray[np.uint8], knobs: Knobs) -> NDArray[np.uint8]:
    """Rotate, scale and move a digit onto an empty (size, size) map, wholly inside."""
    longest = knobs.largest * knobs.size * knobs.ratio ** -rng.uniform(0, 1)
    angle = np.deg2rad(rng.uniform(-ROTATION, ROTATION))
    height, width = digit.shape
    scale = longest / max(height, width)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    reach = np.abs(turn) @ (np.array([width, height]) / 2)
    room = np.maximum(knobs.size / 2 - reach, 0)
    middle = (knobs.size - 1) / 2 + rng.uniform(-room, room)
    shift = middle - turn @ (np.array([width - 1, height - 1]) / 2)
    matrix = np.concatenate([turn, shift[:, None]], axis=1)
    return np.asarray(
        cv2.warpAffine(digit, matrix, (knobs.size, knobs.size), flags=cv2.INTER_LINEAR),
        dtype=np.uint8,
    )


def _occluded(
    pasted: list[tuple[int, NDArray[np.bool_]]],
) -> Iterator[tuple[int, NDArray[np.bool_], bool]]:
    for position, (label, ink) in enumerate(pasted):
        visible = ink.copy()
        for _, above in pasted[position + 1 :]:
            visible &= ~above
        yield label, visible, bool(visible.sum() >= VISIBLE * ink.sum() > 0)


def _write(folder: Path, split: str, knobs: Knobs, workers: int) -> None:
    count = knobs.train if split == "train" else knobs.val
    names = [str(digit) for digit in range(knobs.classes)]
    drawn = drawn_in_order(partial(render, knobs, split), count, workers)
    if knobs.task == "classification":
        write_class_folder(folder / split, names, ((s.image, s.objects[0][0]) for s in drawn))
    elif knobs.task == "detection":
        counted = ((s.image, [(k, seen) for k, seen, ok in s.objects if ok]) for s in drawn)
        write_coco(folder, split, names, counted)
    else:
        write_ade20k(folder, split, ["background", *names], ((s.image, s.mask()) for s in drawn))


def drawn_in_order(draw: Callable[[int], T], count: int, workers: int) -> Iterator[T]:
    """Draw the images 0 … count − 1 in `workers` threads, and yield them in order."""
    if workers == 1:
        yield from map(draw, range(count))
        return
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, count, 64 * workers):
            yield from pool.map(draw, range(start, min(count, start + 64 * workers)))
