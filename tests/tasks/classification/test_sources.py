"""Class names, labels and identities of classification sets."""

import gzip
import json
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.errors import DataError, UserError
from tasks import ClassificationData
from tasks.classification.folders import read_class_folder
from tasks.classification.idx import CLASS_NAMES, open_debian_fashion, read_idx
from tasks.classification.sources import open_source
from tasks.classification.torchvision_sets import open_torchvision
from tasks.layouts.torchvision_sets import NAMES

anything = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVBOARD_CACHE", str(tmp_path / "cache"))


def picture(path, colour=(200, 30, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 12), colour).save(path)


# Class folders


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "val"):
        for label, name in enumerate(("10", "9", "zebra crossing", "Ärmel")):
            picture(tmp_path / "set" / split / name / "a.png", (label * 60, 0, 0))
    return tmp_path / "set"


def test_classes_are_named_as_their_folders(folder):
    source = open_source("folder", root=folder, image_size=16)
    assert source.train.class_names == ("10", "9", "zebra crossing", "Ärmel")
    for split in (source.train, source.scored):
        for index, label in enumerate(split.labels):
            assert split.load(index, 16)[0, 0, 0] == label * 60
    assert ClassificationData("folder", root=str(folder)).class_names == source.train.class_names


def test_hidden_folders_are_no_classes(folder):
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    (folder / "train" / ".git" / "x").mkdir(parents=True)
    assert len(read_class_folder(folder, "train").class_names) == 4


def test_images_of_too_many_pixels_are_counted_or_named(folder, monkeypatch):
    picture(folder / "train" / "9" / "b.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    with pytest.raises(DataError, match=r"5 of 5 images .*train/10/a\.png: too many pixels"):
        open_source("folder", root=folder, image_size=16)


# idx


def idx(path, sizes, data, magic=b"\x00\x00\x08"):
    head = magic + bytes([len(sizes)]) + b"".join(struct.pack(">I", size) for size in sizes)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(head + bytes(data)))


@pytest.fixture
def fashion(tmp_path):
    for prefix in ("train", "t10k"):
        idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", (10, 4, 4), range(160))
        idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", (10,), range(10))
    return tmp_path


IDX_IMAGES = {
    "magic": ((10, 4, 4), range(160), b"\x00\x01\x08"),
    "text": ((10, 4, 4), range(160), b"abc"),
    "other type": ((10, 4, 4), range(160), b"\x00\x00\x0d"),
    "missing": ((10, 4, 4), range(100), b"\x00\x00\x08"),
    "more": ((10, 4, 4), range(200), b"\x00\x00\x08"),
    "rank": ((160,), range(160), b"\x00\x00\x08"),
    "no images": ((0, 4, 4), (), b"\x00\x00\x08"),
    "no pixels": ((10, 0, 4), (), b"\x00\x00\x08"),
    "huge": ((2**32 - 1,) * 3, range(160), b"\x00\x00\x08"),
    "overflow": ((2**31, 2**31, 4), range(160), b"\x00\x00\x08"),
    "other number": ((9, 4, 4), range(144), b"\x00\x00\x08"),
    "infinite rank": ((1,) * 255, range(1), b"\x00\x00\x08"),
}


@pytest.mark.parametrize(("sizes", "data", "magic"), IDX_IMAGES.values(), ids=IDX_IMAGES)
@pytest.mark.parametrize("prefix", ["train", "t10k"])
def test_idx_files_that_cannot_be_are_named(fashion, prefix, sizes, data, magic):
    idx(fashion / f"{prefix}-images-idx3-ubyte.gz", sizes, data, magic)
    with pytest.raises(DataError, match=rf"{prefix}-images-idx3-ubyte\.gz"):
        open_debian_fashion(fashion)


@pytest.mark.parametrize("label", [10, 77, 255])
def test_labels_without_a_class_are_named(fashion, label):
    idx(fashion / "train-labels-idx1-ubyte.gz", (10,), [*range(9), label])
    message = rf"image 9 of train-labels-idx1-ubyte\.gz: `label` \(={label}\) must be from 0 to 9"
    with pytest.raises(DataError, match=message):
        open_debian_fashion(fashion)


@given(st.binary(max_size=40), st.booleans())
@anything
def test_any_bytes_as_an_idx_file(tmp_path, content, packed):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(content) if packed else content)
    try:
        read_idx(path)
    except DataError as error:
        message = str(error)
    else:
        message = "a.gz"
    assert "a.gz" in message


def test_a_damaged_stream_is_named(fashion):
    path = fashion / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[12:40] = b"\xff" * 28
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz"):
        open_debian_fashion(fashion)


# torchvision's sets


def write_raw(path, sizes, data):
    """Write an idx file as torchvision keeps it, unpacked."""
    idx(path, sizes, data)
    path.write_bytes(gzip.decompress(path.read_bytes()))


def mnist_like(root, name, count=10, prefixes=("train", "t10k"), labels=range(10)):
    for prefix in prefixes:
        write_raw(
            root / name / "raw" / f"{prefix}-images-idx3-ubyte",
            (count, 4, 4),
            range(count * 16) if count * 16 < 256 else bytes(count * 16),
        )
        write_raw(root / name / "raw" / f"{prefix}-labels-idx1-ubyte", (count,), labels)


def food(root, classes=("pie", "soup")):
    listing = {name: [] for name in classes}
    for label, name in enumerate(classes):
        for index in range(2):
            picture(root / "food-101" / "images" / name / f"{index}.jpg", (label * 200, index, 0))
            listing[name].append(f"{name}/{index}")
    (root / "food-101" / "meta").mkdir(parents=True, exist_ok=True)
    for split, place in (("train", 0), ("test", 1)):
        part = {name: [files[place]] for name, files in listing.items()}
        (root / "food-101" / "meta" / f"{split}.json").write_text(json.dumps(part))


