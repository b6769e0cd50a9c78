"""YOLO's layout: images, a text file of boxes for each, and a data.yaml that names the classes.

data.yaml                        train, val, test: folders or lists of images, below path; names; nc
obj.data                         the same as Darknet has it, which CVAT exports
…/images/…/a.jpg                 its boxes in …/labels/…/a.txt, or beside it
classes.txt                      in place of data.yaml, as labelling tools export

The paths in a data.yaml often are those of another machine: what counts is the longest end of
one that is there, below the folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bench.errors import DataError
from tasks.data.listing import visible_images
from tasks.data.lists import read_lines, require_class_names
from tasks.data.locations import end_below, shortened
from tasks.data.splits import split_folders
from tasks.layouts.layout import Layout, after_draw, data_of, scoring, sizes_of

LOOKED_FOR = "detection: YOLO (data.yaml, or classes.txt, beside images and labels)"
KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
"""Split → its key in a data.yaml."""
CLASS_LIST = "classes.txt"


class Yolo(NamedTuple):
    """A set in YOLO's layout.

    Attributes:
        class_names: in the order of the labels.
        splits: split → images.
        point_numbers: how many numbers of key points stand behind a box, 0 for none.
    """

    class_names: tuple[str, ...]
    splits: dict[str, list[Path]]
    point_numbers: int = 0


def find(folder: Path) -> Layout | None:
    """Recognise YOLO's files."""
    if description_of(folder) is None and not _is_described_by_list(folder):
        return None
    found = read_layout(folder)
    if not found.splits.get("train"):
        return None
    counts = {split: len(images) for split, images in found.splits.items()}
    return Layout(
        "detection",
        "YOLO files",
        folder,
        data_of("detection", "yolo", folder, **scoring(counts)),
        found.class_names,
        after_draw(counts),
        sizes_of(found.splits["train"]),
    )


def almost(folder: Path) -> str | None:
    """Say what keeps a folder from being of this layout, where little does."""
    for file in (folder / name for name in ("data.yaml", "data.yml", "dataset.yaml")):
        if not file.is_file():
            continue
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            return f"{file.name} is no YAML of plain data ({' '.join(str(error).split())})"
        if not isinstance(content, dict) or "train" not in content:
            return f"{file.name} lacks `train`, which names the folder of the training images"
        if not {"names", "nc"} & content.keys():
            return f"{file.name} lacks `names`, the classes"
    return None


def description_of(folder: Path) -> Path | None:
    """Return the YAML file that describes a set: data.yaml, or the only one that names classes."""
    files = [file for end in (".yaml", ".yml", ".data") for file in sorted(folder.glob(f"*{end}"))]
    usual = next((file for file in files if file.stem in ("data", "dataset")), None)
    if usual is not None and _described(usual) is not None:
        return usual
    named = [file for file in files if _described(file) is not None]
    return named[0] if len(named) == 1 else None


def _described(file: Path) -> dict[str, Any] | None:
    try:
        text = file.read_text(encoding="utf-8-sig")
        content = _darknet(file, text) if file.suffix == ".data" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    whole = isinstance(content, dict) and "train" in content and {"names", "nc"} & content.keys()
    return content if whole else None


