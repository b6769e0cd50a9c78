"""Labelled images by the name of their source: generated, class folders, torchvision, Debian."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import UserError, near
from bench.local import located
from tasks.classification.folders import ClassFolder, read_class_folder
from tasks.classification.idx import FOLDER, open_debian_fashion
from tasks.classification.labelled import Labelled, Source, from_files, revision, told_overlap
from tasks.classification.torchvision_sets import open_torchvision
from tasks.data.cache import manifest
from tasks.data.holdout import Indices, drawn_split
from tasks.data.locations import existing_folder
from tasks.data.scenes import REVISION, scenes
from tasks.data.sources import DRAWN, require_drawable, require_undivided
from tasks.layouts.class_folders import class_splits
from tasks.layouts.torchvision_sets import SETS


def open_source(
    source: str,
    *,
    root: Path | str | None,
    image_size: int,
    scored: str = "val",
    download: bool = False,
    max_skipped: float = 0.01,
    val_share: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> Source:
    """Find, check and list the images of a source.

    Args:
        source: "scenes", "folder", "fashion-mnist-debian" or the name of a torchvision set.
        root: folder of the set; of "scenes", folder of all generated sets.
        image_size: side of the generated images, in pixels.
        scored: split of class folders that is scored, "val" or "test".
        download: let torchvision download its set into `root`.
        max_skipped: largest share of a folder's images that may be unreadable.
        val_share: share of class folders without a scored split that is drawn to be scored.
        options: knobs of `scenes`, or further arguments of the torchvision set.

    Raises:
        ValueError: unknown source or option.
        DataError: the data is not there or cannot be trained on.
    """
    options = dict(options or {})
    require_drawable(val_share, source, scored, ("folder",))
    if source == "scenes":
        return _scenes(root, image_size, options)
    if source in ("folder", "fashion-mnist-debian") and options:
        raise UserError(f"`options` (={options!r}) must be empty for `source` {source!r}.")
    if source == "folder":
        if root is None:
            raise UserError("`root` (=None) must be the folder of the classes' splits.")
        folder = existing_folder(root)
        if val_share:
            return _drawn(folder, max_skipped, val_share)
        return _folder(folder.name, "", folder, scored, max_skipped)
    if source == "fashion-mnist-debian":
        return open_debian_fashion(FOLDER if root is None else located(root))
    if source not in SETS:
        known = ["scenes", "folder", "fashion-mnist-debian", *SETS]
        raise UserError(f"`source` (={source!r}) is not known; {near(str(source), known)}")
    if root is None:
        raise UserError(f"`root` (=None) must be the folder of torchvision's {source}.")
    return open_torchvision(source, located(root), download=download, options=options)


def _scenes(root: Path | str | None, image_size: int, options: dict[str, Any]) -> Source:
    knobs = set(inspect.signature(scenes).parameters) - {"task", "root", "objects", "size"}
    for name in options:
        if name not in knobs:
            raise UserError(f"`{name}` (={options[name]!r}) is no option; {near(name, knobs)}")
    folder = scenes("classification", size=image_size, root=root, **options)
    return _folder("scenes", REVISION, folder, "val", 0.0, manifest(folder)["files"])


def _folder(
    name: str,
    version: str,
    root: Path,
    scored: str,
    max_skipped: float,
    hashes: dict[str, str] | None = None,
) -> Source:
    train = read_class_folder(root, "train", max_skipped=max_skipped, hashes=hashes)
    other = read_class_folder(root, scored, max_skipped=max_skipped, hashes=hashes)
    splits = [_labelled(train), _labelled(other.renumbered(train.class_names, scored))]
    return Source(name, version or revision(*splits), splits[0], told_overlap(*splits))


def _drawn(root: Path, max_skipped: float, share: float) -> Source:
    """Return class folders that have no scored split with one that is drawn."""
    folders = class_splits(root)
    require_undivided(share, root, "val" in folders)
    split = "train" if "train" in folders else None
    whole = read_class_folder(root, split, max_skipped=max_skipped)
    trained, scored = drawn_split(np.array(whole.labels, dtype=np.int64), share)
    splits = [_labelled(whole, trained), _labelled(replace(whole, skipped={}), scored)]
    splits[1].skipped[DRAWN] = len(scored)
    return Source(root.name, revision(*splits), splits[0], told_overlap(*splits))


def _labelled(split: ClassFolder, chosen: Indices | None = None) -> Labelled:
    """Return a split, or the chosen images of it."""
    labels = np.array(split.labels, dtype=np.int64)
    indices = np.arange(len(labels)) if chosen is None else chosen
    paths = [split.paths[i] for i in indices.tolist()]
    hashes = list(split.hashes.items())  # in the order of the paths
    chosen_hashes = dict(hashes[i] for i in indices.tolist())
    return from_files(paths, labels[indices], split.class_names, chosen_hashes, split.skipped)
