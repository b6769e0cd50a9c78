"""The probe of long-range vision."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from tasks.data.cache import manifest
from tasks.data.paths import CLEARANCE, GAP, Knobs, _curves, paths, render
from tasks.seeds import numpy_generator

KNOBS = Knobs(64, 10, 10, 8, 2, 0)


def test_an_image_is_a_function_of_seed_split_and_index():
    image, mask = render(KNOBS, "train", 5)
    again, mask_again = render(Knobs(64, 77, 10, 8, 2, 0), "train", 5)
    assert np.array_equal(image, again)
    assert np.array_equal(mask, mask_again)
    assert not np.array_equal(image, render(KNOBS, "val", 5)[0])
    assert not np.array_equal(image, render(Knobs(64, 10, 10, 8, 2, 1), "train", 5)[0])


def test_all_that_is_bright_is_labelled_and_the_noise_is_background():
    for index in range(20):
        image, mask = render(KNOBS, "train", index)
        bright = image[..., 0] > 150
        assert set(mask[bright]) == {0, 2, 3}
        assert (image[..., 0][mask == 2] > 90).all()
        assert abs(image[..., 0][mask == 1].mean() - 60) < 8


def test_target_and_distractors_look_alike_without_the_ring():
    inks = {2: [], 3: []}
    for index in range(60):
        image, mask = render(KNOBS, "train", index)
        for label, values in inks.items():
            values.append(image[..., 0][mask == label].astype(float))
    means = {label: np.concatenate(values).mean() for label, values in inks.items()}
    assert abs(means[2] - means[3]) < 3
    per_curve = [np.mean([len(v) for v in inks[2]]), np.mean([len(v) for v in inks[3]]) / 2]
    assert abs(per_curve[0] - per_curve[1]) < 0.1 * per_curve[1]


def distances(one, other):
    return np.min(np.hypot(*(one[:, None] - other[None]).transpose(2, 0, 1)))


def test_curves_keep_apart_by_more_than_their_gaps():
    for index in range(30):
        curves = _curves(numpy_generator(index), KNOBS)
        assert [len(curve) for curve in curves] == [8, 8, 8]
        points = [
            np.array([p for dash in curve for p in (*dash.ends(), (dash.x, dash.y))])
            for curve in curves
        ]
        for i in range(3):
            for j in range(i):
                assert distances(points[i], points[j]) > CLEARANCE - 1 > GAP
        for curve in curves:
            steps = [np.hypot(b.x - a.x, b.y - a.y) for a, b in pairwise(curve)]
            assert np.allclose(steps, 7)


def test_the_target_starts_at_the_ring():
    for index in range(20):
        _, mask = render(KNOBS, "val", index)
        ring = np.argwhere(mask == 0).mean(axis=0)
        nearest = {
            label: np.min(np.hypot(*(np.argwhere(mask == label) - ring).T)) for label in (2, 3)
        }
        assert nearest[2] < nearest[3]


def test_the_files_have_the_layout_of_ade20k(tmp_path):
    folder = paths(train=3, val=2, root=tmp_path)
    assert (folder / "objectInfo.txt").read_text().split("\n")[1:4] == [
        "1\tbackground",
        "2\ttarget",
        "3\tdistractor",
    ]
    mask = np.asarray(Image.open(folder / "annotations/validation/ADE_val_00000002.png"))
    assert np.array_equal(mask, render(KNOBS, "val", 1)[1])
    assert len(manifest(folder)["files"]) == 2 * 5 + 1
    assert paths(train=3, val=2, root=tmp_path, workers=2) == folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 16}, r"`size` \(=16\) must be an integer >= 32"),
        ({"length": 1}, r"`length` \(=1\) must be an integer >= 2"),
        ({"length": 40}, r"`length` \(=40\) must be at most \d+ for 2 `distractors` in 64 pixels"),
        ({"distractors": -1}, r"`distractors` \(=-1\)"),
        ({"train": 0}, r"`train` \(=0\)"),
        ({"workers": 0}, r"`workers` \(=0\)"),
    ],
)
def test_knobs_out_of_range_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        paths(**change, root=tmp_path)