def _darknet(file: Path, text: str) -> dict[str, Any]:
    """Read a file of `key = value`, as Darknet has it and CVAT exports it."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    content: dict[str, Any] = {key.strip(): value.strip() for key, value in pairs}
    listing = end_below(file.parent, content.get("names", ""))
    if listing is not None and listing.is_file():
        content["names"] = [line.strip() for line in read_lines(listing) if line.strip()]
    return content


def _is_described_by_list(folder: Path) -> bool:
    return (folder / CLASS_LIST).is_file() and any((folder / "labels").rglob("*.txt"))


def read_layout(root: Path) -> Yolo:
    """Return classes and images of a set.

    Raises:
        DataError: there is no description, or it names no classes, or what is not there.
    """
    file = description_of(root)
    if file is None:
        if not _is_described_by_list(root):
            raise DataError(
                f"`root` (={str(root)!r}) must hold a data.yaml with `train` and `names`, or "
                f"{CLASS_LIST} beside images and labels."
            )
        names = [line.strip() for line in read_lines(root / CLASS_LIST) if line.strip()]
        require_class_names(names, CLASS_LIST)
        folders = (split_folders(base) for base in (root / "images", root))
        divided = next((found for found in folders if "train" in found), {"train": root})
        splits = {split: visible_images(folder) for split, folder in divided.items()}
        return Yolo(tuple(names), splits)
    content = _described(file)
    assert content is not None
    base = content["path"] if isinstance(content.get("path"), str) else ""
    splits = {}
    for split, keys in KEYS.items():
        key = next((key for key in keys if content.get(key)), None)
        if key is not None:
            images = _images(root, content[key], f"{file.name}: `{key}`", base)
            if images or split != "test":
                splits[split] = images
    for split in ("val", "test"):
        if split in splits and set(splits[split]) == set(splits.get("train", ())):
            del splits[split]  # the same images under another name are no split to score
    return Yolo(_class_names(content, file), splits, _point_numbers(content, file))


def _point_numbers(content: dict[str, Any], file: Path) -> int:
    shape = content.get("kpt_shape")
    if shape is None:
        return 0
    pair = isinstance(shape, list) and len(shape) == 2 and all(type(n) is int for n in shape)
    if not pair or shape[0] < 1 or shape[1] not in (2, 3):
        raise DataError(
            f"{file.name}: `kpt_shape` (={shortened(shape)}) must be [key points, 2 or 3]."
        )
    return int(shape[0] * shape[1])


def _class_names(content: dict[str, Any], file: Path) -> tuple[str, ...]:
    names, count = content.get("names"), content.get("nc")
    if names is None:
        if type(count) is not int or count < 1:
            raise DataError(f"{file.name}: `nc` (={shortened(count)}) must be a number of classes.")
        names = [f"class {k}" for k in range(count)]
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise DataError(f"{file.name}: `names` must have the keys 0, 1, 2, …")
        names = [names[k] for k in range(len(names))]
    if not isinstance(names, list):
        raise DataError(f"{file.name}: `names` (={shortened(names)}) must be a list.")
    # YAML reads an unquoted 1 or no as something else than a text.
    named = [str(name) for name in names]
    require_class_names(named, file.name)
    if count not in (None, len(named)):
        raise DataError(f"{file.name}: `nc` (={shortened(count)}) must be the {len(named)} names'.")
    return tuple(named)


def _images(root: Path, value: Any, what: str, base: str) -> list[Path]:
    """Return the images of a split: of a folder, of a list in a file, or of several of these."""
    images: list[Path] = []
    for entry in value if isinstance(value, list) else [value]:
        if not isinstance(entry, str):
            raise DataError(f"{what} (={shortened(entry)}) must be a folder or a list of images.")
        place = end_below(root, f"{base}/{entry}")
        if place is None:
            if what.endswith("`test`"):
                continue  # exports name a test split that they don't have
            raise DataError(f"{what} (={shortened(entry)}) must be in {root}.")
        if place.is_dir():
            images += visible_images(place)
        else:
            images += _listed(root, place)
    return images


def _listed(root: Path, listing: Path) -> list[Path]:
    images = []
    for number, line in enumerate(read_lines(listing), start=1):
        if line.strip():
            place = end_below(root, line.strip())
            if place is None or not place.is_file():
                raise DataError(
                    f"line {number} of {listing.name} (={shortened(line)}) must be an image in "
                    f"{root}."
                )
            images.append(place)
    return images


def label_file(image: Path, root: Path) -> Path:
    """Return where the boxes of an image are: below `labels` in place of `images`, or beside it."""
    parts = list(image.relative_to(root).parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place].lower() == "images":
            parts[place] = "labels" if parts[place] != "Images" else "Labels"
            mirrored = root.joinpath(*parts).with_suffix(".txt")
            if mirrored.is_file():
                return mirrored
            break
    return image.with_suffix(".txt")
