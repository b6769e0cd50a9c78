"""Odd images and masks are read as they were meant, and what is done is counted."""

import numpy as np
import pytest
from PIL import Image

from bench.errors import DataError
from tasks import SegmentationData
from tasks.data.checked import AS_STORED, TRAINED_TOO, TURNED
from tasks.data.images import ORIENTATION
from tasks.segmentation.checks import BINARY
from tasks.segmentation.masks import GREY_AS_COLOUR

WIDTH, HEIGHT = 40, 24


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVBOARD_CACHE", str(tmp_path / "cache"))


def pair(folder, split, mask, held=1, suffix=".png", **options):
    """A photo of 40×24 whose left quarter is red, and its mask."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, :10, 0] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = held
    for part in ("images", "masks"):
        (folder / split / part).mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / split / "images/1.jpg", exif=exif, comment=split)
    Image.fromarray(mask).save(folder / split / f"masks/1{suffix}", **options)


def halves(low, high, shape=(HEIGHT, WIDTH)):
    mask = np.full(shape, low, np.uint8)
    mask[: shape[0] // 2] = high
    return mask


def data(folder, classes=("ground", "roof"), **more):
    return SegmentationData(
        "masks", str(folder), class_names=list(classes), batch_size=1, image_size=8, **more
    )


@pytest.mark.parametrize(
    ("held", "shape", "told"),
    [
        (6, (WIDTH, HEIGHT), TURNED),
        (6, (HEIGHT, WIDTH), AS_STORED),
        (3, (HEIGHT, WIDTH), TURNED),
    ],
)
def test_the_mask_tells_which_way_a_photo_stands(tmp_path, held, shape, told):
    for split in ("train", "val"):
        pair(tmp_path, split, halves(0, 1, shape), held)
    module = data(tmp_path)
    assert module.describe()["skipped"] == {told: 2}
    image, truth = module.example("train", 0)
    assert tuple(image.shape[1:]) == tuple(truth["mask"].shape) == shape
    assert bool(image[0, 1, shape[1] // 2] > 200) == (held == 6 and told == TURNED)
    assert bool(image[0, shape[0] // 2, -2] > 200) == (held == 3)


def test_photos_upside_down_are_left_where_others_lie(tmp_path):
    pair(tmp_path, "train", halves(0, 1), held=6)
    pair(tmp_path, "val", halves(0, 1), held=3)
    assert data(tmp_path).describe()["skipped"] == {AS_STORED: 2}


def test_masks_of_black_and_white_have_two_classes(tmp_path):
    for split in ("train", "val"):
        pair(tmp_path, split, halves(0, 255))
    module = data(tmp_path)
    assert module.describe()["skipped"] == {BINARY: 2}
    half = WIDTH * HEIGHT // 2
    assert module.class_counts("train") == {"ground": half, "roof": half}
    module.setup("fit")
    assert set(module.val_set[0][1].unique().tolist()) == {0, 1}


def test_masks_in_jpeg_are_split_in_the_middle(tmp_path):
    noisy = halves(0, 255)
    noisy[::5] ^= 3
    for split in ("train", "val"):
        pair(tmp_path, split, noisy, suffix=".jpg", quality=60)
    module = data(tmp_path)
    assert module.describe()["skipped"] == {BINARY: 2}
    assert module.class_counts("val")["roof"] == WIDTH * HEIGHT // 2


def test_255_is_ignored_where_a_mask_has_class_1(tmp_path):
    mask = halves(0, 1)
    mask[:2] = 255
    for split in ("train", "val"):
        pair(tmp_path, split, mask)
    module = data(tmp_path)
    assert module.describe()["skipped"] == {}
    assert module.class_counts("train")["roof"] == (HEIGHT // 2 - 2) * WIDTH


def test_labels_that_are_nearly_all_ignored_and_classes_that_never_occur_are_told(tmp_path):
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[0, :10] = 1
    for split in ("train", "val"):
        pair(tmp_path, split, mask)
    told = data(tmp_path, ("ground", "roof", "tree")).describe()["skipped"]
    assert told == {
        "mask of 'train', of whose pixels 99.0% are ignored": 1,
        "mask of 'val', of whose pixels 99.0% are ignored": 1,
        "class without a pixel in 'train' (ground, tree)": 2,
        "class without a pixel in 'val' (ground, tree)": 2,
    }


def test_black_and_white_masks_in_ade20ks_layout_are_an_error_that_says_what_helps(tmp_path):
    for split, name in (("train", "training"), ("val", "validation")):
        pair(tmp_path, split, halves(0, 255))
        for part, new in (("images", "images"), ("masks", "annotations")):
            (tmp_path / new).mkdir(exist_ok=True)
            (tmp_path / split / part).rename(tmp_path / new / name)
    module = SegmentationData("ade20k", str(tmp_path), num_classes=2, batch_size=1)
    with pytest.raises(DataError, match=r"They hold 0 and 255, .*`source` 'masks' with two"):
        module.prepare_data()


def test_grey_masks_stored_in_colours(tmp_path):
    for split in ("train", "val"):
        pair(tmp_path, split, np.repeat(halves(0, 1)[..., None], 3, axis=2))
    module = data(tmp_path)
    assert module.describe()["skipped"] == {GREY_AS_COLOUR: 2}
    assert module.class_counts("train")["roof"] == WIDTH * HEIGHT // 2


def test_a_scored_image_that_is_trained_on_too_is_told(tmp_path):
    for split in ("train", "val"):
        pair(tmp_path, split, halves(0, 1))
    photo = (tmp_path / "train/images/1.jpg").read_bytes()
    (tmp_path / "val/images/1.jpg").write_bytes(photo)
    assert data(tmp_path).describe()["skipped"] == {TRAINED_TOO: 1}


def test_hidden_files_are_no_pairs(tmp_path):
    for split in ("train", "test"):
        pair(tmp_path, split, halves(0, 1))
    shadow = tmp_path / "train/images/.ipynb_checkpoints/1-checkpoint.jpg"
    shadow.parent.mkdir()
    shadow.write_bytes((tmp_path / "train/images/1.jpg").read_bytes())
    (tmp_path / "train/masks/._1.png").write_bytes(b"shadow")
    module = data(tmp_path, scored="test")
    assert module.describe()["skipped"] == {"image of a hidden folder or name left out": 2}
    assert module.describe()["split"] == "test"


def test_one_damaged_pair_of_many_is_left_out_and_counted(tmp_path):
    for split in ("train", "val"):
        pair(tmp_path, split, halves(0, 1))
    for number in range(2, 5):
        for part, suffix in (("images", ".png"), ("masks", ".png")):
            first = tmp_path / "train" / part / ("1.jpg" if part == "images" else "1.png")
            (tmp_path / "train" / part / f"{number}{suffix}").write_bytes(first.read_bytes())
    (tmp_path / "train/masks/2.png").write_bytes(b"no mask")
    module = data(tmp_path)
    assert module.split_sizes == (3, 1)
    assert module.describe()["skipped"] == {"not an image": 1}
    with pytest.raises(DataError, match=r"can't be read: 2\.png \(not an image\)"):
        data(tmp_path, max_skipped=0).prepare_data()
