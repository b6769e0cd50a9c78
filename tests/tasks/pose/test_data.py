"""The pose data module: what moves moves together, and the batches are what is trained on."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from bench.errors import DataError, UserError
from tasks.pose import PoseData
from tasks.pose.data import UNTOLD
from tasks.pose.poses import EMPTY
from tasks.pose.transforms import Augmentation, fit, flipped

OPTIONS = {"train": 12, "val": 6}
MIRROR = (0, 2, 1)


def blobs(height=60, width=80, seed=0):
    """An image with a bright 5 × 5 square around each of three key points, one a channel."""
    rng = np.random.default_rng(seed)
    image = torch.zeros(3, height, width)
    places = np.stack([rng.integers(12, width - 12, 3), rng.integers(12, height - 12, 3)], axis=1)
    for channel, (x, y) in enumerate(places.tolist()):
        image[channel, y - 2 : y + 3, x - 2 : x + 3] = 255
    return {
        "image": tv_tensors.Image(image.to(torch.uint8)),
        "points": tv_tensors.KeyPoints(
            torch.from_numpy(places).float()[None], canvas_size=(height, width)
        ),
        "visible": torch.tensor([[2.0, 1.0, 2.0]]),
        "ignored": tv_tensors.Mask((image[:1] > 0).to(torch.bool)),
    }


def middle(channel):
    """The centre of mass of an image, in coordinates whose whole numbers are pixels' middles."""
    weights = channel.double()
    rows, columns = torch.arange(channel.shape[0]), torch.arange(channel.shape[1])
    total = weights.sum()
    return [
        float((weights.sum(0) * columns).sum() / total),
        float((weights.sum(1) * rows).sum() / total),
    ]


def assert_together(sample, order=(0, 1, 2), tolerance=0.15):
    """Each labelled key point lies in the middle of its square, wherever that went."""
    for k, channel in enumerate(order):
        if sample["visible"][0, k] > 0:
            found = middle(sample["image"].as_subclass(torch.Tensor)[channel])
            assert sample["points"][0, k].tolist() == pytest.approx(found, abs=tolerance)


@pytest.mark.parametrize("frame", [(60, 80), (30, 40), (45, 90), (120, 160), (33, 47)])
def test_key_points_move_with_their_pixels(frame):
    assert_together(fit(blobs(), frame))


def test_left_and_right_change_places_in_a_mirror_image():
    sample = flipped(blobs(), MIRROR)
    assert_together(sample, order=MIRROR)
    assert sample["visible"].tolist() == [[2, 2, 1]]
    again = flipped(sample, MIRROR)
    assert torch.equal(again["points"], blobs()["points"])
    assert torch.equal(again["image"], blobs()["image"])


@pytest.mark.parametrize("seed", range(3))
def test_what_is_cut_off_is_not_labelled(seed):
    torch.manual_seed(seed)
    cut = Augmentation(MIRROR, (1.8, 1.8), 0, 0.0, False)(blobs(seed=seed), (60, 80))
    assert cut["image"].shape[-2:] == (60, 80)
    for k, visible in enumerate([2, 1, 2]):
        x, y = cut["points"][0, k].tolist()
        inside = -0.5 <= x < 79.5 and -0.5 <= y < 59.5
        assert cut["visible"][0, k] == (visible if inside else 0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_turn_scale_cut_and_mirror_together(seed, flip):
    torch.manual_seed(seed)
    sample = Augmentation(MIRROR, (0.7, 1.4), 30, flip, False)(blobs(seed=seed), (60, 80))
    image = sample["image"].as_subclass(torch.Tensor)
    height, width = image.shape[-2:]
    followed = 0
    for k, channel in enumerate(MIRROR if flip else (0, 1, 2)):
        x, y = sample["points"][0, k].tolist()
        whole = 6 <= x < width - 6 and 6 <= y < height - 6
        if sample["visible"][0, k] > 0 and whole:
            assert middle(image[channel]) == pytest.approx([x, y], abs=0.35)
            followed += 1
        if channel == 0 and whole:  # what is not learnt here is the first square
            found = middle(sample["ignored"].as_subclass(torch.Tensor)[0])
            assert found == pytest.approx([x, y], abs=1.0)
    assert followed


def make(**changes):
    return PoseData(**({"image_size": 48, "batch_size": 4, "options": OPTIONS} | changes))


def test_batches_hold_what_is_trained_on_and_what_is_scored():
    data = make()
    data.prepare_data()
    data.setup("fit")
    images, targets = next(iter(data.train_dataloader()))
    assert images.shape == (4, 3, 48, 48)
    for target in targets:
        assert target["keypoints"].shape[1:] == (7, 3)
        assert target["ignored"].shape == (48, 48)
        assert "original" not in target
    _, scored = next(iter(data.val_dataloader()))
    for target in scored:
        assert target["original"]["keypoints"].shape == target["keypoints"].shape
        assert target["original"]["size"].tolist() == [48, 48]
    assert data.class_names[:2] == ("head", "neck")
    assert data.sigmas == (0.05,) * 7
    counts = data.class_counts("train")
    assert set(counts) == set(data.class_names)
    assert min(counts.values()) >= 12


def test_augmentation_is_a_function_of_seed_epoch_and_image():
    wild = {"scale": (0.7, 1.4), "rotate": 40, "photometric": True}
    first, second = (make(**wild).datasets()[0] for _ in range(2))
    one, other = first[(1, 3)], second[(1, 3)]
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1]["keypoints"], other[1]["keypoints"])
    assert not torch.equal(one[0], first[(2, 3)][0])


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"source": "scenes"}, r"`source` \(='scenes'\) is not known"),
        ({"image_size": 4}, r"`image_size` \(=4\) must be >= 8"),
        ({"rotate": 200}, r"`rotate` \(=200\) must be in \[0, 180\]"),
        ({"flip": 2}, r"`flip` \(=2\) must be in \[0, 1\]"),
        ({"scale": (2, 1)}, r"`scale` \(=\(2, 1\)\) must be 0 < smallest <= largest"),
        ({"sigmas": (0.1, 0)}, r"`sigmas` \(=\(0.1, 0\)\) must be numbers > 0"),
        ({"annotations": ("a", "b")}, "must be given together"),
        ({"options": {"classes": 3}}, r"`options` \('classes'\) is no knob of figures"),
        ({"val_share": 0.2}, r"`val_share` \(=0.2\) must be None for `source` \(='figures'\)"),
    ],
)
def test_arguments_out_of_range_are_named(changes, rule):
    with pytest.raises(UserError, match=rule):
        make(**changes)


