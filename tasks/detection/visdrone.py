"""VisDrone2019-DET's format: one text file per image (Zhu et al. 2021, arXiv 2001.06303).

A line is left,top,width,height,score,category,truncation,occlusion. Category 0 is an ignored
region, 11 is "others", and score 0 marks what the benchmark leaves out: these three are crowd
regions here, of every class, so that no detection inside of them is wrong.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from bench.errors import DataError
from tasks.detection.boxes import BoxImage, BoxSet, make_image, require_images

CLASSES = (
    "pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle",
    "bus", "motor",
)  # fmt: skip
IGNORED, OTHERS = 0, 11


def read_visdrone(root: Path, split: str) -> BoxSet:
    """Read one split.

    Args:
        root: the folder that holds VisDrone2019-DET-train and VisDrone2019-DET-val, each with
            `images` and `annotations`.
        split: "train" or "val".

    Raises:
        DataError: what is missing or malformed, by file and line.
    """
    folder = root / f"VisDrone2019-DET-{split}"
    files = sorted((folder / "annotations").glob("*.txt"))
    if not files:
        raise DataError(f"`root` (={str(root)!r}) must hold {folder.name}/annotations/*.txt.")
    skipped = {"box without area": 0}
    images = [_image(folder, file, skipped) for file in files]
    require_images(images, folder.name)
    return BoxSet(tuple(images), CLASSES, {k: n for k, n in skipped.items() if n})


def _image(folder: Path, file: Path, skipped: dict[str, int]) -> BoxImage:
    path = folder / "images" / f"{file.stem}.jpg"
    try:
        with Image.open(path) as image:
            width, height = image.size
    except OSError as error:
        raise DataError(f"{path.name} in {path.parent} cannot be read: {error}") from None
    rows: list[tuple[tuple[float, ...], int, bool, float]] = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            # Some lines of the published files end in a comma.
            left, top, w, h, score, category = (int(x) for x in line.split(",")[:6])
        except ValueError:
            raise DataError(
                f"line {number} of {file.name} (={line!r}) must be left,top,width,height,score,"
                "category,truncation,occlusion."
            ) from None
        if not 0 <= category <= OTHERS:
            raise DataError(f"line {number} of {file.name} has no category {category}.")
        if w <= 0 or h <= 0:
            skipped["box without area"] += 1
            continue
        box, area = (left, top, left + w, top + h), float(w * h)
        if score == 0 or category in (IGNORED, OTHERS):
            rows += [(box, label, True, area) for label in range(len(CLASSES))]
        else:
            rows.append((box, category - 1, False, area))
    return make_image(path, (height, width), rows)
