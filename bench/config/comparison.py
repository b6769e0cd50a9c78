"""A suite for a network and a set of images of one's own: what `convboard compare` writes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.layouts import Layout

OPERATORS = ("parc", "shift", "acb", "unireplk", "icconv")
SEEDS = (0, 1)
HOST = "host"
"""Label of the baseline: the network as it is."""


@dataclass(frozen=True)
class Usual:
    """What is usual for a task: how much is seen in training, in what batches, how large.

    Attributes:
        samples: images seen in a training from fresh weights; a third of it from trained ones.
        batch: images per training batch.
        cpu_side: longest side of the images in pixels, where there is no GPU.
        gpu_side: the same with one.
    """

    samples: int
    batch: int
    cpu_side: int
    gpu_side: int


USUAL = {
    "classification": Usual(60_000, 32, 96, 224),
    "detection": Usual(12_000, 8, 320, 640),
    "segmentation": Usual(12_000, 8, 160, 512),
    "pose": Usual(24_000, 8, 256, 512),
}
STEP = 32
"""Sides are multiples of it, so that maps at every stride are whole."""
FEWEST_EPOCHS, MOST_EPOCHS = 5, 100
ROUNDS = 3
"""Seeds of all arms that a budget is to hold: with fewer a board seldom decides."""
START_S, DEARER = 10, 1.5
"""Seconds that a cell takes beside its epochs, and how much more an epoch of an arm takes than of
the host as it is: what is usual."""
LR = {"fresh": 1e-3, "trained": 3e-4}


def epochs_for(task: str, images: int, *, trained: bool) -> int:
    """Return how many epochs show about as many samples as are usual for the task.

    Example:
        >>> epochs_for("classification", 3068, trained=False)
        20
        >>> epochs_for("detection", 205, trained=True)
        20
    """
    samples = USUAL[task].samples / (3 if trained else 1)
    return min(MOST_EPOCHS, max(FEWEST_EPOCHS, math.ceil(samples / max(1, images))))


def seed_seconds(epoch_seconds: float, arms: int, epochs: int) -> float:
    """Return about how long one seed of all arms takes; arguments as of `epochs_within`."""
    return arms * START_S + epochs * epoch_seconds * (1 + DEARER * (arms - 1))


def epochs_within(
    seconds: float, epoch_seconds: float, arms: int, usual: int, seeds: int = ROUNDS
) -> int:
    """Return how many epochs let some seeds of all arms end in a time; the usual at most.

    Args:
        seconds: the time.
        epoch_seconds: of an epoch of the host as it is.
        arms: how many, the host as it is among them.
        usual: number of epochs.
        seeds: how many.

    Example:
        >>> epochs_within(600, 2.0, arms=3, usual=100), epochs_within(600, 0.1, arms=3, usual=100)
        (21, 100)
        >>> epochs_within(60, 20.0, arms=6, usual=100)
        5
    """
    of_seed = seconds / seeds
    fitting = (e for e in range(usual, 0, -1) if seed_seconds(epoch_seconds, arms, e) <= of_seed)
    return max(next(fitting, 0), min(usual, FEWEST_EPOCHS))


def size_for(task: str, typical: tuple[int, int], *, gpu: bool) -> tuple[int, int]:
    """Return height and width of the images: as they are, up to what is usual for the machine.

    Classification sees squares of the short side; the other tasks keep the shape.

    Example:
        >>> size_for("classification", (400, 533), gpu=True)
        (224, 224)
        >>> size_for("detection", (1080, 1920), gpu=False)
        (192, 320)
    """
    usual = USUAL[task]
    longest = usual.gpu_side if gpu else usual.cpu_side
    if task == "classification":
        typical = (min(typical), min(typical))
    factor = min(1.0, longest / max(typical))
    height, width = (max(STEP, STEP * round(side * factor / STEP)) for side in typical)
    return height, width


def batch_for(task: str, images: int) -> int:
    """Return the images of a batch: the usual, and no more than a quarter of a small set.

    Example:
        >>> batch_for("classification", 3068), batch_for("classification", 20)
        (32, 5)
    """
    return max(1, min(USUAL[task].batch, images // 4))


@dataclass(frozen=True)
class Wish:
    """What a user asked for; None leaves it to what is usual.

    Attributes:
        host: a mapping as `HostConfig` takes it.
        operators: the arms beside the host as it is, as `OperatorConfig` takes them.
        where: which slots.
        size: height and width of the images, in pixels.
        epochs: of a training.
        seeds: of every arm, at first.
    """

    host: dict[str, Any]
    operators: Sequence[dict[str, Any]]
    where: dict[str, Any] | None = None
    size: tuple[int, int] | None = None
    epochs: int | None = None
    seeds: Sequence[int] = SEEDS


def suite_of(layout: Layout, wish: Wish, *, gpu: bool) -> dict[str, Any]:
    """Return the suite as data: one board, the host as it is for baseline.

    Args:
        layout: what was recognised of the images.
        wish: what is compared.
        gpu: whether the images may be as large as a GPU takes.
    """
    task, images = layout.task, layout.counts["train"]
    trained = bool(wish.host.get("pretrained") or wish.host.get("weights"))
    height, width = wish.size or size_for(task, layout.typical_size, gpu=gpu)
    epochs = wish.epochs or epochs_for(task, images, trained=trained)
    size = max(height, width) if task == "classification" else [height, width]
    data = {
        "class_path": layout.data["class_path"],
        "init_args": {
            **layout.data["init_args"],
            "image_size": size,
            "batch_size": batch_for(task, images),
        },
    }
    board: dict[str, Any] = {
        "task": task,
        "hosts": [wish.host],
        "operators": [{"label": HOST, "operator": None}, *wish.operators],
        "baseline": HOST,
        "recipe": task,
        "set": {
            "model": {"init_args": {"lr": LR["trained" if trained else "fresh"]}},
            "data": data,
            "trainer": {"max_epochs": epochs, "check_val_every_n_epoch": max(1, epochs // 4)},
        },
    }
    if wish.where is not None:
        board["where"] = wish.where
    return {
        "name": name_of(str(wish.host["host"]), layout.folder),
        "description": f"{wish.host['host']} on {layout.folder.name}; {layout.sentence}",
        "seeds": list(wish.seeds),
        "boards": [board],
        "speed": {"scopes": {"backbone": [1, 8], "end_to_end": [1]}, "warmup_cap_ms": 1000},
    }


def epochs_before(written: object, layout: Layout, wish: Wish, *, gpu: bool) -> int | None:
    """Return the epochs of a suite that was written before, if it is the same but for them.

    So a comparison that goes on trains as it did, however long an epoch takes now.

    Args:
        written: what its file holds.
        layout: as of `suite_of`, and so are the others.
        wish: without epochs.
        gpu: as of `suite_of`.
    """
    try:
        epochs = written["boards"][0]["set"]["trainer"]["max_epochs"]  # type: ignore[index]
        same = suite_of(layout, replace(wish, epochs=epochs), gpu=gpu) == written
    except (KeyError, IndexError, TypeError):
        return None
    return int(epochs) if same else None


def name_of(host: str, folder: Path) -> str:
    """Return a name for the suite of a host and a set.

    Example:
        >>> name_of("nets/mine.py:Net", Path("/data/my photos"))
        'mine-net-on-my-photos'
    """
    host = re.sub(r"\.py:", "-", host.rpartition("/")[2])
    return re.sub(r"[^a-z0-9]+", "-", f"{host}-on-{folder.name}".lower()).strip("-")
