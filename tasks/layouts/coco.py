"""COCO's files of boxes: where they lie, in COCO's own layout, in Roboflow's, and in others.

root/annotations/instances_<split><year>.json    beside root/<split><year>/, root/images/…
root/<split>/_annotations.coco.json              among the images, as Roboflow exports them
root/….json, root/annotations/….json             any names; images where the files' names lead
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Hashable, Iterable, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

from bench.errors import DataError
from tasks.data.listing import visible_folders
from tasks.data.locations import end_below
from tasks.data.splits import SPLITS, split_folders, split_of
from tasks.layouts.layout import Layout, after_draw, data_of, scoring, sizes_of

LOOKED_FOR = (
    "detection: COCO's JSON (annotations/instances_train2017.json, train/_annotations.coco.json, "
    "or a JSON file of images, annotations and categories)"
)
YEARS = ("2017", "2014", "")
KINDS = ("instances", "person_keypoints", "captions", "stuff", "panoptic", "image_info")
"""How the names of COCO's own files begin."""
ROBOFLOW = "_annotations.coco.json"
LISTS = ("images", "annotations", "categories")


class Part(NamedTuple):
    """The files of one split."""

    file: Path
    images: Path


def coco_files(root: Path, split: str, kind: str = "instances") -> Part:
    """Return annotation file and image folder of a split in COCO's layout, or in Roboflow's.

    Args:
        root: of the set.
        split: "train", "val" or "test".
        kind: of COCO's files: "instances", or "person_keypoints".

    Raises:
        DataError: neither is there.
    """
    found = named_files(root, split, kind)
    if found is None:
        raise DataError(
            f"`root` (={str(root)!r}) must hold annotations/{kind}_{split}2017.json (or without "
            f"the year), as COCO does, or {split}/{ROBOFLOW}; or name the files by `annotations` "
            "and `images`."
        )
    return found


def named_files(root: Path, split: str, kind: str = "instances") -> Part | None:
    """Return annotation file and image folder of a split that `coco_files` finds, if it does."""
    for name, year in itertools.product(SPLITS[split], YEARS):
        file = root / "annotations" / f"{kind}_{name}{year}.json"
        if file.is_file():
            names = [f"{name}{year}", *(f"{other}{year}" for other in SPLITS[split])]
            folders = [base / one for one in names for base in (root, root / "images")]
            there = (folder for folder in (*folders, root / "images") if folder.is_dir())
            return Part(file, next(there, folders[0]))
    folder = split_folders(root).get(split)
    if folder is not None and (folder / ROBOFLOW).is_file():
        return Part(folder / ROBOFLOW, folder)
    return None


def parents_only(categories: Iterable[tuple[Hashable, str, Any]], used: set[Any]) -> set[Hashable]:
    """Return the ids of the categories without objects that others name as their parent.

    Roboflow exports one, named as the project.

    Args:
        categories: (id, name, supercategory) of each.
        used: ids of those that have objects.

    Example:
        >>> parents_only([(0, "cells", "none"), (1, "RBC", "cells")], used={1})
        {0}
    """
    listed = list(categories)
    return {
        key
        for key, name, _ in listed
        if key not in used and any(name == parent for other, _, parent in listed if other != key)
    }


def find(folder: Path) -> Layout | None:
    """Recognise COCO's files."""
    found = files_of(folder)
    return None if found is None else _layout(folder, found)


def almost(folder: Path) -> str | None:
    """Say what keeps a folder from being of this layout, where little does."""
    for file in _json_files(folder):
        try:
            content = json.loads(file.read_bytes())
        except OSError:
            continue
        except (ValueError, RecursionError) as error:
            return f"{file.relative_to(folder)} is no JSON ({error})"
        lists = [key for key in LISTS if isinstance(content, dict) and key in content]
        if lists and len(lists) < len(LISTS):
            missing = ", ".join(f"`{key}`" for key in LISTS if key not in lists)
            return f"{file.relative_to(folder)} lacks {missing}, which COCO's files have"
    return None


class Files(NamedTuple):
    """What was found of a set.

    Attributes:
        words: how it lies.
        parts: split → its files.
        names: arguments of the data module that name them; none where it finds them itself.
        left: files that tell of a split of which another one tells.
    """

    words: str
    parts: dict[str, Part]
    names: dict[str, Any]
    left: tuple[Path, ...] = ()


def files_of(folder: Path, kind: str = "instances") -> Files | None:
    """Return the files of a set in COCO's layout, in Roboflow's, or of other names.

    Args:
        folder: of the set.
        kind: see `coco_files`.
    """
    named = {split: part for split in SPLITS if (part := named_files(folder, split, kind))}
    words = "COCO files"
    left: tuple[Path, ...] = ()
    if "train" in named:
        if named["train"].file.name == ROBOFLOW:
            words = "COCO files as Roboflow exports them"
        if "val" in named:
            return Files(words, named, {})
        known = {part.file for part in named.values()}
        others, left = _others(folder, known, kind)
        found = others | named
        if found.keys() == named.keys():
            return Files(words, named, {})
    else:
        found, left = _others(folder)
        if not found:
            return None
        if "train" not in found:
            if len(found) > 1:
                return None
            found = {"train": next(iter(found.values()))}
    scored = next((split for split in ("val", "test") if split in found), "train")
    files = [found[split] for split in ("train", scored)]
    names = {
        "annotations": [part.file.relative_to(folder).as_posix() for part in files],
        "images": [part.images.relative_to(folder).as_posix() for part in files],
    }
    return Files(words, found, names, left)


