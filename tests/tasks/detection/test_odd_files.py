"""Odd files of boxes are read as they were meant, and what is done is counted."""

import json

import numpy as np
import pytest
from PIL import Image

from bench.errors import DataError
from tasks import DetectionData
from tasks.data.checked import AS_STORED, TRAINED_TOO, TURNED
from tasks.data.images import ORIENTATION
from tasks.detection.coco import ELSEWHERE, ROOT, read_coco
from tasks.detection.coco_json import OTHER_FORM
from tasks.detection.yolo import NO_FILE, OUTLINE, TWICE, read_yolo

WIDTH, HEIGHT = 40, 24


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVBOARD_CACHE", str(tmp_path / "cache"))


def photo(path, held=1):
    """A photo of 40×24 whose left quarter is red, and how the camera was held."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, :10, 0] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = held
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, exif=exif, quality=95)


def content(**changes):
    box = {"bbox": [2, 2, 10, 10], "area": 100, "iscrowd": 0}
    lists = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": WIDTH, "height": HEIGHT}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, **box}],
        "categories": [{"id": 1, "name": "cup"}],
    }
    for key, change in changes.items():
        lists[key] = [entry | change for entry in lists[key]] if type(change) is dict else change
    return lists


def write(folder, lists, name="a.json", held=1):
    photo(folder / "images/1.jpg", held)
    (folder / name).write_text(json.dumps(lists))
    return folder / name


def data(folder, train="a.json", scored="a.json"):
    return DetectionData(
        "coco", str(folder), annotations=(train, scored), images=("images",) * 2, batch_size=1
    )


def told(module):
    """What was left out or mended. Both splits are of the same photos, which is told too."""
    skipped = dict(module.describe()["skipped"])
    assert skipped.pop(TRAINED_TOO) == module.split_sizes[1]
    return skipped


@pytest.mark.parametrize(
    ("held", "size", "kind", "shape"),
    [
        (1, (WIDTH, HEIGHT), None, (HEIGHT, WIDTH)),
        (6, (HEIGHT, WIDTH), TURNED, (WIDTH, HEIGHT)),  # the boxes were drawn on it upright
        (6, (WIDTH, HEIGHT), AS_STORED, (HEIGHT, WIDTH)),  # and here lying
        (3, (WIDTH, HEIGHT), TURNED, (HEIGHT, WIDTH)),
    ],
)
def test_the_files_size_tells_which_way_boxes_were_drawn(tmp_path, held, size, kind, shape):
    sides = {"width": size[0], "height": size[1]}
    write(tmp_path, content(images=sides), held=held)
    module = data(tmp_path)
    module.prepare_data()
    module.setup("fit")
    assert told(module) == ({kind: 2} if kind else {})
    image, _ = module.example("train", 0)
    assert tuple(image.shape[1:]) == shape
    top = held == 6 and kind == TURNED  # a quarter turn brings the left to the top
    assert bool(image[0, 1, shape[1] // 2] > 200) == top
    assert bool(image[0, shape[0] // 2, -2] > 200) == (held == 3)
    _, target = module.val_set[0]
    assert target["original"]["size"].tolist() == list(shape)


def test_photos_upside_down_are_left_where_others_were_drawn_lying(tmp_path):
    sides = {"width": WIDTH, "height": HEIGHT}
    images = [{"id": i, "file_name": f"{i}.jpg", **sides} for i in (1, 2)]
    write(tmp_path, content(images=images), held=6)
    photo(tmp_path / "images/2.jpg", held=3)
    assert told(data(tmp_path)) == {AS_STORED: 4}


def test_a_size_that_fits_neither_way_is_an_error(tmp_path):
    write(tmp_path, content(images={"width": 41}), held=6)
    with pytest.raises(DataError, match=r"differ in size .*1\.jpg \(40×24 and 41×24\)"):
        data(tmp_path).prepare_data()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_marks(tmp_path, encoding):
    file = write(tmp_path, content(categories={"name": "tasse à thé"}))
    file.write_bytes(
        json.dumps(content(categories={"name": "thé"}), ensure_ascii=False).encode(encoding)
    )
    assert read_coco(file, tmp_path / "images").class_names == ("thé",)


@pytest.mark.parametrize(
    ("crowd", "is_crowd"), [("0", False), ("1", True), (False, False), (1, True)]
)
def test_crowds_in_other_forms(tmp_path, crowd, is_crowd):
    file = write(tmp_path, content(annotations={"iscrowd": crowd}))
    boxes = read_coco(file, tmp_path / "images")
    assert boxes.images[0].crowd.tolist() == [is_crowd]
    assert boxes.skipped == ({} if type(crowd) is int else {OTHER_FORM: 1})


def test_numbers_as_text(tmp_path):
    changes = {"image_id": "1", "category_id": 1.0, "area": "100.0", "bbox": ["2", 2, "10.5", 10]}
    file = write(tmp_path, content(annotations=changes))
    boxes = read_coco(file, tmp_path / "images")
    assert boxes.images[0].boxes.tolist() == [[2, 2, 12.5, 12]]
    assert boxes.skipped == {OTHER_FORM: 5}


def test_roboflows_root_is_no_class(tmp_path):
    categories = [
        {"id": 0, "name": "cells", "supercategory": "none"},
        {"id": 1, "name": "cells", "supercategory": "cells"},
        {"id": 2, "name": "dust", "supercategory": "cells"},
    ]
    boxes = read_coco(write(tmp_path, content(categories=categories)), tmp_path / "images")
    assert boxes.class_names == ("cells", "dust")
    assert boxes.images[0].labels.tolist() == [0]
    assert boxes.skipped == {ROOT: 1}


def test_a_parent_that_has_boxes_is_a_class(tmp_path):
    categories = [
        {"id": 1, "name": "vehicle", "supercategory": "vehicle"},
        {"id": 2, "name": "car", "supercategory": "vehicle"},
    ]
    boxes = read_coco(write(tmp_path, content(categories=categories)), tmp_path / "images")
    assert (boxes.class_names, boxes.skipped) == (("vehicle", "car"), {})


@pytest.mark.parametrize(
    "name", ["..\\label\\1.jpg", "C:\\sets\\images\\1.jpg", "/data/upload/1.jpg", "images/1.jpg"]
)
def test_file_names_of_another_machine_lead_to_the_end_that_is_there(tmp_path, name):
    photo(tmp_path / "label/1.jpg")  # outside of the folder: never read
    file = write(tmp_path, content(images={"file_name": name}))
    boxes = read_coco(file, tmp_path / "images")
    assert boxes.images[0].path == tmp_path / "images/1.jpg"
    assert boxes.skipped == {ELSEWHERE: 1}


def test_annotations_without_a_box(tmp_path):
    outline = {"bbox": [], "segmentation": [[2, 3, 12, 3, 12, 9]]}
    boxes = read_coco(write(tmp_path, content(annotations=outline)), tmp_path / "images")
    assert boxes.images[0].boxes.tolist() == [[2, 3, 12, 9]]
    assert boxes.skipped == {"no bbox given: the outline's": 1}


def test_classes_go_by_name(tmp_path):
    write(tmp_path, content(categories=[{"id": 1, "name": "cup"}, {"id": 2, "name": "jug"}]))
    other = content(
        categories=[{"id": 1, "name": "jug"}, {"id": 9, "name": "cup"}],
        annotations={"category_id": 9},
    )
    write(tmp_path, other, "b.json")
    module = data(tmp_path, "a.json", "b.json")
    module.setup("fit")
    assert module.class_names == ("cup", "jug")
    assert module.val_set[0][1]["original"]["labels"].tolist() == [0]
    assert module.class_counts("val") == {"cup": 1, "jug": 0}
    assert told(module) == {
        "class without an object in 'train' (jug)": 1,
        "class without an object in 'val' (jug)": 1,
    }


def test_boxes_are_cut_alike_in_every_split(tmp_path):
    write(tmp_path, content(annotations={"bbox": [30, 2, 20, 10]}))
    module = data(tmp_path)
    module.setup("fit")
    assert told(module) == {"box cut at the border": 2}
    for part in (module.train_set, module.val_set):
        assert part.images.images[0].boxes.tolist() == [[30, 2, 40, 12]]


# YOLO


def yolo(folder, *lines, description="train: images\nval: images\nnames: [cup, jug]"):
    photo(folder / "images/1.jpg")
    (folder / "data.yaml").write_text(description)
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels/1.txt").write_text("\n".join(lines))
    return folder


def test_yolos_boxes_are_shares_of_the_upright_image(tmp_path):
    yolo(tmp_path, "1 0.5 0.5 0.25 0.5", "", "0 0.1 0.1 0.3 0.1 0.3 0.5")
    photo(tmp_path / "images/2.jpg", held=6)
    boxes = read_yolo(tmp_path, "train")
    upright, turned = boxes.images
    assert upright.boxes == pytest.approx(np.array([[15, 6, 25, 18], [4, 2.4, 12, 12]]))
    assert upright.labels.tolist() == [1, 0]
    assert (turned.size, len(turned.boxes)) == ((WIDTH, HEIGHT), 0)
    assert boxes.skipped == {NO_FILE: 1, OUTLINE: 1}


def test_yolos_objects_are_counted_once_and_cut_at_the_border(tmp_path):
    row = "0 0.9 0.5 0.4 0.5"
    boxes = read_yolo(yolo(tmp_path, row, row), "train")
    assert boxes.images[0].boxes == pytest.approx(np.array([[28, 6, 40, 18]]))
    assert boxes.skipped == {TWICE: 1, "box cut at the border": 1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.1 0.1", r"line 1 of 1\.txt: `class` \(='2'\) must be from 0 to 1"),
        ("0.5 0.5 0.5 0.1 0.1", r"`class` \(='0\.5'\)"),
        ("0 0.5 0.5 0.1", r"must be class, x, y, width, height"),
        ("0 0.5 0.5 0.1 nan", r"must be finite"),
        ("0 20 12 10 10", r"must hold shares of the image"),
        ("cup 0.5 0.5 0.1 0.1", r"\(='cup'\)"),
    ],
)
def test_yolos_lines_that_cannot_be_are_named(tmp_path, line, message):
    with pytest.raises(DataError, match=message):
        read_yolo(yolo(tmp_path, line), "train")


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("train: images\nnames: [a, a]", "class 2 of data.yaml"),
        ("train: images\nnames: {1: a}", "keys 0, 1, 2"),
        ("train: images\nnames: [a]\nnc: 2", r"`nc` \(=2\) must be the 1 names'"),
        ("train: images\nnc: many", r"`nc` \(='many'\) must be a number"),
        ("train: gone\nnames: [a]", r"data\.yaml: `train` \(='gone'\) must be in"),
        ("names: [a]", "must hold a data.yaml"),
        ("train: [", "must hold a data.yaml"),
    ],
)
def test_descriptions_that_cannot_be_are_named(tmp_path, description, message):
    with pytest.raises(DataError, match=message):
        read_yolo(yolo(tmp_path, description=description), "train")


def test_lists_of_images_and_splits_that_are_not_there(tmp_path):
    folder = yolo(tmp_path, "0 0.5 0.5 0.5 0.5", description="train: a.txt\nnames: [1, no]")
    (folder / "a.txt").write_text("./images/1.jpg\n/elsewhere/images/1.jpg\n")
    boxes = read_yolo(folder, "train")
    assert boxes.class_names == ("1", "False")
    assert len(boxes.images) == 1
    assert boxes.skipped == {"image listed twice": 1}
    with pytest.raises(DataError, match=r"names no `val`\. `val_share` draws"):
        read_yolo(folder, "val")


def test_one_damaged_photo_of_a_hundred_is_left_out_and_counted(tmp_path):
    sides = {"width": WIDTH, "height": HEIGHT}
    images = [{"id": i, "file_name": f"{i}.jpg", **sides} for i in range(1, 101)]
    file = write(tmp_path, content(images=images))
    for image in images:
        photo(tmp_path / "images" / image["file_name"])
    (tmp_path / "images/2.jpg").write_bytes(b"no photo")
    module = data(tmp_path)
    module.prepare_data()
    assert module.split_sizes == (99, 99)
    assert told(module) == {
        "not an image": 2,
    }
    strict = DetectionData(
        "coco",
        str(tmp_path),
        annotations=(file.name,) * 2,
        images=("images",) * 2,
        max_skipped=0,
    )
    words = r"can't be read: images/2\.jpg \(not an image\)\. `max_skipped` \(=0\) is the share"
    with pytest.raises(DataError, match=words):
        strict.prepare_data()


def test_one_damaged_photo_of_yolo_is_left_out_and_counted(tmp_path):
    yolo(tmp_path, "0 0.5 0.5 0.25 0.5")
    photo(tmp_path / "images/2.jpg")
    (tmp_path / "labels/2.txt").write_text("0 0.5 0.5 0.25 0.5")
    (tmp_path / "images/3.jpg").write_bytes(b"no photo")
    (tmp_path / "labels/3.txt").write_text("1 0.5 0.5 0.25 0.5")
    module = DetectionData("yolo", str(tmp_path), val_share=0.5, batch_size=1)
    module.prepare_data()
    assert sum(module.split_sizes) == 2
    assert module.describe()["skipped"]["not an image"] == 1
    strict = DetectionData("yolo", str(tmp_path), val_share=0.5, batch_size=1, max_skipped=0)
    with pytest.raises(DataError, match=r"can't be read: images/3\.jpg \(not an image\)"):
        strict.prepare_data()
