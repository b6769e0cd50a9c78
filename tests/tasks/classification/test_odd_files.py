"""Odd files of class folders are read as they were meant, and what is done is counted."""

import numpy as np
import pytest
from PIL import Image

from tasks import ClassificationData
from tasks.data import images
from tasks.data.checked import TRAINED_TOO, TURNED
from tasks.data.images import ORIENTATION
from tasks.data.listing import HIDDEN


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVBOARD_CACHE", str(tmp_path / "cache"))
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            path = tmp_path / "set" / split / name / "1.jpg"
            Image.new("RGB", (30, 20), (90, 60, 30)).save(path, comment=f"{split} {name}")
    return tmp_path / "set"


def data(folder):
    return ClassificationData("folder", root=str(folder), image_size=8, batch_size=1)


def test_photos_stand_upright(folder):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, :10] = 255
    Image.fromarray(pixels).save(folder / "train/ant/1.jpg", exif=exif)
    module = data(folder)
    assert module.describe()["skipped"] == {TURNED: 1}
    image, truth = module.example("train", 0)
    assert (tuple(image.shape[1:]), int(truth["label"])) == ((30, 20), 0)
    assert image[0, 2].min() > 240
    assert image[0, -2].max() < 20


def test_checkpoints_and_shadows_are_neither_classes_nor_images(folder):
    for name in ("train/.ipynb_checkpoints", "train/ant/.ipynb_checkpoints", "train/__MACOSX/bee"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (30, 20)).save(folder / name / "1-checkpoint.jpg")
    (folder / "train/bee/._1.jpg").write_bytes(b"\0\5\x16\7")
    module = data(folder)
    assert module.class_names == ("ant", "bee")
    assert module.split_sizes == (2, 2)
    # those of folders that are no class are nobody's
    assert module.describe()["skipped"] == {HIDDEN: 2}


def test_deep_and_see_through_images_are_counted(folder):
    deep = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    Image.fromarray(deep).save(folder / "train/ant/2.png")
    Image.new("RGBA", (30, 20), (0, 0, 0, 0)).save(folder / "val/bee/2.png")
    module = data(folder)
    assert module.describe()["skipped"] == {images.DEEP: 1, images.TRANSPARENT: 1}
    image, _ = module.example("train", 1)
    assert (image.min(), image.max()) == (0, 255)
    assert 100 < image.float().mean() < 150
    image, _ = module.example("val", 2)
    assert image.min() == 255


def test_a_scored_image_that_is_trained_on_too_is_told(folder):
    photo = (folder / "train/ant/1.jpg").read_bytes()
    (folder / "val/bee/of_another_name.jpg").write_bytes(photo)
    assert data(folder).describe()["skipped"] == {TRAINED_TOO: 1}
    (folder / "train/ant/again.jpg").write_bytes(photo)
    (folder / "val").rename(folder / "rest")
    drawn = ClassificationData("folder", root=str(folder / "train"), val_share=0.5, batch_size=1)
    assert drawn.describe()["skipped"][TRAINED_TOO] == 1
