"""Images with an XML file each, as PASCAL VOC has them: what Roboflow and labelling tools export.

root/<split>/a.jpg + root/<split>/a.xml               among the images
root/images/a.jpg + root/annotations/a.xml            no splits, or root/ImageSets/Main/<split>.txt
root/<split>/images/… + root/<split>/annotations/…
root/images/<split>/… + root/annotations/<split>/…
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

from bench.errors import DataError
from tasks.data.faults import allowed, few_enough
from tasks.data.listing import visible_files, visible_folders, visible_images
from tasks.data.lists import read_lines
from tasks.data.splits import SPLITS, split_folders
from tasks.layouts.layout import Layout, after_draw, data_of, scoring, sizes_of

LOOKED_FOR = "detection: XML files as PASCAL VOC has them (train/a.jpg + train/a.xml, or folders)"
IMAGES = ("images", "image", "imgs", "img", "jpegimages")
XMLS = ("annotations", "annotation", "xmls", "xml", "labels")
WITHOUT = "image without an XML file left out"
ALONE = "XML file without an image left out"
TWICE = "file with the name of another left out"
UNPAIRED = "listed name without an image and an XML file left out"
LOST = (ALONE, TWICE, UNPAIRED)
"""What is annotated or listed, and cannot be used; images alone may just not be annotated."""
Listed = list[tuple[Path, Path]]
"""Pairs of an XML file and its image."""


def xml_files(root: Path, split: str | None, repairs: Counter[str] | None = None) -> Listed:
    """Return the XML files of a split with their images, or of a set without splits (None).

    Args:
        root: of the set.
        split: "train", "val" or "test".
        repairs: what is left out as it is of no pair is counted here.
    """
    counts = Counter[str]() if repairs is None else repairs
    if split is None:
        of_train = Counter[str]()
        if listed := xml_files(root, "train", of_train):
            counts.update(of_train)
            return listed
        return _pairs(*_parts(root), counts)
    inner = split_folders(root).get(split)
    if inner is not None:
        return _pairs(*_parts(inner), counts)
    images, files = _parts(root)
    listing = root / "ImageSets" / "Main" / f"{split}.txt"
    if listing.is_file():
        stems = {line.split()[0] for line in read_lines(listing) if line.strip()}
        # What is not listed is of another split.
        listed = [pair for pair in _pairs(images, files, Counter()) if pair[0].stem in stems]
        counts[UNPAIRED] += len(stems - {file.stem for file, _ in listed})
        return listed
    of_images, of_files = split_folders(images).get(split), split_folders(files).get(split)
    if of_images is None or of_files is None:
        return []
    return _pairs(of_images, of_files, counts)


def _parts(folder: Path) -> tuple[Path, Path]:
    """Return the folders of images and of XML files; the folder itself where it has none."""
    by_name = {path.name.lower(): path for path in visible_folders(folder)}
    images = next((by_name[name] for name in IMAGES if name in by_name), folder)
    files = next((by_name[name] for name in XMLS if name in by_name), folder)
    return images, files


def _pairs(images: Path, files: Path, counts: Counter[str]) -> Listed:
    file_paths = [path for path in visible_files(files) if path.suffix.lower() == ".xml"]
    if not file_paths:
        return []
    image_paths = visible_images(images)
    of_files, of_images = _placed(files, file_paths), _placed(images, image_paths)
    if not of_files.keys() & of_images.keys():  # not in alike sub-folders: by names of their own
        of_files, of_images = _by_own_name(of_files), _by_own_name(of_images)
    counts[WITHOUT] += len(of_images.keys() - of_files.keys())
    counts[ALONE] += len(of_files.keys() - of_images.keys())
    counts[TWICE] += len(file_paths) - len(of_files) + len(image_paths) - len(of_images)
    return [(of_files[s], of_images[s]) for s in sorted(of_files.keys() & of_images.keys())]


def _placed(folder: Path, paths: Iterable[Path]) -> dict[str, Path]:
    """Return place below the folder, without the suffix → path."""
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}


def _by_own_name(placed: Mapping[str, Path]) -> dict[str, Path]:
    """Return stem → path, of stems that only one path has."""
    count = Counter(path.stem for path in placed.values())
    return {path.stem: path for path in placed.values() if count[path.stem] == 1}


def class_names(files: Iterable[Path]) -> tuple[str, ...]:
    """Return the names of the classes of all objects, sorted; damaged files are told by readers."""
    names: set[str] = set()
    for file in files:
        with suppress(DataError):
            tree = parse(file)
            names |= {(one.findtext("name") or "").strip() for one in tree.iter("object")}
    return tuple(sorted(names - {""}))


def parse(file: Path) -> ElementTree.Element:
    """Parse a file without a document type: only there could entities be declared.

    Raises:
        DataError: it has one, or cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        if "<!DOCTYPE" not in text:
            return ElementTree.fromstring(text)
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise DataError(f"{file.name} in {file.parent} cannot be read: {error}") from None
    raise DataError(f"{file.name} in {file.parent} must have no DOCTYPE.")


def find(folder: Path) -> Layout | None:
    """Recognise images with XML files."""
    if any((folder / base).is_dir() for base in ("VOCdevkit", "VOC2007", "VOC2012")):
        return None  # VOC's own
    splits = {split: listed for split in SPLITS if (listed := xml_files(folder, split))}
    if "train" not in splits:
        splits = {"train": xml_files(folder, None)}
    train = splits["train"]
    names = class_names(file for file, _ in train)
    if not train or not names:
        return None
    counts = {split: len(listed) for split, listed in splits.items()}
    return Layout(
        "detection",
        "XML files as PASCAL VOC has them",
        folder,
        data_of("detection", "xml", folder, **scoring(counts)),
        names,
        after_draw(counts),
        sizes_of([image for _, image in train]),
    )


def require_xml_files(
    root: Path, split: str | None, repairs: Counter[str], max_skipped: float
) -> Listed:
    """Return the XML files of a split with their images.

    Args:
        root: of the set.
        split: as of `xml_files`.
        repairs: what is left out is counted here.
        max_skipped: largest share of the split that may be left out although it is annotated.

    Raises:
        DataError: there are none, or too many are left out.
    """
    listed = xml_files(root, split, repairs)
    if not listed:
        raise DataError(
            f"`root` (={str(root)!r}) must hold images with XML files of the split "
            f"{split or 'train'!r}; `val_share` draws the scored images of a set without splits."
        )
    lost = {kind: repairs[kind] for kind in LOST if repairs[kind]}
    if not few_enough(sum(lost.values()), len(listed) + sum(lost.values()), max_skipped):
        told = ", ".join(f"{kind}: {count}" for kind, count in lost.items())
        raise DataError(f"{split or 'the set'} in {root.name}: {told}. {allowed(max_skipped)}")
    return listed
