"""A user's set of images, looked at before anything is trained on it: counts, oddities, samples."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis import draw
from bench.whole_files import write_whole
from tasks.data.holdout import evenly_spaced
from tasks.layouts import Layout

if TYPE_CHECKING:
    from tasks.data.module import TaskData

COUNTED = {
    "classification": "images",
    "detection": "objects",
    "segmentation": "pixels",
    "pose": "figures",
}
LONGEST_SIDE = 640
"""Of a picture on the page, in pixels."""


@dataclass(frozen=True)
class ClassCount:
    """A class, and how much of it there is to train on and to score."""

    name: str
    train: int
    scored: int


@dataclass(frozen=True)
class Picture:
    """A drawn sample.

    Attributes:
        split: of the image.
        words: what is drawn on it.
        jpeg: its bytes.
    """

    split: str
    words: str
    jpeg: bytes

    @property
    def source(self) -> str:
        """The picture as a URL that holds it."""
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode()


@dataclass(frozen=True)
class Findings:
    """What a set is made of.

    Attributes:
        layout: as it was recognised.
        classes: with their counts; behind them regions to ignore, if there are any.
        mended: what was left out or mended → number of times.
        train_samples: images to train on.
        scored_samples: images to score.
        pictures: drawn samples.
    """

    layout: Layout
    classes: tuple[ClassCount, ...]
    mended: dict[str, int]
    train_samples: int
    scored_samples: int
    pictures: tuple[Picture, ...]

    @property
    def counted(self) -> str:
        """What is counted of a class."""
        return COUNTED[self.layout.task]

    @property
    def sizes(self) -> str:
        """The sizes of the images in words, of those whose heads were read."""
        heights, widths = zip(*self.layout.sizes, strict=True)
        typical = self.layout.typical_size
        if len(set(self.layout.sizes)) == 1:
            return f"{typical[1]}×{typical[0]} pixels, all of {len(heights)} looked at"
        return (
            f"{typical[1]}×{typical[0]} pixels in the middle, widths {min(widths)}–{max(widths)}, "
            f"heights {min(heights)}–{max(heights)}, of {len(heights)} looked at"
        )


def build(layout: Layout) -> TaskData:
    """Return the data module of a set."""
    import tasks

    made = getattr(tasks, layout.data["class_path"].removeprefix("tasks."))
    arguments: dict[str, Any] = layout.data["init_args"] | {"root": str(layout.folder)}
    module: TaskData = made(**arguments, batch_size=1, memory_mb=0)
    return module


def look(layout: Layout, samples: int = 12) -> Findings:
    """Read a whole set, and draw some of its images with their truth.

    Args:
        layout: as `tasks.layouts.recognise` returns it.
        samples: number of images to draw, of both splits together.

    Raises:
        DataError: what is wrong with the set.
    """
    data = build(layout)
    data.prepare_data()
    described = data.describe()
    train, scored = (data.class_counts(split) for split in ("train", data.scored))
    pictures = []
    for split, length, count in (
        ("train", described["train_samples"], samples - samples // 2),
        (data.scored, described["scored_samples"], samples // 2),
    ):
        for index in evenly_spaced(length, min(count, length)).tolist():
            image, truth = data.example(split, index)
            pictures.append(_picture(split, draw.truth(image, truth, data.class_names)))
    names = dict.fromkeys([*data.class_names, *train, *scored])
    return Findings(
        layout,
        tuple(ClassCount(name, train.get(name, 0), scored.get(name, 0)) for name in names),
        described["skipped"],
        described["train_samples"],
        described["scored_samples"],
        tuple(pictures),
    )


def _picture(split: str, drawing: draw.Drawn) -> Picture:
    from torchvision.transforms.v2.functional import to_pil_image

    picture = to_pil_image(drawing.picture)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return Picture(split, drawing.words, file.getvalue())


def write_page(findings: Findings, folder: Path) -> Path:
    """Write the page of a set, which holds its pictures; return its path.

    Args:
        findings: what it shows; all words in it are escaped.
        folder: of the page, made where it is not there.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    page = templates.get_template("look.html").render(
        findings=findings, layout=findings.layout, most=_most(findings.classes)
    )
    path = folder / f"{findings.layout.folder.name}.html"
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, page.encode())
    return path


def _most(classes: Sequence[ClassCount]) -> int:
    return max(1, *(max(count.train, count.scored) for count in classes))
