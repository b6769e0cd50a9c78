"""Segmentation data: genuine layouts are read, faults are named before training, draws repeat."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

import tasks
from bench.errors import DataError
from tasks.data.images import read_image
from tasks.layouts.ade20k import class_names
from tasks.segmentation.ade20k import read_ade20k
from tasks.segmentation.masks import IGNORED, read_mask
from tasks.segmentation.transforms import (
    RandomCropByClass,
    RandomScale,
    evaluation_transform,
    training_transform,
)

REAL = Path(os.environ.get("CONVBOARD_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVBOARD_CACHE", str(tmp_path / "cache"))


def save(path, array, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(array, np.uint8))
    if palette:
        image = image.convert("P") if image.mode != "L" else _with_palette(image)
    image.save(path)


def _with_palette(image):
    coloured = Image.frombytes("P", image.size, image.tobytes())
    coloured.putpalette([value % 256 for value in range(768)])
    return coloured


def picture(mask):
    """An image whose red channel tells the label, so that misplaced masks show."""
    shown = np.where(np.asarray(mask) == 255, 0, np.asarray(mask)) * 20
    return np.stack([shown, shown, shown], -1).astype(np.uint8)


def ade20k(root, train=6, val=3, size=(20, 28)):
    rng = np.random.default_rng(0)
    for folder, short, count in (("training", "train", train), ("validation", "val", val)):
        for i in range(1, count + 1):
            mask = rng.integers(0, 4, size)
            save(root / "annotations" / folder / f"ADE_{short}_{i:08d}.png", mask)
            save(root / "images" / folder / f"ADE_{short}_{i:08d}.jpg", picture(mask))
    rows = ["Idx\tRatio\tTrain\tVal\tStuff\tName", "1\t0.15\t11664\t1172\t1\twall"]
    rows += ["2\t0.10\t6046\t612\t1\tbuilding, edifice", "3\t0.08\t8265\t796\t1\tsky"]
    (root / "objectInfo150.txt").write_text("\n".join(rows) + "\n")
    return root


def data(root, source="ade20k", **options):
    options = {"image_size": 16, "batch_size": 3, **options}
    return tasks.SegmentationData(source, str(root), **options)


# Layouts.


def test_ade20k_layout(tmp_path):
    root = ade20k(tmp_path / "ADEChallengeData2016")
    found = read_ade20k(tmp_path, "val")
    assert found.class_names == ("wall", "building, edifice", "sky")
    assert [p.name for p, _ in found.pairs] == [f"ADE_val_{i:08d}.jpg" for i in (1, 2, 3)]
    _, mask_path = found.pairs[0]
    stored = np.array(Image.open(mask_path))
    labels = read_mask(mask_path, zero_ignored=True)
    assert np.array_equal(labels == IGNORED, stored == 0)
    assert np.array_equal(labels[stored > 0], stored[stored > 0] - 1)
    module = data(root)
    module.prepare_data()
    module.setup("fit")
    assert (module.num_classes, module.class_names[0]) == (3, "wall")
    images, masks = next(iter(module.train_dataloader()))
    assert images.shape == (3, 3, 16, 16)
    assert images.dtype == torch.float32
    assert 0 <= images.min() <= images.max() <= 1
    assert masks.shape == (3, 16, 16)
    assert masks.dtype == torch.int64
    assert set(masks.unique().tolist()) <= {0, 1, 2, 255}
    image, mask = module.val_set[0]
    assert image.shape == (3, 16, 22)  # the short side is 16, the mask stays
    assert mask.shape == (20, 28)
    assert type(image) is torch.Tensor


def test_voc_layout(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, names in (("train", ["2007_000032", "2007_000039"]), ("val", ["2007_000033"])):
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            mask = np.zeros((12, 10))
            mask[2:6], mask[6], mask[8:] = 15, 255, 20
            save(root / "SegmentationClass" / f"{name}.png", mask, palette=True)
            save(root / "JPEGImages" / f"{name}.jpg", picture(mask))
    save(root / "JPEGImages" / "not_segmented.jpg", picture(np.zeros((12, 10))))
    module = data(tmp_path, "voc", batch_size=2)
    module.prepare_data()
    module.setup("fit")
    assert module.num_classes == 21
    assert len(module.train_set) == 2
    assert module.val_set[0][1].unique().tolist() == [0, 15, 20, 255]
    (root / "JPEGImages" / "2007_000033.jpg").unlink()
    with pytest.raises(DataError, match="2007_000033"):
        data(tmp_path, "voc").prepare_data()


def test_generic_folders(tmp_path):
    for split in ("train", "val"):
        mask = np.array([[0, 1, 2, 255]] * 4)
        save(tmp_path / "images" / split / "town" / "a_leftImg8bit.png", picture(mask))
        save(tmp_path / "masks" / split / "town" / "a_gtFine_labelTrainIds.png", mask)
        save(tmp_path / "masks" / split / "town" / "a_gtFine_color.png", picture(mask))
    suffixes = {"image_suffix": "_leftImg8bit.png", "mask_suffix": "_gtFine_labelTrainIds.png"}
    with pytest.raises(DataError, match="class_names"):
        data(tmp_path, "masks", **suffixes).prepare_data()
    (tmp_path / "classes.txt").write_text("road\nsky\ncar\n")
    module = data(tmp_path, "masks", batch_size=1, **suffixes)
    module.prepare_data()
    module.setup("fit")
    assert module.class_names == ("road", "sky", "car")
    assert module.val_set[0][1].tolist() == [[0, 1, 2, 255]] * 4
    shifted = data(
        tmp_path, "masks", batch_size=1, class_names=["sky", "car"], zero_ignored=True, **suffixes
    )
    shifted.prepare_data()
    shifted.setup("fit")
    assert shifted.val_set[0][1].tolist() == [[255, 0, 1, 255]] * 4


@pytest.mark.parametrize("source", ["scenes", "paths"])
def test_generated_sets(source):
    options = {"train": 12, "val": 10, **({"classes": 4} if source == "scenes" else {})}
    module = tasks.SegmentationData(source, image_size=64, batch_size=4, options=options)
    assert module.num_classes == (5 if source == "scenes" else 3)
    module.prepare_data()
    module.setup("fit")
    images, masks = next(iter(module.val_dataloader()))
    assert images.shape == (4, 3, 64, 64)
    assert masks.shape == (4, 64, 64)
    described = module.describe()
    assert described["train_samples"] == 12
    assert described["scored_samples"] == 10
    from bench.record import Data

    assert Data(**described).name == source


# Faults.


def _no_folder(root):
    (root / "annotations" / "validation").rename(root / "away")
    return "no folder of masks at .*validation"


def _no_mask(root):
    (root / "annotations" / "training" / "ADE_train_00000002.png").unlink()
    return "1 of 6 images in .* have no mask in .*: ADE_train_00000002"


def _no_image(root):
    (root / "images" / "validation" / "ADE_val_00000001.jpg").unlink()
    return "1 of 3 masks in .* have no image in .*: ADE_val_00000001"


def _sizes(root):
    save(root / "annotations" / "training" / "ADE_train_00000003.png", np.zeros((28, 20)))
    return r"differ in size .*: ADE_train_00000003.jpg \(28×20 and 20×28\)"


def _labels(root):
    save(root / "annotations" / "validation" / "ADE_val_00000002.png", np.full((20, 28), 9))
    return r"hold labels outside 0…3 \(and 255\): ADE_val_00000002.png \(9\)"


def _colour(root):
    colours = np.tile([[[1, 2, 3]]], (20, 28, 1))
    save(root / "annotations" / "training" / "ADE_train_00000001.png", colours)
    return "colour image"


def _broken(root):
    path = root / "images" / "training" / "ADE_train_00000004.jpg"
    path.write_bytes(path.read_bytes()[:200])
    return "can't be read: ADE_train_00000004.jpg"


def _twice(root):
    save(root / "images" / "training" / "ADE_train_00000004.png", np.zeros((20, 28, 3)))
    return "ADE_train_00000004.* have the same name"


def _no_list(root):
    (root / "objectInfo150.txt").unlink()
    return "num_classes"


def _bad_list(root):
    (root / "objectInfo150.txt").write_text("Idx\tName\n1\twall\n3\tsky\n")
    return "must be 1, 2, 3"


def _empty(root):
    for path in (root / "images" / "training").iterdir():
        path.unlink()
    return "no images"


FAULTS = [
    _no_folder, _no_mask, _no_image, _sizes, _labels, _colour, _broken, _twice, _no_list,
    _bad_list, _empty,
]  # fmt: skip


@pytest.mark.parametrize("damage", FAULTS)
def test_faults_are_named_before_training(tmp_path, damage):
    root = ade20k(tmp_path / "set")
    module = data(root)
    module.prepare_data()  # it was whole, and is remembered so
    message = damage(root)
    with pytest.raises(DataError, match=message):
        data(root, max_skipped=0).prepare_data()


def test_wrong_arguments_are_named(tmp_path):
    root = ade20k(tmp_path / "set")
    cases = {
        r"`source` \(='ade'\).*ade20k": {"source": "ade"},
        r"`holdout` \(=0.9\)": {"holdout": 0.9},
        r"`batch_size` \(=0\)": {"batch_size": 0},
        r"`scale` \(=\(2.0, 0.5\)\)": {"scale": (2.0, 0.5)},
        r"`flip` \(=2\)": {"flip": 2},
        r"`options` \(=\{'train': 4\}\)": {"options": {"train": 4}},
        r"`class_names` \(=\['a'\]\) must be left out for": {"class_names": ["a"]},
        r"`zero_ignored` \(=True\) must be left out for": {"zero_ignored": True},
        r"`mask_suffix` \(='_m.png'\) must be left out for": {"mask_suffix": "_m.png"},
        r"`num_classes` \(=3\) must be left out for": {"source": "masks", "num_classes": 3},
        r"`eval_longest` \(=64\) must be None unless": {
            "eval_size": "original",
            "eval_longest": 64,
        },
    }
    for message, options in cases.items():
        with pytest.raises(ValueError, match=message):
            data(root, **options)
    with pytest.raises(ValueError, match=r"`options` \('lenght'\).*length"):
        tasks.SegmentationData("paths", options={"lenght": 4})
    with pytest.raises(ValueError, match=r"`options` \('task'\)"):
        tasks.SegmentationData("scenes", options={"task": "detection"})
    with pytest.raises(ValueError, match="`root`"):
        tasks.SegmentationData("voc")
    with pytest.raises(DataError, match="must be a folder"):
        data(tmp_path / "nowhere").prepare_data()
    with pytest.raises(DataError, match=r"`batch_size` \(=7\)"):
        data(root, batch_size=7).prepare_data()
    with pytest.raises(DataError, match=r"`num_classes` \(=4\)"):
        class_names(root, 4)


def test_hash_of_the_files_is_that_of_their_contents(tmp_path):
    one, other = ade20k(tmp_path / "one"), ade20k(tmp_path / "other")
    first = data(one).describe()["files_sha256"]
    assert data(other).describe()["files_sha256"] == first
    save(other / "annotations" / "training" / "ADE_train_00000001.png", np.zeros((20, 28)))
    assert data(other).describe()["files_sha256"] != first


# Order, augmentation, transforms.


def _epoch(module, epoch):
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [torch.cat([b[0], b[1][:, None] / 255], 1) for b in loader]


def test_augmentation_is_a_function_of_seed_epoch_and_image(tmp_path):
    root = ade20k(tmp_path / "set")

    def batches(epoch, workers=0, **options):
        module = data(root, num_workers=workers, **options)
        module.prepare_data()
        module.setup("fit")
        torch.manual_seed(torch.randint(1000, ()).item())  # whatever was drawn before
        return torch.cat(_epoch(module, epoch))

    first = batches(0)
    assert torch.equal(first, batches(0))
    assert torch.equal(first, batches(0, workers=2))
    assert not torch.equal(first, batches(1))
    assert not torch.equal(first, batches(0, seed=1))
    # Neither what is kept in memory nor another batch size changes order or images.
    assert torch.equal(first, batches(0, memory_mb=0))
    assert torch.equal(first, batches(0, batch_size=2))


def test_images_in_memory_are_not_changed_by_their_augmentation(tmp_path):
    module = data(ade20k(tmp_path / "set"))
    module.prepare_data()
    module.setup("fit")
    first, _, again = _epoch(module, 0), _epoch(module, 1), _epoch(module, 0)
    assert torch.equal(torch.cat(first), torch.cat(again))


def test_images_and_masks_move_together(tmp_path):
    mask = np.random.default_rng(0).integers(0, 10, (24, 40))
    image = tv_tensors.Image(torch.from_numpy(picture(mask)).permute(2, 0, 1))
    labels = tv_tensors.Mask(torch.from_numpy(mask))
    move = training_transform((16, 16), scale=(1.5, 1.5), largest_share=1.0, photometric=False)
    for seed in range(20):
        torch.manual_seed(seed)
        moved, seen = move(image, labels)
        # The scale makes the short side 24 as it was, so nothing is interpolated.
        assert torch.equal((moved[0] * 255 / 20).round().long(), seen.as_subclass(torch.Tensor))


def test_small_images_are_padded_with_ignored_labels():
    image, mask = tv_tensors.Image(torch.full((3, 10, 12), 7)), tv_tensors.Mask(torch.ones(10, 12))
    moved, seen = RandomCropByClass((16, 20))(image, mask)
    assert moved.shape == (3, 16, 20)
    assert (moved == 7).all()
    assert (seen[:10, :12] == 1).all()
    assert (seen == IGNORED).sum() == 16 * 20 - 10 * 12


def test_crops_of_one_class_are_drawn_again():
    mask = tv_tensors.Mask(torch.zeros(32, 64, dtype=torch.int64))
    mask[:, 44:] = 1
    image = tv_tensors.Image(torch.zeros(3, 32, 64, dtype=torch.uint8))

    def share_of_mixed(largest_share):
        crop = RandomCropByClass((16, 16), largest_share)
        mixed = 0
        for seed in range(100):
            torch.manual_seed(seed)
            mixed += len(crop(image, mask)[1].unique()) > 1
        return mixed

    assert share_of_mixed(1.0) < 50
    assert share_of_mixed(0.75) > 75


def test_scales_span_their_range():
    image = tv_tensors.Image(torch.zeros(3, 30, 40, dtype=torch.uint8))
    heights = set()
    for seed in range(60):
        torch.manual_seed(seed)
        shape = RandomScale(20, (0.5, 2.0))(image).shape
        heights.add(shape[1])
        assert abs(shape[2] / shape[1] - 4 / 3) < 0.1
    assert min(heights) < 14
    assert max(heights) > 36
    assert max(heights) <= 40


def test_evaluation_resizes_images_alone():
    image = tv_tensors.Image(torch.full((3, 30, 90), 255, dtype=torch.uint8))
    mask = tv_tensors.Mask(torch.full((30, 90), 2, dtype=torch.uint8))
    cases = (
        (20, None, (20, 60)),
        (20, 45, (15, 45)),
        ((16, 16), None, (16, 16)),
        (None, None, (30, 90)),
    )
    for size, longest, shape in cases:
        seen, labels = evaluation_transform(size, longest)(image, mask)
        assert seen.shape[1:] == shape
        assert seen.max() == 1
        assert labels.shape == (30, 90)
        assert labels.dtype == torch.int64


def test_holdout_leaves_the_validation_set_alone(tmp_path):
    root = ade20k(tmp_path / "set", train=10)
    module = data(root, holdout=0.3)
    module.prepare_data()
    module.setup("fit")
    trained = {p.name for p, _ in module.train_set.masks.pairs}
    held = {p.name for p, _ in module.val_set.masks.pairs}
    assert (len(trained), len(held)) == (7, 3)
    assert not trained & held
    assert all(name.startswith("ADE_train") for name in held)
    other_seed = data(root, holdout=0.3, seed=5)
    other_seed.setup("fit")
    assert {p.name for p, _ in other_seed.val_set.masks.pairs} == held
    assert "0.3" in module.describe()["split"]
    for index, (path, _) in enumerate(module.val_set.masks.pairs):
        assert torch.equal(module.example("val", index)[0], read_image(path))


def test_a_limit_of_the_long_side_is_part_of_what_a_set_is_known_by(tmp_path):
    root = ade20k(tmp_path / "set")
    assert "eval_longest" not in data(root).describe()["options"]
    assert data(root, eval_longest=40).describe()["options"]["eval_longest"] == 40


# Real sets, where they are.


@pytest.mark.skipif(not (REAL / "dubai").is_dir(), reason="the dubai set is not here")
def test_dubai():
    module = data(REAL / "dubai", image_size=128)
    module.prepare_data()
    module.setup("fit")
    assert module.class_names == ("building", "land", "road", "vegetation", "water")
    assert (len(module.train_set), len(module.val_set)) == (513, 108)
    images, masks = next(iter(module.val_dataloader()))
    assert images.shape == (3, 3, 128, 128)
    assert masks.shape == (3, 256, 256)


@pytest.mark.skipif(not (REAL / "coco_cc").is_dir(), reason="the coco_cc set is not here")
def test_coco_masks_in_ade20k_layout(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "training").symlink_to(REAL / "coco_cc" / "train2017")
    (tmp_path / "images" / "validation").symlink_to(REAL / "coco_cc" / "val2017")
    (tmp_path / "annotations").symlink_to(REAL / "coco_cc" / "ade" / "annotations")
    # Its labels go beyond ADE20K's 150 classes.
    with pytest.raises(DataError, match="labels outside 0…150"):
        data(tmp_path, num_classes=150).prepare_data()
    module = data(tmp_path, num_classes=200)
    module.prepare_data()
    module.setup("fit")
    images, masks = next(iter(module.val_dataloader()))
    # Images of several sizes come as lists.
    assert isinstance(images, list)
    assert all(min(image.shape[1:]) == 16 for image in images)
    assert all(mask.shape != image.shape[1:] for image, mask in zip(images, masks, strict=True))
