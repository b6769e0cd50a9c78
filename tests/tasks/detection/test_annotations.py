"""Every field of COCO's format, with every bad value: named, or mended and counted."""

import json
import runpy
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.errors import DataError
from tasks import DetectionData
from tasks.data.checked import TRAINED_TOO
from tasks.detection.boxes import checked
from tasks.detection.coco import read_coco

bad = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "bad_values.py")))
anything, outcome = bad.anything, bad.outcome


def picture(path, size=(40, 60)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (200, 30, 30)).save(path)


# COCO


IMAGE = {"id": 7, "file_name": "7.jpg", "height": 40, "width": 60}
OTHER_IMAGE = {"id": 8, "file_name": "8.jpg", "height": 40, "width": 60}
CATEGORY = {"id": 3, "name": "car"}
POLYGON = [10, 5, 30, 5, 30, 15, 10, 15]
ANNOTATION = {
    "id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 5, 20, 10], "area": 150.5,
    "iscrowd": 0, "segmentation": [POLYGON],
}  # fmt: skip
OTHER = {**ANNOTATION, "id": 2, "image_id": 8}
LISTS = {"images": IMAGE, "categories": CATEGORY, "annotations": ANNOTATION}
FIELDS = [(key, field) for key, entry in LISTS.items() for field in entry]


@pytest.fixture
def folder(tmp_path):
    for name in ("7.jpg", "8.jpg"):
        picture(tmp_path / "images" / name)
    return tmp_path


def write(folder, annotation=None, image=None, category=None, more=()):
    def text(entry, usual):
        return entry if isinstance(entry, str) else json.dumps(entry or usual)

    lists = {
        "images": [text(image, IMAGE), json.dumps(OTHER_IMAGE)],
        "categories": [text(category, CATEGORY)],
        "annotations": [text(annotation, ANNOTATION), json.dumps(OTHER), *map(json.dumps, more)],
    }
    rows = (f'"{key}": [{", ".join(entries)}]' for key, entries in lists.items())
    file = folder / "a.json"
    file.write_text("{" + ", ".join(rows) + "}")
    return file


SINGULAR = {"images": "image", "categories": "category", "annotations": "annotation"}


@pytest.mark.parametrize("value", bad.JSON.values(), ids=bad.JSON)
@pytest.mark.parametrize(("key", "field"), FIELDS, ids=[f"{k}-{f}" for k, f in FIELDS])
def test_every_field_of_coco_with_every_bad_value(folder, key, field, value):
    assert not read_coco(write(folder), folder / "images", masks=True).skipped
    file = write(folder, **{SINGULAR[key]: bad.changed(LISTS[key], field, value)})
    boxes, message = outcome(read_coco, file, folder / "images", masks=True)
    name = next(name for name, v in bad.JSON.items() if v is value)
    if boxes is not None:
        harmless = {
            ("categories", "name"): ("text", "digits as text"),
            ("annotations", "id"): ("large",),
        }
        if (key, field) == ("images", "file_name"):
            with pytest.raises(DataError, match=r"can't be read: .* \(not there\)"):
                checked({"train": boxes}, folder)
            return
        assert boxes.skipped or name in harmless.get((key, field), ())
        return
    assert "a.json" in message
    assert len(message) < 400
    absent = field == "file_name" and "not there" in message
    # mended to a size for which the box is too far away
    absent = absent or (name == "digits as text" and field in ("height", "width"))
    # what refers to an id that has changed is named by its own
    reference = f"annotation 1 in a.json is of a{'n' * (key == 'images')} {SINGULAR[key]} "
    if not (absent or message.startswith(reference)):
        assert f"`{field}`" in message
        assert (
            field == "id"
            or f"{SINGULAR[key]} {LISTS[key]['id']} " in message
            or f"`id` {LISTS[key]['id']} " in message
        )


@given(st.sampled_from(FIELDS), bad.ANY_JSON)
@anything
def test_any_json_in_any_field_of_coco_is_an_error_or_a_set_that_can_be_read(folder, at, value):
    key, field = at
    file = write(folder, **{SINGULAR[key]: bad.changed(LISTS[key], field, value)})
    boxes, message = outcome(read_coco, file, folder / "images", masks=True)
    assert boxes is not None or "a.json" in message
    for image in boxes.images if boxes is not None else ():
        height, width = image.size
        assert image.masks().shape == (len(image.boxes), height, width)
        assert np.isfinite(image.boxes).all()
        assert (image.boxes[:, 2:] > image.boxes[:, :2]).all()
        assert (image.boxes >= -1).all()
        assert (image.boxes <= np.array([width, height] * 2) + 1).all()
        assert ((image.area >= 0) & (image.area <= height * width)).all()