def test_sigmas_must_be_those_of_the_key_points():
    with pytest.raises(UserError, match=r"`sigmas` \(=\(0.1, 0.1\)\) must be 7 numbers"):
        make(sigmas=(0.1, 0.1)).prepare_data()


def coco(folder, names=("a", "b"), count=10, splits=("train", "val")):
    """COCO's layout: an image a figure, 60 × 40, a key point at (10, 20) and one at (30, 5)."""
    for split in splits:
        images, annotations = [], []
        for i in range(1, count + 1):
            path = folder / split / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((40, 60, 3), i + 100 * (split == "val"), np.uint8)).save(path)
            images.append({"id": i, "file_name": path.name, "width": 60, "height": 40})
            points = {"keypoints": [10, 20, 2, 30, 5, 2], "num_keypoints": 2}
            box = {"bbox": [5, 0, 30, 30], "area": 500, "iscrowd": 0}
            annotations.append({"id": i, "image_id": i, "category_id": 1, **box, **points})
        categories = [{"id": 1, "name": "f", "keypoints": list(names), "skeleton": [[1, 2]]}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        file = folder / "annotations" / f"person_keypoints_{split}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return str(folder)


def test_cocos_own_layout_is_scored_in_the_pixels_of_its_files(tmp_path):
    data = PoseData("coco", coco(tmp_path), image_size=(20, 40), batch_size=2)
    data.prepare_data()
    data.setup("fit")
    image, target = data.val_set[0]
    assert image.shape == (3, 20, 30)
    # half the size: the middle of pixel 10 is 10.5 from the border, and 5.25 there
    assert target["keypoints"][0].tolist() == [[4.75, 9.75, 2], [14.75, 2.25, 2]]
    assert target["original"]["keypoints"][0].tolist() == [[10, 20, 2], [30, 5, 2]]
    batch, _ = data.collate([data.val_set[0]])
    assert batch.shape == (1, 3, 20, 40)
    described = data.describe()
    assert described["skipped"] == {UNTOLD: 1}
    assert (described["train_samples"], described["scored_samples"]) == (10, 10)


def test_images_without_figures_can_be_left_out_of_training(tmp_path):
    coco(tmp_path)
    for split in ("train", "val"):
        file = tmp_path / "annotations" / f"person_keypoints_{split}.json"
        content = json.loads(file.read_text())
        content["annotations"][0] |= {"keypoints": [0] * 6, "num_keypoints": 0}  # a figure still
        del content["annotations"][3:5]
        file.write_text(json.dumps(content))
    whole = PoseData("coco", str(tmp_path), batch_size=2)
    assert whole.split_sizes == (10, 10)
    data = PoseData("coco", str(tmp_path), batch_size=2, empty_images=False)
    assert data.split_sizes == (8, 10)
    assert data.describe()["skipped"][EMPTY] == 2
    assert EMPTY not in whole.describe()["skipped"]


def test_splits_must_have_the_same_key_points(tmp_path):
    coco(tmp_path, splits=("train",))
    coco(tmp_path, names=("b", "a"), splits=("val",))
    with pytest.raises(DataError, match="must be the same in the same order, not 'a' and 'b'"):
        PoseData("coco", str(tmp_path), batch_size=2).prepare_data()


def test_a_set_without_splits_gets_one(tmp_path):
    data = PoseData("coco", coco(tmp_path, splits=("train",)), batch_size=2, val_share=0.2)
    assert data.split_sizes == (8, 2)
    held = PoseData("coco", str(tmp_path), batch_size=2, val_share=0.2, holdout=0.25)
    assert held.split_sizes == (6, 2)


def test_the_files_of_a_set_are_looked_for_by_name(tmp_path):
    with pytest.raises(DataError, match=r"annotations/person_keypoints_train2017\.json"):
        PoseData("coco", str(tmp_path), batch_size=2).prepare_data()
    coco(tmp_path, names=("left_a", "right_a"))
    data = PoseData("coco", str(tmp_path), batch_size=2)
    assert data.describe()["skipped"] == {}
    (tmp_path / "train/3.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 file\(s\) can't be read: train/3.png"):
        PoseData("coco", str(tmp_path), batch_size=2, max_skipped=0).prepare_data()
