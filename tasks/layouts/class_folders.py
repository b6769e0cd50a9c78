"""One folder a class, below those of the splits, or without splits."""

from __future__ import annotations

from pathlib import Path

from tasks.data.listing import is_image, visible_files, visible_folders
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
    folders = split_folders(folder)
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
    classes = _classes(split_folders(folder).get("train", folder))
    if len(classes) != 1:
        return None
    return f"there is but one folder of images, {next(iter(classes))}; classes are two or more"


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Return class → images; nothing where a folder is a part of another layout."""
    folders = visible_folders(folder)
    inner = [path for one in folders for path in visible_folders(one)]
    if any(path.name.lower() in PARTS for path in (*folders, *inner)):
        return {}
    listed = {path.name: [f for f in visible_files(path) if is_image(f)] for path in folders}
    return {name: images for name, images in listed.items() if images}
