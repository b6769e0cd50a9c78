"""Class folders, as ImageNet has them: root/<split>/<class>/*.jpg."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.errors import DataError
from tasks.data.checked import Checked, check_images, is_image
from tasks.data.faults import count_faults, some
from tasks.data.locations import is_there

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}


@dataclass(frozen=True)
class ClassFolder:
    """One split: its good images in the order of their names, and what was left out.

    Attributes:
        paths: of the images.
        labels: of the images, from 0.
        class_names: the folders' names, sorted.
        hashes: path relative to the root → SHA-256.
        skipped: reason → number of files.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    hashes: dict[str, str]
    skipped: dict[str, int]


def read_class_folder(
    root: Path, split: str, *, max_skipped: float = 0.01, hashes: dict[str, str] | None = None
) -> ClassFolder:
    """List and check the images of one split.

    Args:
        root: the folder that holds the splits.
        split: "train", "val" or "test"; "training", "valid", "validation" are found too.
        max_skipped: largest share of images that may be unreadable; they are left out and counted.
        hashes: of all files, where they were verified already; then they are not read here.

    Raises:
        DataError: no such folder, no classes, a class without images, too many unreadable images.
    """
    folder = _split_folder(root, split)
    # A hidden folder is of a tool, not of a class.
    class_names = tuple(
        sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    )
    if not class_names:
        raise DataError(f"{folder} must hold one folder per class; it holds none.")
    listed: list[tuple[Path, int]] = []
    others = 0
    for label, name in enumerate(class_names):
        for path in sorted(p for p in (folder / name).rglob("*") if is_there(p)):
            if is_image(path):
                listed.append((path, label))
            else:
                others += not path.name.startswith(".")
    if hashes is None:
        checked = check_images(root, [path for path, _ in listed])
    else:
        names = [path.relative_to(root).as_posix() for path, _ in listed]
        checked = Checked({name: hashes[name] for name in names}, {}, {})
    faults = checked.faults
    if len(faults) > max_skipped * len(listed):
        examples = some([f"{name}: {fault}" for name, fault in faults.items()])
        raise DataError(
            f"{len(faults)} of {len(listed)} images of {folder} cannot be read, more than "
            f"`max_skipped` (={max_skipped}) allows: {examples}."
        )
    good = [(p, label) for p, label in listed if p.relative_to(root).as_posix() not in faults]
    empty = sorted(set(range(len(class_names))) - {label for _, label in good})
    if empty:
        shown = some([repr(class_names[i]) for i in empty])
        raise DataError(f"{len(empty)} class(es) of {folder} have no readable image: {shown}.")
    skipped = count_faults(faults.values())
    if others:
        skipped["other suffix"] = others
    return ClassFolder(
        tuple(path for path, _ in good),
        tuple(label for _, label in good),
        class_names,
        checked.hashes,
        skipped,
    )


def require_same_classes(train: ClassFolder, scored: ClassFolder, split: str) -> None:
    """DataError unless both splits have the same classes."""
    missing = sorted(set(train.class_names) - set(scored.class_names))
    surplus = sorted(set(scored.class_names) - set(train.class_names))
    if missing:
        raise DataError(
            f"{len(missing)} class(es) of the training split are missing from {split!r}: "
            f"{some(missing)}."
        )
    if surplus:
        raise DataError(
            f"{len(surplus)} class(es) of {split!r} are missing from the training split: "
            f"{some(surplus)}."
        )


def _split_folder(root: Path, split: str) -> Path:
    if not root.is_dir():
        raise DataError(f"`root` (={str(root)!r}) must be a folder; there is none.")
    for name in SPLITS[split]:
        if (root / name).is_dir():
            return root / name
    folders = sorted(p.name for p in root.iterdir() if p.is_dir())
    raise DataError(
        f"`root` (={str(root)!r}) must hold a folder {' or '.join(map(repr, SPLITS[split]))} "
        f"with one folder per class; it holds {some(folders, 8) or 'no folders'}."
    )
