"""One folder a class, below those of the splits, or without splits."""

from __future__ import annotations

from pathlib import Path

from tasks.data.listing import visible_folders, visible_images
from tasks.data.splits import split_folders
from tasks.layouts.layout import Layout, after_draw, data_of, scoring, sizes_of

LOOKED_FOR = "classification: class folders (train/<class>/*.jpg and val/…, or <class>/*.jpg)"
PARTS = frozenset(
    [
        "images",
        "imgs",
        "image",
        "masks",
        "mask",
        "labels",
        "label",
        "annotations",
        "jpegimages",
        "segmentationclass",
        "segmentationobject",
        "imagesets",
        "ground_truth",
        "gt",
    ]
)
"""Folders that are parts of other layouts, and no classes."""


def find(folder: Path) -> Layout | None:
    """Recognise class folders."""
    folders = class_splits(folder)
    whole = not folders
    if whole:
        folders = {"train": folder}
    splits = {split: _classes(path) for split, path in folders.items()}
    classes = splits.get("train") or {}
    if len(classes) < 2:
        return None
    counts = {split: sum(map(len, of.values())) for split, of in splits.items() if of}
    paths = [path for images in classes.values() for path in images]
    words = "class folders" if not whole else "class folders without splits"
    return Layout(
        "classification",
        words,
        folder,
        data_of("classification", "folder", folder, **scoring(counts)),
        tuple(classes),
        after_draw(counts),
        sizes_of(paths),
    )


def almost(folder: Path) -> str | None:
    """Say what keeps a folder from being of this layout, where little does."""
    where = class_splits(folder).get("train", folder)
    listed = _listed(where)
    if len(listed) == 1:
        return f"there is but one folder of images, {next(iter(listed))}; classes are two or more"
    parts = set(_parts(where))
    if len(listed) > 1 and len(parts) == 1:
        return (
            f"beside folders of images, which may be classes, there is {parts.pop()}, which is "
            "what a part of other layouts is called: a class needs another name"
        )
    return None


def class_splits(folder: Path) -> dict[str, Path]:
    """Return split → its folder; one beside folders of classes that holds no folder is a class."""
    folders = split_folders(folder)
    nested = {split: path for split, path in folders.items() if visible_folders(path)}
    others = _listed(folder).keys() - {path.name for path in folders.values()}
    return nested if nested or others else folders


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Return class → images; nothing where a folder is a part of another layout."""
    return {} if _parts(folder) else _listed(folder)


def _parts(folder: Path) -> list[str]:
    """Return the names of folders, one or two below, that are parts of another layout."""
    folders = visible_folders(folder)
    inner = [path for one in folders for path in visible_folders(one)]
    return [path.name for path in (*folders, *inner) if path.name.lower() in PARTS]


def _listed(folder: Path) -> dict[str, list[Path]]:
    """Return folder → images, for those that hold images."""
    folders = visible_folders(folder)
    listed = {path.name: visible_images(path) for path in folders}
    return {name: images for name, images in listed.items() if images}