@given(bad.ANY_JSON)
@anything
def test_any_json_in_place_of_a_coco_file(folder, value):
    file = folder / "a.json"
    for content in (value, {"images": value, "annotations": value, "categories": value}):
        file.write_text(json.dumps(content))
        with pytest.raises(DataError, match=r"a\.json"):
            read_coco(file, folder / "images")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"nul", b'{"images": 1' + b"0" * 5000 + b"}", b"\x00"],
)
def test_what_is_no_json(folder, content):
    (folder / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json"):
        read_coco(folder / "a.json", folder / "images")


@pytest.mark.parametrize(
    ("bbox", "reason", "left"),
    [
        ([10, 5, 0, 10], "box without area", None),
        ([10, 5, -4, 10], "inverted box", None),
        ([10, 5, 4, -0.5], "inverted box", None),
        ([60, 5, 10, 10], "box outside of the image", None),
        ([10, -20, 10, 20], "box outside of the image", None),
        ([-20, 5, 40, 10], "box cut at the border", [0, 5, 20, 15]),
        ([50, 30, 20, 20], "box cut at the border", [50, 30, 60, 40]),
        # less than a pixel is rounding
        ([-0.5, 5, 10.5, 10], "box cut at the border by at most a pixel", [0, 5, 10, 15]),
    ],
)
def test_boxes_are_mended_and_counted(folder, bbox, reason, left):
    file = write(folder, {**ANNOTATION, "bbox": bbox})
    boxes = read_coco(file, folder / "images")
    assert boxes.skipped == ({reason: 1} if reason else {})
    assert boxes.images[0].boxes.tolist() == ([left] if left else [])
    assert boxes.images[1].boxes.tolist() == [[10, 5, 30, 15]]
    data = DetectionData(
        "coco", str(folder), annotations=("a.json",) * 2, images=("images",) * 2, batch_size=2
    )
    same = {TRAINED_TOO: 2}  # both splits are of one file
    assert data.describe()["skipped"] == same | ({reason: 2} if reason else {})


def test_boxes_of_another_image_are_an_error(folder):
    file = write(folder, {**ANNOTATION, "bbox": [10, 5, 200, 10]})
    with pytest.raises(DataError, match=r"annotation 1 in a\.json: `bbox` .*own 60×40 pixels; 1 b"):
        read_coco(file, folder / "images")


def test_areas_and_crowds_that_are_not_given_are_filled_in_and_counted(folder):
    file = write(folder, {k: v for k, v in ANNOTATION.items() if k not in ("area", "iscrowd")})
    boxes = read_coco(file, folder / "images")
    assert boxes.skipped == {"no area given: the box's": 1, "no iscrowd given: 0": 1}
    assert boxes.images[0].area.tolist() == [200]
    assert not boxes.images[0].crowd.any()
    boxes = read_coco(write(folder, {**ANNOTATION, "area": 2401}), folder / "images")
    assert boxes.skipped == {"area larger than the image: the box's": 1}
    assert boxes.images[0].area.tolist() == [200]


RUNS = {"size": [40, 60], "counts": [0, 80, 2320]}


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        ([[1e9, 1, 2, 3, 4, 5]], "no farther outside"),
        ([[10**400, 1, 2, 3, 4, 5]], "no farther outside"),
        ([[float("nan"), 1, 2, 3, 4, 5]], "finite"),
        ([[1, 2, 3, float("inf"), 4, 5]], "no farther outside"),
        ([[1, 2, 3, 4, 5, 6, 7]], "pairs"),
        ([[1, 2, 3, True, 5, 6]], "numbers"),
        ([1, 2, 3, 4, 5, 6], "a list of polygons"),
        ("text", "polygons, or run lengths"),
        ({**RUNS, "size": [60, 40]}, r"`size` \[40, 60\]"),
        ({**RUNS, "size": [40, 60.0]}, r"`size` \[40, 60\]"),
        ({"counts": [0, 80, 2320]}, "`size`"),
        ({"size": [40, 60]}, "`counts`"),
        ({**RUNS, "counts": [0, 80, 2321]}, "2400 pixels"),
        ({**RUNS, "counts": [-80, 80, 2400]}, "integers >= 0"),
        ({**RUNS, "counts": [0, 80.0, 2320]}, "integers >= 0"),
        ({**RUNS, "counts": "garbage~~"}, "can be decoded"),
        ({**RUNS, "counts": "é"}, "can be decoded"),
        ({**RUNS, "counts": ""}, "can be decoded"),
        ({**RUNS, "counts": "\ud800"}, "can be decoded"),
    ],
)
def test_outlines_that_cannot_be_are_named(folder, outline, message):
    file = write(folder, {**ANNOTATION, "segmentation": outline})
    start = time.process_time()
    with pytest.raises(DataError, match=rf"annotation 1 in a\.json: `segmentation` .*{message}"):
        read_coco(file, folder / "images", masks=True)
    assert time.process_time() - start < 5
    # without masks nothing of it is used
    assert read_coco(file, folder / "images").images[0].segmentations is None


