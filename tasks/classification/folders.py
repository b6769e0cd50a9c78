"""Class folders, as ImageNet has them: root/<split>/<class>/*.jpg.

A set without splits is root/<class>/*.jpg. Hidden folders and files are no data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bench.errors import DataError
from tasks.data.checked import Checked, check_images
from tasks.data.faults import count_faults, few_enough, some
from tasks.data.listing import is_image, visible_files, visible_folders
from tasks.data.splits import SPLITS, split_folders

OTHER = "other suffix"


@dataclass(frozen=True)
class ClassFolder:
    """One split: its good images in the order of their names, and what was left out.

    Attributes:
        paths: of the images.
        labels: of the images, from 0.
        class_names: the folders' names, sorted.
        hashes: path relative to the root → SHA-256.
        skipped: what was left out or mended → number of times.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    hashes: dict[str, str]
    skipped: dict[str, int]

    def renumbered(self, class_names: tuple[str, ...], split: str) -> ClassFolder:
        """Return the split with the labels of the training split's classes, by name.

        Raises:
            DataError: a class that has images is none of them.
        """
        used = [self.class_names[label] for label in sorted(set(self.labels))]
        if surplus := sorted(set(used) - set(class_names)):
            raise DataError(
                f"{len(surplus)} class(es) of {split!r} are missing from the training split: "
                f"{some(surplus)}."
            )
        place = {name: label for label, name in enumerate(class_names)}
        labels = tuple(place[self.class_names[label]] for label in self.labels)
        skipped = dict(self.skipped)
        if missing := sorted(set(class_names) - set(used)):
            skipped[f"class without an image in {split!r} ({some(missing)})"] = len(missing)
        return replace(self, labels=labels, class_names=class_names, skipped=skipped)


def read_class_folder(
    root: Path,
    split: str | None,
    *,
    max_skipped: float = 0.01,
    hashes: Mapping[str, str] | None = None,
) -> ClassFolder:
    """List and check the images of one split.

    Args:
        root: the folder that holds the splits.
        split: "train", "val" or "test", as `tasks.data.splits` finds them; None for `root` itself.
        max_skipped: largest share of images that may be unreadable; they are left out and counted.
        hashes: of all files, where they were verified already; then they are not read here.

    Raises:
        DataError: no such folder, no classes, no images, a class of the training split without
            images, too many unreadable images.
    """
    folder = root if split is None else _split_folder(root, split)
    folders = visible_folders(folder)
    if not folders:
        raise DataError(f"{folder} must hold one folder per class; it holds none.")
    images: dict[str, list[Path]] = {}
    repairs: Counter[str] = Counter()
    for path in folders:
        files = list(visible_files(path, repairs))
        images[path.name] = [file for file in files if is_image(file)]
        repairs[OTHER] += len(files) - len(images[path.name])
    empty = [name for name, files in images.items() if not files]
    if split in (None, "train"):
        repairs[f"folder without an image, no class ({some(empty)})"] += len(empty)
    class_names = tuple(name for name in images if images[name])
    listed = [(path, label) for label, name in enumerate(class_names) for path in images[name]]
    if hashes is None:
        checked = check_images(root, [path for path, _ in listed])
    else:
        names = [path.relative_to(root).as_posix() for path, _ in listed]
        checked = Checked({name: hashes[name] for name in names}, {}, {})
    faults = checked.faults
    if not few_enough(len(faults), len(listed), max_skipped):
        examples = some([f"{name}: {fault}" for name, fault in faults.items()])
        raise DataError(
            f"{len(faults)} of {len(listed)} images of {folder} cannot be read, more than "
            f"`max_skipped` (={max_skipped}) allows: {examples}."
        )
    good = [(p, label) for p, label in listed if p.relative_to(root).as_posix() not in faults]
    if not good:
        raise DataError(f"The folders of {folder} hold no readable image.")
    lost = sorted(set(range(len(class_names))) - {label for _, label in good})
    if lost and split in (None, "train"):
        shown = some([repr(class_names[i]) for i in lost])
        raise DataError(f"{len(lost)} class(es) of {folder} have no readable image: {shown}.")
    repairs.update(checked.repairs(checked.hashes, upright=True))
    return ClassFolder(
        tuple(path for path, _ in good),
        tuple(label for _, label in good),
        class_names,
        checked.hashes,
        count_faults(faults.values()) | dict(sorted((+repairs).items())),
    )


def _split_folder(root: Path, split: str) -> Path:
    if not root.is_dir():
        raise DataError(f"`root` (={str(root)!r}) must be a folder; there is none.")
    folders = split_folders(root)
    if split in folders:
        return folders[split]
    there = [path.name for path in visible_folders(root)]
    raise DataError(
        f"`root` (={str(root)!r}) must hold a folder {' or '.join(map(repr, SPLITS[split]))} "
        f"with one folder per class; it holds {some(there, 8) or 'no folders'}. `val_share` draws "
        "the scored images of a set without splits."
    )