def identity(name, root):
    source = open_torchvision(name, root)
    return source.revision, source.files_sha256


def test_neighbours_in_the_root_and_torchvisions_version_do_not_count(tmp_path, monkeypatch):
    food(tmp_path)
    mnist_like(tmp_path, "MNIST")
    before = {name: identity(name, tmp_path) for name in ("Food101", "MNIST")}
    assert len(set(before.values())) == 2
    monkeypatch.setattr("torchvision.__version__", "99.0")
    picture(tmp_path / "another-set" / "a.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"")
    # not listed by the set, though in its folder
    picture(tmp_path / "food-101" / "images" / "pie" / "unlisted.jpg")
    assert {name: identity(name, tmp_path) for name in before} == before


def test_the_content_counts(tmp_path):
    food(tmp_path)
    mnist_like(tmp_path, "MNIST")
    revisions = [identity(name, tmp_path) for name in ("Food101", "MNIST")]
    picture(tmp_path / "food-101" / "images" / "pie" / "1.jpg", (1, 2, 3))
    mnist_like(tmp_path, "MNIST", labels=[1, 0, *range(2, 10)])
    changed = [identity(name, tmp_path) for name in ("Food101", "MNIST")]
    assert len({*revisions, *changed}) == 4
    for revision, sha256 in changed:
        assert sha256.startswith(revision)


def test_labels_count_where_files_are_the_same(tmp_path):
    food(tmp_path)
    before = identity("Food101", tmp_path)
    for split in ("train", "test"):
        file = tmp_path / "food-101" / "meta" / f"{split}.json"
        listing = json.loads(file.read_text())
        file.write_text(json.dumps({"pie": listing["soup"], "soup": listing["pie"]}))
    assert identity("Food101", tmp_path) != before


def test_broken_images_of_the_set_are_named(tmp_path):
    food(tmp_path)
    (tmp_path / "food-101" / "images" / "soup" / "1.jpg").write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"1 file\(s\) of Food101 can't be read: food-101/images/soup/1"
    ):
        open_torchvision("Food101", tmp_path)


def imagenette(root, **classes):
    for split in ("train", "val"):
        for number, wnid in enumerate(classes.values()):
            picture(root / "imagenette2" / split / wnid / "a.jpeg", (number * 20, 0, 0))


def gtsrb(root):
    rows = ["Filename;ClassId"]
    for label in range(43):
        picture(root / "gtsrb" / "GTSRB" / "Training" / f"{label:05d}" / "a.ppm", (label, 0, 0))
        picture(root / "gtsrb" / "GTSRB" / "Final_Test" / "Images" / f"{label:05d}.ppm")
        rows.append(f"{label:05d}.ppm;{label}")
    (root / "gtsrb" / "GT-final_test.csv").write_text("\n".join(rows))


def test_names_of_torchvisions_classes(tmp_path):
    imagenette(tmp_path, tench="n01440764", spaniel="n02102040")
    source = open_torchvision("Imagenette", tmp_path)
    assert source.train.class_names == ("tench", "English springer")
    gtsrb(tmp_path)
    source = open_torchvision("GTSRB", tmp_path)
    assert source.train.class_names == NAMES["GTSRB"]
    assert len(set(NAMES["GTSRB"])) == 43
    assert source.train.class_names[14] == "stop"
    assert [int(source.train.load(i, 16)[0, 0, 0]) for i in range(43)] == list(range(43))
    mnist_like(tmp_path, "FashionMNIST")
    assert open_torchvision("FashionMNIST", tmp_path).train.class_names == CLASS_NAMES
    mnist_like(tmp_path, "KMNIST")
    names = open_torchvision("KMNIST", tmp_path).scored.class_names
    assert names == ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


def test_emnists_letters_count_from_one(tmp_path):
    prefixes = ("emnist-letters-train", "emnist-letters-test")
    mnist_like(tmp_path, "EMNIST", 26, prefixes, labels=range(1, 27))
    source = open_torchvision("EMNIST", tmp_path, options={"split": "letters"})
    assert source.train.class_names == tuple("abcdefghijklmnopqrstuvwxyz")
    assert source.train.labels.tolist() == list(range(26))
    with pytest.raises(UserError, match=r"`options` \(=\{\}\) must have `split` for EMNIST"):
        open_torchvision("EMNIST", tmp_path)


def test_labels_of_torchvisions_sets_that_cannot_be(tmp_path):
    mnist_like(tmp_path, "MNIST", labels=[*range(9), 200])
    with pytest.raises(DataError, match=r"image 9 of torchvision's MNIST .*`label` \(=200\)"):
        open_torchvision("MNIST", tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"pie": [1]}', '{"pie": null}'])
def test_lists_of_torchvisions_sets_that_cannot_be(tmp_path, content):
    food(tmp_path)
    (tmp_path / "food-101" / "meta" / "train.json").write_text(content)
    with pytest.raises(DataError, match="Food101"):
        open_torchvision("Food101", tmp_path)


@pytest.mark.parametrize("cut", [0, 3, 10, 100])
def test_arrays_of_torchvisions_sets_that_are_cut_off(tmp_path, cut):
    mnist_like(tmp_path, "MNIST")
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"torchvision's MNIST cannot be read"):
        open_torchvision("MNIST", tmp_path)


def test_a_labels_type_is_an_integer(fashion):
    source = open_debian_fashion(fashion)
    assert source.train.labels.dtype == np.int64
    assert source.revision == source.files_sha256[:12]
