"""Odd annotations of key points are named, or mended and counted; none ends in a raw error."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from bench.errors import DataError
from tasks.detection.coco import NO_AREA, NO_CROWD
from tasks.detection.coco_json import OTHER_FORM
from tasks.pose import coco
from tasks.pose.coco import read_keypoints

bad = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "bad_values.py")))
WIDTH, HEIGHT = 40, 24
NUMBERS = {name: value for name, value in bad.JSON.items() if name not in ("missing", "twice")}
POINTS = [5, 6, 2, 10, 12, 1, 0, 0, 0]


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images/1.jpg")
    return tmp_path


def entry(**changes):
    usual = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 20, 15], "area": 150}
    more = {"iscrowd": 0, "keypoints": POINTS, "num_keypoints": 2}
    return usual | more | changes


def category(**changes):
    names = {"keypoints": ["head", "left_hand", "right_hand"], "skeleton": [[1, 2], [1, 3]]}
    return {"id": 1, "name": "figure"} | names | changes


def write(folder, annotations=(), categories=None):
    """Write a file; an annotation may be JSON text already."""
    size = {"width": WIDTH, "height": HEIGHT}
    texts = [a if isinstance(a, str) else json.dumps(a) for a in annotations]
    images = json.dumps([{"id": 1, "file_name": "1.jpg", **size}])
    listed = json.dumps([category()] if categories is None else categories)
    file = folder / "a.json"
    file.write_text(
        f'{{"images": {images}, "categories": {listed}, "annotations": [{", ".join(texts)}]}}'
    )
    return file


def read(folder, *annotations, **options):
    return read_keypoints(write(folder, annotations, **options), folder / "images")


def test_categories_of_the_same_key_points_are_one(photos):
    """As the species of a set of animals are."""
    categories = [category(), category(id=2, name="dog"), {"id": 3, "name": "tree"}]
    annotations = [entry(), entry(id=2, category_id=2), entry(id=3, category_id=3)]
    poses = read(photos, *annotations, categories=categories)
    assert poses.class_names == ("head", "left_hand", "right_hand")
    assert len(poses.images[0].points) == 2
    assert poses.skipped == {coco.OF_NO_POSE: 1}


def test_a_sound_file_is_read_as_it_is(photos):
    poses = read(photos, entry())
    (image,) = poses.images
    assert poses.class_names == ("head", "left_hand", "right_hand")
    assert poses.skeleton == ((0, 1), (0, 2))
    assert poses.skipped == {}
    assert image.points.tolist() == [[[5, 6, 2], [10, 12, 1], [0, 0, 0]]]
    assert image.boxes.tolist() == [[2, 3, 22, 18]]
    assert (image.area.tolist(), image.crowd.tolist()) == ([150], [False])


def points(*numbers):
    return {"keypoints": list(numbers), "num_keypoints": sum(v > 0 for v in numbers[2::3])}


@pytest.mark.parametrize(
    ("changes", "told", "expected"),
    [
        (points(5, 6, 2, 10, 12, 3, 0, 0, 0), coco.VISIBILITY, [[5, 6, 2], [10, 12, 2], [0] * 3]),
        (points(5, 6, 2, 10, 12, 0.7, 0, 0, 0), coco.VISIBILITY, [[5, 6, 2], [10, 12, 2], [0] * 3]),
        (points(5, 6, 2, 10, 12, -1, 0, 0, 0), coco.VISIBILITY, [[5, 6, 2], [0] * 3, [0] * 3]),
        (points(5, 6, 2, 10, 12, 0, 0, 0, 0), None, [[5, 6, 2], [0] * 3, [0] * 3]),
        (points(-0.5, 6, 2, 10, 23.9, 1, 0, 0, 0), None, [[-0.5, 6, 2], [10, 23.9, 1], [0] * 3]),
    ],
)
def test_visibilities(photos, changes, told, expected):
    poses = read(photos, entry(**changes))
    assert poses.skipped == ({told: 1} if told else {})
    assert poses.images[0].points[0].tolist() == expected


@pytest.mark.parametrize(
    ("keypoints", "labelled", "told"),
    [
        ([5, 6, 2, 41.5, 12, 2, 0, 0, 0], 1, {coco.OUTSIDE: 1}),
        ([5, 6, 2, -7, 12, 2, 1e30, 0, 2], 1, {coco.OUTSIDE: 2}),
        ([5, 6, 2, None, 12, 2, 0, 0, 0], 1, {coco.NO_PLACE: 1}),
        ([5, 6, 2, None, None, 0, 0, 0, 0], 1, {}),
        ([5, 6, 2, 10, 12, None, 0, 0, 0], 1, {coco.VISIBILITY: 1}),
        (["5", "6.0", "2", 10, 12, 1, 0, 0, 0], 2, {OTHER_FORM: 3}),
        (None, 0, {coco.NO_POINTS: 1}),
        ([], 0, {coco.NO_POINTS: 1}),
        (bad.MISSING, 0, {coco.NO_POINTS: 1}),
        ([0] * 9, 0, {coco.NO_POINTS: 1}),
    ],
)
def test_key_points_that_cannot_be_are_not_labelled(photos, keypoints, labelled, told):
    odd = bad.changed(entry(num_keypoints=labelled), "keypoints", keypoints)
    poses = read(photos, odd, entry(id=2))
    assert poses.skipped == told
    assert int((poses.images[0].points[0, :, 2] > 0).sum()) == labelled
    assert poses.images[0].unlearnt.tolist() == [labelled == 0, False]


@pytest.mark.parametrize("number", [3, -1, None, "many", 1.5, bad.MISSING, [2], True])
def test_numbers_of_key_points_that_disagree_are_counted_anew(photos, number):
    poses = read(photos, bad.changed(entry(), "num_keypoints", number))
    assert poses.skipped == {coco.NUMBER: 1}
    assert poses.images[0].points[0, :2, 2].tolist() == [2, 1]


def test_numbers_in_another_form_are_mended(photos):
    assert read(photos, entry(num_keypoints="2")).skipped == {OTHER_FORM: 1}


@pytest.mark.parametrize("count", [1, 6, 8, 12])
def test_a_wrong_length_is_named(photos, count):
    with pytest.raises(
        DataError, match=rf"annotation 7 in a.json: `keypoints` \(of {count} numbers\) must be 9: x"
    ):
        read(photos, entry(id=7, keypoints=[1] * count))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([5, 6, 2, "seven", 12, 1, 0, 0, 0], r"`keypoints` \(=.*\), at place 4, must be"),
        ([5, 6, 2, float("nan"), 12, 1, 0, 0, 0], r"`keypoints` .* at place 4, must be a finite"),
        ("text", r"`keypoints` \(='text'\) must be a valid list"),
        ({"x": 1}, r"`keypoints` .* must be a valid list"),
    ],
)
def test_what_is_no_number_is_named(photos, value, told):
    with pytest.raises(DataError, match=f"annotation 1 in a.json: {told}"):
        read(photos, entry(keypoints=value))


@pytest.mark.parametrize(
    ("box", "told", "expected"),
    [
        (None, coco.NO_BOX, [5, 6, 10, 12]),
        ([2, 3, -4, 5], coco.NO_BOX, [5, 6, 10, 12]),
        ([50, 3, 4, 5], coco.NO_BOX, [5, 6, 10, 12]),
        ([-2, 3, 10, 50], None, [0, 3, 8, 24]),
    ],
)
def test_boxes_that_cannot_be_lie_around_the_key_points(photos, box, told, expected):
    poses = read(photos, entry(bbox=box))
    assert poses.images[0].boxes.tolist() == [expected]
    assert poses.skipped == ({told: 1} if told else {})


def test_outlines_take_the_place_of_boxes_and_nothing_is_left_out(photos):
    outline = [[1, 2, 9, 2, 9, 20, 1, 20]]
    poses = read(photos, entry(bbox=None, segmentation=outline))
    assert poses.images[0].boxes.tolist() == [[1, 2, 9, 20]]
    odd = read(photos, entry(segmentation=[["a"]]))
    assert odd.skipped == {coco.OUTLINE: 1}
    none = read(photos, entry(), entry(id=2, bbox=None, keypoints=None, num_keypoints=0))
    assert (none.skipped, len(none.images[0].boxes)) == ({coco.NOTHING: 1}, 1)


def test_missing_fields_are_filled_in(photos):
    bare = {key: entry()[key] for key in ("id", "image_id", "category_id", "bbox", "keypoints")}
    poses = read(photos, bare)
    assert poses.skipped == {coco.NUMBER: 1, NO_CROWD: 1, NO_AREA: 1}
    assert poses.images[0].area.tolist() == [300]


def test_crowds_and_figures_without_key_points_are_not_learnt_where_they_are(photos):
    crowd = entry(iscrowd=1, segmentation={"size": [HEIGHT, WIDTH], "counts": [24 * 10, 48, 672]})
    poses = read(
        photos,
        crowd,
        entry(id=2, bbox=[30, 4, 5, 6], keypoints=[0] * 9, num_keypoints=0),
        entry(id=3),
    )
    (image,) = poses.images
    assert image.unlearnt.tolist() == [True, True, False]
    ignored = image.ignored()
    assert ignored.shape == (HEIGHT, WIDTH)
    expected = np.zeros_like(ignored)
    expected[:, 10:12] = expected[4:10, 30:35] = True
    assert (ignored == expected).all()


@pytest.mark.parametrize(
    ("categories", "told"),
    [
        ([category(keypoints=None)], "a category with `keypoints`.*none has"),
        (
            [category(), category(id=2, name="dog", keypoints=["nose"])],
            "the same in the same order, not 'figure' and 'dog' others",
        ),
        ([category(keypoints=["a", "a"])], "must be different names, not 'a' twice"),
        ([category(keypoints=["a", ""])], r"`keypoints` .*, at place 2, must"),
        ([category(keypoints=["a", 3])], r"`keypoints` .*, at place 2, must be a valid string"),
        ([category(skeleton="1-2")], r"`skeleton` \(='1-2'\) must be a list of pairs"),
    ],
)
def test_categories_that_cannot_be_are_named(photos, categories, told):
    with pytest.raises(DataError, match=told):
        read(photos, entry(), categories=categories)


def test_lines_between_no_key_points_and_objects_without_a_pose_are_left_out(photos):
    categories = [category(skeleton=[[1, 2], [0, 1], [3, 4], [1], "a"]), {"id": 2, "name": "ball"}]
    poses = read(photos, entry(), entry(id=2, category_id=2), categories=categories)
    assert poses.skeleton == ((0, 1),)
    assert poses.skipped == {coco.SKELETON: 4, coco.OF_NO_POSE: 1}


@pytest.mark.parametrize("field", ["image_id", "category_id"])
def test_what_is_not_there_is_named(photos, field):
    with pytest.raises(DataError, match=rf"`{field}` \(=9\) must be that of an entry of"):
        read(photos, entry(**{field: 9}))


def test_a_file_without_any_key_point_is_named(photos):
    with pytest.raises(DataError, match=r"a.json has no figure with labelled key points"):
        read(photos, entry(keypoints=[0] * 9, num_keypoints=0))


def sound(poses):
    for image in poses.images:
        assert image.points.shape[1:] == (3, 3)
        assert np.isfinite(image.points).all()
        assert np.isin(image.points[..., 2], (0, 1, 2)).all()
        assert (image.points[image.points[..., 2] == 0] == 0).all()
        assert (image.boxes[:, 2:] > image.boxes[:, :2]).all()
        assert (image.area > 0).all()
        assert image.ignored().shape == image.size


@pytest.mark.parametrize("field", sorted(entry()))
@pytest.mark.parametrize("value", bad.JSON.values(), ids=bad.JSON)
def test_any_odd_value_is_told_or_mended(photos, field, value):
    file = write(photos, [bad.changed(entry(), field, value), entry(id=2)])
    poses, message = bad.outcome(read_keypoints, file, photos / "images")
    assert poses is not None or (field in message or "`id`" in message)
    if poses is not None:
        sound(poses)


@pytest.mark.parametrize("value", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("place", [0, 2])
def test_any_odd_number_is_told_or_mended(photos, place, value):
    numbers = [*POINTS]
    numbers[place] = value
    poses, message = bad.outcome(
        read_keypoints, write(photos, [entry(keypoints=numbers), entry(id=2)]), photos / "images"
    )
    assert poses is not None or "`keypoints`" in message
    if poses is not None:
        sound(poses)


@bad.anything
@given(
    value=bad.ANY_JSON,
    field=st.sampled_from(["keypoints", "num_keypoints", "segmentation", "bbox"]),
)
def test_anything_at_all_is_told_or_mended(photos, field, value):
    file = write(photos, [entry(**{field: value}), entry(id=2)])
    poses, message = bad.outcome(read_keypoints, file, photos / "images")
    assert poses is not None or field in message
    if poses is not None:
        sound(poses)