@pytest.mark.parametrize(
    ("outline", "skipped", "pixels"),
    [
        ([POLYGON, [1, 2, 3, 4]], {"polygon of fewer than six numbers": 1}, 200),
        ([[1, 2, 3, 4]], {"polygon of fewer than six numbers": 1, "object without a mask": 1}, 0),
        ([[-10, 0, 10, 0, 10, 10, -10, 10]], {"polygon cut at the border": 1}, 100),
        ({**RUNS, "counts": [2400]}, {"object without a mask": 1}, 0),
    ],
)
def test_outlines_are_mended_and_counted(folder, outline, skipped, pixels):
    file = write(folder, {**ANNOTATION, "segmentation": outline})
    boxes = read_coco(file, folder / "images", masks=True)
    assert boxes.skipped == skipped
    assert boxes.images[0].masks().sum() == pixels


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../9.jpg", "a/../../9.jpg", "C:\\9.jpg", "..\\9.jpg", "", ".", "//host/9.jpg"],
)
def test_file_names_that_lead_out_of_the_folder(folder, name):
    picture(folder / "9.jpg")
    file = write(folder, image={**IMAGE, "file_name": name})
    with pytest.raises(DataError, match=r"image 7 in a\.json: `file_name`"):
        read_coco(file, folder / "images")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "\x1b[31m.jpg"])
def test_file_names_that_no_file_has(folder, name):
    file = write(folder, image={**IMAGE, "file_name": name})
    boxes = read_coco(file, folder / "images")
    with pytest.raises(DataError, match=r"1 file\(s\) can't be read: .* \(not there\)") as error:
        checked({"train": boxes}, folder)
    assert str(error.value).isprintable()
    left = checked({"train": boxes}, folder, max_skipped=0.01)[0]["train"]
    assert (len(left.images), left.skipped["not there"]) == (1, 1)


def test_a_folder_without_any_of_the_images_is_named(folder):
    with pytest.raises(DataError, match=r"None of the 2 images of a\.json are there, .* in .*b"):
        read_coco(write(folder), folder / "b")


@pytest.mark.parametrize("name", ["7.jpg", "./7.jpg"])
def test_an_image_under_two_ids_is_an_error(folder, name):
    file = write(folder, image={**IMAGE, "file_name": "8.jpg"})
    with pytest.raises(DataError, match=r"image 8 in a\.json: `file_name` .* that of image 7"):
        read_coco(file, folder / "images")


def test_ids_and_names_that_come_twice(folder):
    with pytest.raises(DataError, match=r"a\.json has the annotation id 1 twice \(`id`\)"):
        read_coco(write(folder, more=[ANNOTATION]), folder / "images")
    with pytest.raises(DataError, match=r"a\.json has the image id 8 twice \(`id`\)"):
        read_coco(write(folder, image={**IMAGE, "id": 8}), folder / "images")
    category = f"{json.dumps(CATEGORY)}, {json.dumps({'id': 4, 'name': 'car'})}"
    with pytest.raises(DataError, match=r"category 3 in a\.json: `name` \(='car'\) must not be"):
        read_coco(write(folder, category=category), folder / "images")


def test_sizes_that_are_not_the_files_are_named(folder):
    picture(folder / "images" / "8.jpg", (60, 40))
    boxes = read_coco(write(folder), folder / "images")
    with pytest.raises(
        DataError,
        match=r"1 file\(s\) differ in size from .*annotations: images/8\.jpg \(40×60 and 60×40",
    ):
        checked({"train": boxes}, folder)
    data = DetectionData(
        "coco", str(folder), annotations=("a.json",) * 2, images=("images",) * 2, batch_size=2
    )
    with pytest.raises(DataError, match="differ in size from their annotations"):
        data.prepare_data()
    picture(folder / "images" / "8.jpg")
    assert sorted(checked({"train": boxes}, folder)[1]) == ["images/7.jpg", "images/8.jpg"]
    (folder / "images" / "7.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"can't be read: images/7\.jpg \(empty file\)"):
        checked({"train": boxes}, folder)
