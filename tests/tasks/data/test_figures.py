"""The generator of stick figures."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from bench.errors import UserError
from tasks.data.digits import INK
from tasks.data.figures import LIMBS, NAMES, SKELETON, Knobs, _inked, _strokes, figures, render
from tasks.data.photos import crop
from tasks.detection.outlines import decode
from tasks.seeds import numpy_generator

KNOBS = Knobs(64, 10, 10, (1, 3), 1.4, 0.7, 0.7, 0)


def test_an_image_is_a_function_of_seed_split_and_index():
    image, drawn = render(KNOBS, "train", 5)
    again, drawn_again = render(Knobs(64, 77, 10, (1, 3), 1.4, 0.7, 0.7, 0), "train", 5)
    assert np.array_equal(image, again)
    assert all(np.array_equal(a.points, b.points) for a, b in zip(drawn, drawn_again, strict=True))
    assert not np.array_equal(image, render(KNOBS, "val", 5)[0])
    other = Knobs(64, 10, 10, (1, 3), 1.4, 0.7, 0.7, 1)
    assert not np.array_equal(image, render(other, "train", 5)[0])


def test_strokes_end_on_the_key_points():
    """The ends of each limb are inked, what lies beyond is not: other limbs are left out."""
    for split in ("train", "val"):
        assert len(_strokes(split)) > 50
    points = np.array([[32, 9], [32, 16], [32, 34], [50, 20], [14, 20], [40, 56], [24, 56.0]])
    ink = _inked(numpy_generator(0), points, 60, "train", 64) > INK
    for a, b in LIMBS:
        start, end = points[a], points[b]
        for share in np.linspace(0, 1, 9):
            x, y = np.rint(start + share * (end - start)).astype(int)
            assert ink[y - 1 : y + 2, x - 1 : x + 2].any(), (a, b, share)
    for end in (3, 4, 5, 6):
        start = points[{b: a for a, b in LIMBS}[end]]
        way = (points[end] - start) / np.hypot(*(points[end] - start))
        x, y = np.rint(points[end] + 4 * way).astype(int)
        assert not ink[y, x], end


@pytest.mark.parametrize("largest", [0.3, 0.7, 0.9])
def test_key_points_lie_inside_and_left_is_on_the_right(largest):
    knobs = Knobs(72, 1, 1, (1, 3), 1.0, largest, 0.7, 3)
    counts = set()
    for index in range(30):
        _, drawn = render(knobs, "train", index)
        counts.add(len(drawn))
        for figure in drawn:
            places = figure.points[:, :2]
            assert ((places >= 0) & (places <= 71)).all()
            place = dict(zip(NAMES, places, strict=True))
            trunk = place["hip"] - place["neck"]
            for limb in ("hand", "foot"):
                for side, sign in (("left", 1), ("right", -1)):
                    away = place[f"{side}_{limb}"] - place["neck"]
                    # which side of the trunk, whichever way the figure leans
                    turn = trunk[1] * away[0] - trunk[0] * away[1]
                    assert sign * turn > 0
            assert figure.area > 20
    assert counts == {1, 2, 3}


def test_hidden_key_points_are_marked_and_the_topmost_has_none():
    hidden = 0
    for index in range(40):
        _, drawn = render(KNOBS, "val", index)
        assert (drawn[-1].points[:, 2] == 2).all()
        for place, figure in enumerate(drawn):
            assert set(figure.points[:, 2]) <= {1, 2}
            hidden += int((figure.points[:, 2] == 1).sum())
            for above in drawn[place + 1 :]:
                assert not (figure.visible & above.visible).any()
    assert hidden > 0


def test_figures_are_brighter_than_what_lies_behind():
    image, drawn = render(KNOBS, "train", 1)
    ink = np.any([figure.visible for figure in drawn], axis=0)
    behind = crop(numpy_generator("figures", 0, "train", 1), "train", 64) * 0.3
    assert image[ink].mean() > 1.5 * image[~ink].mean()
    assert np.abs(image[~ink].astype(float) - behind[~ink]).mean() < 12


def test_the_file_is_cocos(tmp_path):
    folder = figures(size=48, train=4, val=3, largest=0.8, ratio=1.2, root=tmp_path)
    content = json.loads((folder / "annotations/person_keypoints_train.json").read_text())
    (category,) = content["categories"]
    assert category["keypoints"] == list(NAMES)
    assert category["skeleton"] == [[a + 1, b + 1] for a, b in SKELETON]
    assert len(content["images"]) == 4
    api = COCO(str(folder / "annotations/person_keypoints_val.json"))
    for annotation in api.dataset["annotations"]:
        assert annotation["num_keypoints"] == 7
        mask = decode(annotation["segmentation"], 48, 48)
        x, y, width, height = (int(n) for n in annotation["bbox"])
        assert mask[y : y + height, x : x + width].sum() == mask.sum() > 0
    assert folder == figures(size=48, train=4, val=3, largest=0.8, ratio=1.2, root=tmp_path)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"size": 16}, r"`size` \(=16\) must be an integer >= 32"),
        ({"figures": (2, 1)}, r"`figures` \(=\(2, 1\)\) must be \(least, most\)"),
        ({"largest": 0.95}, r"`largest` \(=0.95\) must be from 0.3 to 0.9"),
        ({"ratio": 3}, r"`ratio` \(=3.0\) must be from 1 to 2.2"),
        ({"contrast": -1}, r"`contrast` \(=-1.0\) must be from 0 to 1"),
        ({"workers": 0}, r"`workers` \(=0\) must be >= 1"),
    ],
)
def test_knobs_out_of_range_are_named(change, rule, tmp_path):
    with pytest.raises(UserError, match=rule):
        figures(**change, root=tmp_path)