def contents_of(files: Files) -> dict[str, dict[str, Any]] | None:
    """Return split → what is in its file; None where that of training is not COCO's.

    Raises:
        DataError: that of training is, and another one is not.
    """
    contents = {split: _content(part.file) for split, part in files.parts.items()}
    if contents["train"] is None:
        return None
    whole = {}
    for split, content in contents.items():
        if content is None:
            lists = ", ".join(f"`{key}`" for key in LISTS)
            raise DataError(f"{files.parts[split].file} must be JSON with the lists {lists}.")
        whole[split] = content
    return whole


def left_out(files: Files) -> dict[str, int]:
    """Return what is left out of a set, in words → 1."""
    return {f"{file.name} left out: another file tells of its split": 1 for file in files.left}


def sizes_in(files: Files, content: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    """Return (height, width) of some of the images of training."""
    names = [i["file_name"] for i in content["images"] if _has_name(i)]
    paths = [end_below(files.parts["train"].images, str(name)) for name in names]
    return sizes_of([path for path in paths if path is not None and path.is_file()])


def _layout(folder: Path, files: Files) -> Layout | None:
    contents = contents_of(files)
    if contents is None:
        return None
    train = contents["train"]
    used = {a.get("category_id") for a in train["annotations"] if isinstance(a, dict)}
    listed = [
        (c.get("id"), str(c.get("name")), c.get("supercategory"))
        for c in train["categories"]
        if isinstance(c, dict)
    ]
    roots = parents_only(listed, used)
    classes = sorted((c for c in listed if c[0] not in roots), key=lambda c: _order(c[0]))
    counts = {split: len(c["images"]) for split, c in contents.items()}
    oddities = {
        "category without objects that is but the parent of others: no class": len(roots),
        **left_out(files),
    }
    return Layout(
        "detection",
        files.words,
        folder,
        data_of("detection", "coco", folder, **files.names, **scoring(counts)),
        tuple(name for _, name, _ in classes),
        after_draw(counts),
        sizes_in(files, train),
        {kind: number for kind, number in oddities.items() if number},
    )


def _has_name(image: Any) -> bool:
    return isinstance(image, dict) and bool(image.get("file_name"))


def _order(key: Any) -> tuple[bool, Any]:
    try:
        return False, int(key)
    except (TypeError, ValueError):
        return True, str(key)


def _content(file: Path) -> dict[str, Any] | None:
    """Return what is in a file, if it has COCO's lists."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    return content if all(isinstance(content.get(key), list) for key in LISTS) else None


def _others(
    folder: Path, known: Set[Path] = frozenset(), kind: str | None = None
) -> tuple[dict[str, Part], tuple[Path, ...]]:
    """Return split → files of other names; "train" for the only one that tells of no split.

    And files that are left, since another one tells of their split.

    Args:
        folder: of the set.
        known: files of the set whose splits are known; beside them only told splits count.
        kind: of COCO's files; those that are named as its other kinds are none of the set's.
    """
    parts: dict[str, Part] = {}
    untold: list[Part] = []
    left: list[Path] = []
    other_kinds = tuple(f"{other}_" for other in KINDS if kind not in (None, other))
    for file in _json_files(folder):
        if file in known or file.name.startswith(other_kinds):
            continue
        content = _content(file)
        images = None if content is None else _images_of(folder, file, content["images"])
        if images is None:
            continue
        split = split_of(file.stem) or split_of(file.parent.name)
        if split is None:
            untold.append(Part(file, images))
        elif split in parts:
            left.append(file)
        else:
            parts[split] = Part(file, images)
    if not parts and not known and len(untold) == 1:
        return {"train": untold[0]}, ()
    return parts, tuple(left)


def _json_files(folder: Path) -> list[Path]:
    folders = [folder, *visible_folders(folder)]
    return [file for one in folders for file in sorted(one.glob("*.json"))]


def _images_of(folder: Path, file: Path, images: Sequence[Any]) -> Path | None:
    """Return the folder from which the names of the first images lead to files."""
    names = [i["file_name"] for i in images[:20] if _has_name(i)]
    split = split_of(file.stem) or split_of(file.parent.name)
    places = [file.parent, folder, folder / "images"]
    for base in (folder, folder / "images"):
        places += visible_folders(base) if base.is_dir() else []
    if split is not None:
        places.sort(key=lambda place: split_of(place.name) != split)
    hits = {
        place: sum(end_below(place, str(name)) is not None for name in names) for place in places
    }
    best = max(hits, key=lambda place: hits[place])
    return best if hits[best] else None
