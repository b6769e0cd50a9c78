"""Every field of every format of masks, with every bad value: named, or left out and counted."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.errors import DataError, UserError
from tasks import SegmentationData
from tasks.layouts.ade20k import class_names
from tasks.segmentation.ade20k import read_ade20k
from tasks.segmentation.checks import checked
from tasks.segmentation.mask_folders import read_mask_folders
from tasks.segmentation.masks import MaskSet, read_mask
from tasks.segmentation.voc_masks import read_voc_masks

bad = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "bad_values.py")))
anything, outcome = bad.anything, bad.outcome


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVBOARD_CACHE", str(tmp_path / "cache"))


def save(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(array))
    (image if mode is None else image.convert(mode)).save(path)


def pair(root, images, masks, stem, suffix=".jpg", label=1):
    save(root / images / f"{stem}{suffix}", np.zeros((12, 10, 3), np.uint8))
    save(root / masks / f"{stem}.png", np.full((12, 10), label, np.uint8))


# Lists of classes


@pytest.fixture
def ade(tmp_path):
    root = tmp_path / "set"
    for stem in ("a", "b"):
        pair(root, "images/training", "annotations/training", stem)
    (root / "objectInfo150.txt").write_text("Idx\tRatio\tName\n1\t0.1\twall\n2\t0.2\tsky\n")
    return root


@pytest.mark.parametrize("value", bad.TEXT.values(), ids=bad.TEXT)
@pytest.mark.parametrize(("column", "field"), [(0, "Idx"), (2, "name"), (2, "missing")])
def test_every_field_of_a_list_of_classes(ade, column, field, value):
    cells = ["2", "0.2", "sky"]
    cells[column] = value
    if field == "missing":
        del cells[column:]
    (ade / "objectInfo150.txt").write_text(
        f"Idx\tRatio\tName\n1\t0.1\twall\n{chr(9).join(cells)}\n"
    )
    names, message = outcome(class_names, ade)
    if names is None:
        assert "objectInfo150.txt" in message
        assert "line 3" in message or "class 2" in message
        assert f"`{field}`" in message or "`Name`" in message
        assert message.isprintable()
    else:
        # any text is a name
        assert field == "name"
        assert names == ("wall", value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "names no classes"),
        (b"Idx\tName\n", "names no classes"),
        (b"\xff\xfe", "cannot be read"),
        (b"1\n2\n", "has no `Name`"),
        (b"Idx\tName\n1\tsky\n2\tsky\n", r"class 2 of .*`name` \(='sky'\) must not be .* class 1"),
        (b"Idx\tName\n1\tsky\n1\twall\n", r"line 3 .*`Idx` \(='1'\) must be 2"),
    ],
)
def test_lists_of_classes_that_cannot_be(ade, text, message):
    (ade / "objectInfo150.txt").write_bytes(text)
    with pytest.raises(DataError, match=message):
        class_names(ade)


@given(st.binary(max_size=60))
@anything
def test_any_bytes_as_a_list_of_classes(ade, content):
    (ade / "objectInfo150.txt").write_bytes(content)
    names, message = outcome(class_names, ade)
    assert names or "objectInfo150.txt" in message


@pytest.mark.parametrize("value", [0, -1, 255, 2**40, True, 2.0, "2", [2], float("nan")])
def test_numbers_of_classes_that_cannot_be(ade, value):
    with pytest.raises(UserError, match=r"`num_classes` \(=.*\) must be an integer from 1 to 254"):
        class_names(ade, value)


@pytest.fixture
def folders(tmp_path):
    root = tmp_path / "set"
    for stem in ("a", "b"):
        pair(root, "images/train", "masks/train", stem)
    (root / "classes.txt").write_text("land\nsea\n")
    return root


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", r"classes\.txt names no classes"),
        (b"\n \n", r"classes\.txt names no classes"),
        (b"\xff", r"classes\.txt in .* cannot be read"),
        (b"sea\nland\nsea\n", r"class 3 of classes\.txt: `name` \(='sea'\) must not be"),
    ],
)
def test_names_of_classes_that_cannot_be(folders, text, message):
    (folders / "classes.txt").write_bytes(text)
    with pytest.raises(DataError, match=message):
        read_mask_folders(folders, "train")


@pytest.mark.parametrize("names", [(), ("a", "a"), ("a", ""), ("a", None), ("a", 3)])
def test_given_names_of_classes_that_cannot_be(folders, names):
    with pytest.raises(DataError, match=r"names no classes|class 2 of .*: `name`"):
        read_mask_folders(folders, "train", class_names=names)


def test_more_classes_than_a_mask_can_hold(folders):
    names = tuple(map(str, range(256)))
    MaskSet((), names[:255])
    MaskSet((), names[:254], zero_ignored=True)
    for many, zero_ignored in ((names, False), (names[:255], True)):
        with pytest.raises(DataError, match="holds at most"):
            MaskSet((), many, zero_ignored)


# Files


def test_other_files_are_counted(folders, ade):
    for path in (folders / "images/train/a.txt", folders / "masks/train/sub/b.svg"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    (folders / "images/train/.hidden").write_text("")
    assert read_mask_folders(folders, "train").skipped == {"other suffix": 2}
    for kind in ("images", "masks"):
        (folders / kind / "val").symlink_to(folders / kind / "train")
    data = SegmentationData("masks", str(folders), image_size=8, batch_size=2)
    assert data.describe()["skipped"]["other suffix"] == 4
    (ade / "images/training/Thumbs.db").write_text("")
    masks = read_ade20k(ade, "train")
    assert masks.skipped == masks.subset([0]).skipped == {"other suffix": 1}


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "VOC2012"
    for stem in ("a", "b"):
        pair(root, "JPEGImages", "SegmentationClass", stem)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    return root


def voc_list(root, text):
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text(text)
    return root


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "C:\\a", "a/../../b"])
def test_lists_of_voc_that_lead_out_of_the_folder(voc, name):
    with pytest.raises(DataError, match=r"line 2 of train\.txt: `name`"):
        read_voc_masks(voc_list(voc, f"a\n{name}\n"), "train")


def test_an_image_that_voc_lists_twice_is_counted(voc):
    masks = read_voc_masks(voc_list(voc, "a\n\nb\na\n"), "train")
    assert [image.stem for image, _ in masks.pairs] == ["a", "b"]
    assert masks.skipped == {"image listed twice": 1}


def test_an_image_or_mask_that_voc_lists_and_lacks_is_counted_as_damaged(voc):
    masks = read_voc_masks(voc_list(voc, "a\nc\n"), "train")
    with pytest.raises(DataError, match=r"can't be read: c\.jpg \(not there\)"):
        checked({"train": masks}, voc)
    left = checked({"train": masks}, voc, max_skipped=0.01)[0]["train"]
    assert [image.stem for image, _ in left.pairs] == ["a"]
    assert left.skipped["not there"] == 1
    with pytest.raises(DataError, match=r"None of the files that .* names is in JPEGImages"):
        read_voc_masks(voc_list(voc, "c\nd\n"), "train")


@given(st.text(max_size=30))
@anything
def test_any_text_as_a_list_of_voc(voc, text):
    masks, message = outcome(
        read_voc_masks, voc_list(voc, text.encode("utf-8", "replace").decode()), "train"
    )
    assert masks or "train.txt" in message
    assert message.isprintable() or "\n" not in text


# Masks


def write_mask(root, array, mode=None, suffix=".png"):
    (root / "masks" / "train" / "a.png").unlink()
    save(root / "masks" / "train" / f"a{suffix}", array, mode)
    return read_mask_folders(root, "train")


CASES = {
    "another class": (np.full((12, 10), 2, np.uint8), r"outside 0…1 .*: a\.png \(2\)"),
    "16 bits": (np.full((12, 10), 300, np.uint16), r"outside 0…1 .*: a\.png \(300\)"),
    "32 bits": (np.full((12, 10), 70_000, np.int32), r"outside 0…1 .*: a\.tif \(70000\)"),
    "negative": (np.full((12, 10), -1, np.int32), r"outside 0…1 .*: a\.tif \(-1\)"),
    "many": (np.arange(120, dtype=np.uint16).reshape(12, 10) * 9, r"\(9, 18, 27 and 116 more\)"),
    "not finite": (np.full((12, 10), np.nan, np.float32), r"can't be used .*a\.tif .*mode F"),
    "colour": (
        np.arange(360, dtype=np.uint8).reshape(12, 10, 3),
        r"can't be used as masks: a\.png .*mode RGB",
    ),
    "stretched": (np.zeros((24, 20), np.uint8), r"differ in size .*: a\.jpg \(10×12 and 20×24\)"),
    "turned": (np.zeros((10, 12), np.uint8), r"differ in size .*: a\.jpg \(10×12 and 12×10\)"),
}


@pytest.mark.parametrize(("array", "message"), CASES.values(), ids=CASES)
def test_masks_that_cannot_be_are_named(folders, array, message):
    suffix = ".tif" if array.dtype in (np.int32, np.float32) else ".png"
    masks = write_mask(folders, array, suffix=suffix)
    with pytest.raises(DataError, match=message):
        checked({"train": masks}, folders)
    if array.max() > 255 or array.min() < 0:
        with pytest.raises(DataError, match="labels must be from 0 to 255"):
            read_mask(folders / "masks" / "train" / f"a{suffix}")


def test_every_kind_of_grey_mask_is_the_same(folders):
    array = np.tile(np.array([0, 1], np.uint8), (12, 5))
    for dtype, suffix in (
        (np.uint8, ".png"),
        (np.uint16, ".png"),
        (np.int32, ".tif"),
        (bool, ".png"),
    ):
        path = folders / f"{np.dtype(dtype).name}{suffix}"
        save(path, array.astype(dtype))
        assert np.array_equal(read_mask(path), array), dtype
        assert read_mask(path).dtype == np.uint8


@pytest.mark.parametrize(("label", "zero_ignored"), [(255, False), (255, True), (0, True)])
def test_a_set_without_a_pixel_of_a_class_is_an_error(folders, label, zero_ignored):
    for path in (folders / "masks" / "train").iterdir():
        save(path, np.full((12, 10), label, np.uint8))
    with pytest.raises(DataError, match=r"No mask of .* has a pixel of a class"):
        checked({"train": read_mask_folders(folders, "train", zero_ignored=zero_ignored)}, folders)


@pytest.mark.parametrize("victim", ["images/train/a.jpg", "masks/train/a.png"])
@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n"])
def test_files_that_cannot_be_read_are_named(folders, victim, content):
    (folders / victim).write_bytes(content)
    with pytest.raises(DataError, match=rf"1 file\(s\) can't be read: {Path(victim).name} \("):
        checked({"train": read_mask_folders(folders, "train")}, folders)


def test_images_of_too_many_pixels_are_named(folders, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(DataError, match=r"can't be read: a\.jpg \(too many pixels\)"):
        checked({"train": read_mask_folders(folders, "train")}, folders)
