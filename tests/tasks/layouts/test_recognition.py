"""Every layout is recognised by its files, and can be opened as it was recognised."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

import tasks
from bench.errors import DataError, UserError
from tasks.detection.yolo import OUTLINE, POINTS, read_yolo
from tasks.layouts import recognise
from tasks.layouts import voc as voc_layout
from tasks.layouts.xml_folders import ALONE, TWICE, UNPAIRED, xml_files
from tasks.layouts.yolo import read_layout

SIZE = (40, 24)
"""Width and height."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CONVBOARD_DATA", raising=False)


def photo(path, value=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (value, 120, 30)).save(path, comment="/".join(path.parts[-3:]))


def mask(path, low=0, high=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.full(SIZE[::-1], low, np.uint8)
    labels[5:15, 5:15] = high
    Image.fromarray(labels).save(path)


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))


def class_folders(root, *splits):
    for split in splits:
        for label, name in enumerate(("ant", "bee")):
            for i in range(4):
                photo(root / split / name / f"{i}.jpg", 50 * label + i)


def coco(file, folder, names=("a.jpg", "b.jpg"), root_category=False):
    categories = [{"id": 1, "name": "cup", "supercategory": "things"}]
    if root_category:
        categories.insert(0, {"id": 0, "name": "things", "supercategory": "none"})
    images, annotations = [], []
    for i, name in enumerate(names):
        photo(folder / name, i)
        images.append({"id": i, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        box = {"bbox": [4, 4, 10, 10], "area": 100, "iscrowd": 0}
        annotations.append({"id": i, "image_id": i, "category_id": 1} | box)
    lists = {"images": images, "annotations": annotations, "categories": categories}
    text(file, json.dumps(lists))


def voc(root):
    for name in ("train", "val"):
        text(root / f"VOCdevkit/VOC2012/ImageSets/Main/{name}.txt", name)
        photo(root / f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg")
        box = "<xmin>5</xmin><ymin>5</ymin><xmax>15</xmax><ymax>15</ymax>"
        text(
            root / f"VOCdevkit/VOC2012/Annotations/{name}.xml",
            f"<a><size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size><object>"
            f"<name>cat</name><difficult>0</difficult><bndbox>{box}</bndbox></object></a>",
        )


def xml(folder, *stems, size=SIZE, name="cup"):
    for stem in stems:
        box = "<xmin>5</xmin><ymin>5</ymin><xmax>15</xmax><ymax>15</ymax>"
        text(
            folder / f"{stem}.xml",
            f"<a><size><width>{size[0]}</width><height>{size[1]}</height></size><object>"
            f"<name>{name}</name><bndbox>{box}</bndbox></object></a>",
        )


def xml_export(root):
    for split in ("train", "valid"):
        for stem in ("a", "b"):
            photo(root / split / f"{stem}.jpg")
        xml(root / split, "a", "b")


def xml_beside(root):
    for i in range(5):
        photo(root / f"images/{i}.png", i)
    xml(root / "annotations", *"0123", size=(0, 0))


def voc_masks(root):
    for name in ("train", "val"):
        text(root / f"VOCdevkit/VOC2012/ImageSets/Segmentation/{name}.txt", name)
        photo(root / f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg")
        mask(root / f"VOCdevkit/VOC2012/SegmentationClass/{name}.png")


def visdrone(root):
    for split in ("train", "val"):
        folder = root / f"VisDrone2019-DET-{split}"
        photo(folder / "images/1.jpg")
        text(folder / "annotations/1.txt", "4,4,10,10,1,4,0,0")


def yolo(root, description, *splits):
    text(root / "data.yaml", description)
    for split in splits:
        for i in range(3):
            photo(root / split / f"images/{i}.jpg", i)
            text(root / split / f"labels/{i}.txt", "1 0.5 0.5 0.25 0.25")


def darknet(root):
    text(root / "obj.data", "classes = 2", "train = data/train.txt", "names = data/obj.names")
    text(root / "obj.names", "cup", "jug")
    text(root / "train.txt", *(f"data/obj_train_data/{i}.jpg" for i in range(3)))
    for i in range(3):
        photo(root / f"obj_train_data/{i}.jpg", i)
        text(root / f"obj_train_data/{i}.txt", "0 0.5 0.5 0.25 0.25")


def labelled(root):
    text(root / "classes.txt", "cup", "jug")
    for i in range(3):
        photo(root / f"images/{i}.jpg", i)
        text(root / f"labels/{i}.txt", "0 0.5 0.5 0.25 0.25")


def ade20k(root):
    for split in ("training", "validation"):
        photo(root / f"images/{split}/1.jpg")
        mask(root / f"annotations/{split}/1.png", 1, 2)


def pairs(images, masks, count=4, ending=".png", **labels):
    for i in range(count):
        photo(images / f"{i}.jpg", i)
        mask(masks / f"{i}{ending}", **labels)


def roboflow(root):
    for split in ("train", "valid"):
        coco(root / split / "_annotations.coco.json", root / split, root_category=True)


def genuine_coco(root):
    for split in ("train2017", "val2017"):
        coco(root / f"annotations/instances_{split}.json", root / split)


def with_a_class_called_train(root):
    for name in ("bus", "car", "train"):
        for i in range(5):
            photo(root / name / f"{i}.jpg", i)


def with_an_empty_val(root):
    class_folders(root, "train")
    (root / "val").mkdir()


def labelled_with_splits(root):
    text(root / "classes.txt", "cup", "jug")
    for split in ("train", "val"):
        for i in range(3):
            photo(root / f"images/{split}/{i}.jpg", i)
            text(root / f"labels/{split}/{i}.txt", "0 0.5 0.5 0.25 0.25")


def yolo_below_a_path(root):
    yolo(root, "path: ../sets/one\ntrain: train/images\nval: val/images\nnames: [a, b]")
    for split in ("train", "val"):
        photo(root / f"{split}/images/other.jpg")  # what counts is below the path
        for i in range(3):
            photo(root / f"one/{split}/images/{i}.jpg", i)
            text(root / f"one/{split}/labels/{i}.txt", "1 0.5 0.5 0.25 0.25")


def pairs_of_several_suffixes(root):
    pairs(root / "images", root / "masks", 10, "_mask.png")
    for i in range(3):
        (root / f"images/{i}.jpg").rename(root / f"images/{i}.jpeg")


LAYOUTS = {
    "class folders, one of them called train": (
        with_a_class_called_train,
        "classification: class folders without splits, 12 + 3 images (no split of its own: the "
        "second are drawn, always the same), 3 classes",
    ),
    "class folders, and an empty folder of a split": (
        with_an_empty_val,
        "classification: class folders, 6 + 2 images (no split of its own: the second are drawn, "
        "always the same), 2 classes",
    ),
    "YOLO, a list of classes and splits": (
        labelled_with_splits,
        "detection: YOLO files, 3 + 3 images, 2 classes",
    ),
    "YOLO, below a path": (yolo_below_a_path, "detection: YOLO files, 3 + 3 images, 2 classes"),
    "images + masks, several suffixes": (
        pairs_of_several_suffixes,
        "segmentation: image and mask folders, 8 + 2 images (no split of its own: the second are "
        "drawn, always the same), 2 classes",
    ),
    "class folders": (
        lambda root: class_folders(root, "train", "val"),
        "classification: class folders, 8 + 8 images, 2 classes",
    ),
    "class folders, other names": (
        lambda root: class_folders(root, "Training", "Validation", "TEST"),
        "classification: class folders, 8 + 8 images, 2 classes",
    ),
    "class folders, test alone": (
        lambda root: class_folders(root, "train", "test"),
        "classification: class folders, 8 + 8 images (scored on test), 2 classes",
    ),
    "class folders without splits": (
        lambda root: class_folders(root, "."),
        "classification: class folders without splits, 6 + 2 images (no split of its own: the "
        "second are drawn, always the same), 2 classes",
    ),
    "a folder in a folder": (
        lambda root: class_folders(root / "photos", "train", "val"),
        "classification: class folders, 8 + 8 images, 2 classes",
    ),
    "COCO": (genuine_coco, "detection: COCO files, 2 + 2 images, 1 class"),
    "Roboflow": (
        roboflow,
        "detection: COCO files as Roboflow exports them, 2 + 2 images, 1 class",
    ),
    "COCO, one file": (
        lambda root: coco(root / "result.json", root / "images", [f"{i}.jpg" for i in range(10)]),
        "detection: COCO files, 8 + 2 images (no split of its own: the second are drawn, always "
        "the same), 1 class",
    ),
    "COCO, files of other names": (
        lambda root: [
            coco(root / f"labels/{split}.json", root / "images", [f"{split}.jpg", "c.jpg"])
            for split in ("train", "val")
        ],
        "detection: COCO files, 2 + 2 images, 1 class",
    ),
    "VOC": (voc, "detection: PASCAL VOC, 1 + 1 images, 20 classes"),
    "XML, as Roboflow exports it": (
        xml_export,
        "detection: XML files as PASCAL VOC has them, 2 + 2 images, 1 class",
    ),
    "XML in a folder of its own": (
        xml_beside,
        "detection: XML files as PASCAL VOC has them, 3 + 1 images (no split of its own: the "
        "second are drawn, always the same), 1 class",
    ),
    "VOC's masks": (voc_masks, "segmentation: PASCAL VOC, 1 + 1 images, 21 classes"),
    "VisDrone": (visdrone, "detection: VisDrone, 1 + 1 images, 10 classes"),
    "YOLO": (
        lambda root: yolo(
            root,
            "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: [cup, no]",
            "train",
            "valid",
        ),
        "detection: YOLO files, 3 + 3 images, 2 classes",
    ),
    "YOLO without a split": (
        lambda root: yolo(root, "train: /content/x/train/images\nnames: {0: a, 1: b}", "train"),
        "detection: YOLO files, 2 + 1 images (no split of its own: the second are drawn, always "
        "the same), 2 classes",
    ),
    "YOLO, as CVAT exports it": (
        darknet,
        "detection: YOLO files, 2 + 1 images (no split of its own: the second are drawn, always "
        "the same), 2 classes",
    ),
    "YOLO, as Label Studio exports it": (
        labelled,
        "detection: YOLO files, 2 + 1 images (no split of its own: the second are drawn, always "
        "the same), 2 classes",
    ),
    "ADE20K": (ade20k, "segmentation: ADE20K files, 1 + 1 images, 2 classes"),
    "images/train + masks/train": (
        lambda root: [
            pairs(root / f"images/{split}", root / f"masks/{split}") for split in ("train", "val")
        ],
        "segmentation: image and mask folders, 4 + 4 images, 2 classes",
    ),
    "train/images + train/masks": (
        lambda root: [
            pairs(root / f"{split}/images", root / f"{split}/masks") for split in ("train", "test")
        ],
        "segmentation: image and mask folders, 4 + 4 images (scored on test), 2 classes",
    ),
    "ADE20K's folders of black and white": (
        lambda root: [
            pairs(root / f"images/{name}", root / f"annotations/{name}", high=255)
            for name in ("training", "validation")
        ],
        "segmentation: image and mask folders, 4 + 4 images, 2 classes",
    ),
    "images + masks, black and white, with an ending": (
        lambda root: pairs(root / "images", root / "masks", 10, "_mask.png", high=255),
        "segmentation: image and mask folders, 8 + 2 images (no split of its own: the second are "
        "drawn, always the same), 2 classes",
    ),
}


@pytest.mark.parametrize(("write", "sentence"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_is_told_in_a_sentence_and_can_be_opened(tmp_path, write, sentence):
    root = tmp_path / "set"
    write(root)
    layout = recognise(root)
    assert layout.sentence == sentence
    assert layout.typical_size == SIZE[::-1]
    assert layout.data["init_args"]["root"] == layout.folder.name
    made = getattr(tasks, layout.data["class_path"].removeprefix("tasks."))
    arguments = layout.data["init_args"] | {"root": str(layout.folder), "batch_size": 1}
    data = made(**arguments, image_size=16)
    data.prepare_data()
    assert data.class_names == layout.class_names
    assert data.split_sizes == (layout.counts["train"], layout.counts[layout.scored])
    assert data.describe()["options"].get("val_share") == (0.2 if layout.held_out else None)


def test_a_draw_is_the_same_for_every_seed_and_holds_every_class(tmp_path):
    class_folders(tmp_path / "set", ".")
    data = [
        tasks.ClassificationData(
            "folder", root=str(tmp_path / "set"), val_share=0.2, batch_size=1, seed=seed
        )
        for seed in (0, 1)
    ]
    labels = [d.source.scored.labels.tolist() for d in data]
    assert labels == [[0, 1], [0, 1]]
    assert data[0].describe()["files_sha256"] == data[1].describe()["files_sha256"]
    kind = "image drawn into the validation split, which the set lacks"
    assert data[0].describe()["skipped"] == {kind: 2}
    class_folders(tmp_path / "set", "train", "val")
    with pytest.raises(UserError, match=r"`val_share` \(=0.2\) must be None: .*validation split"):
        tasks.ClassificationData(
            "folder", root=str(tmp_path / "set"), val_share=0.2, batch_size=1
        ).prepare_data()


def test_xml_files_without_a_size_and_images_without_a_file_are_counted(tmp_path):
    xml_beside(tmp_path / "set")
    data = tasks.DetectionData("xml", str(tmp_path / "set"), val_share=0.3, batch_size=1)
    assert data.class_names == ("cup",)
    assert data.describe()["skipped"] == {
        "image without an XML file left out": 1,
        "image drawn into the validation split, which the set lacks": 1,
        "no difficult given: 0": 4,
        "no size given: the image's": 4,
    }


def test_what_fits_several_tasks_is_asked_for(tmp_path):
    voc(tmp_path / "set")
    voc_masks(tmp_path / "set")
    with pytest.raises(DataError, match=r"several tasks .*`--task` must say detection or segment"):
        recognise(tmp_path / "set")
    assert recognise(tmp_path / "set", "segmentation").num_classes == 21
    with pytest.raises(DataError, match=r"`--task` \(='classification'\) does not fit"):
        recognise(tmp_path / "set", "classification")
    with pytest.raises(UserError, match="did you mean 'detection'"):
        recognise(tmp_path / "set", "detect")


def test_what_fits_nothing_is_told_what_was_looked_for(tmp_path):
    photo(tmp_path / "set" / "a.jpg")
    with pytest.raises(DataError, match=r"no layout that is known.*class folders.*COCO.*YOLO"):
        recognise(tmp_path / "set")
    with pytest.raises(DataError, match=r"`data` \(='nowhere'\) must be a folder, or the name"):
        recognise("nowhere")
    with pytest.raises(DataError, match="torchvision's CIFAR10 cannot be read"):
        recognise("cifar10")


def _cut_json(root):
    text(root / "train/_annotations.coco.json", '{"images": [')


def _without_boxes(root):
    text(root / "annotations/instances_train.json", '{"images": [], "categories": []}')


def _without_train(root):
    text(root / "data.yaml", "names: [a, b]")


def _masked_faces(root):
    for split in ("train", "val"):
        for name in ("mask", "no_mask"):
            photo(root / split / name / "1.jpg")


def _no_yaml(root):
    text(root / "data.yaml", "names: [a, b")


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (_cut_json, r"train.*coco\.json is no JSON \(Expecting"),
        (_without_boxes, r"instances_train\.json lacks `annotations`, which COCO's"),
        (_without_train, r"data\.yaml lacks `train`"),
        (_no_yaml, r"data\.yaml is no YAML of plain data"),
        (lambda root: photo(root / "cat/1.jpg"), "one folder of images, cat; classes are two"),
        (_masked_faces, "there is mask, which is what a part .* a class needs another name"),
    ],
)
def test_what_is_almost_a_layout_is_told_what_keeps_it(tmp_path, write, why):
    write(tmp_path / "set")
    with pytest.raises(DataError, match=why):
        recognise(tmp_path / "set")


def test_masks_of_colours_are_told(tmp_path):
    photo(tmp_path / "set/train/images/a.jpg")
    photo(tmp_path / "set/train/masks/a.png")
    with pytest.raises(DataError, match=r"1 masks .* hold colours, such as a\.png: a mask must be"):
        recognise(tmp_path / "set")


def test_a_file_in_the_folder_names_it(tmp_path):
    yolo(
        tmp_path / "set", "train: train/images\nval: valid/images\nnames: [a, b]", "train", "valid"
    )
    layout = recognise(tmp_path / "set/data.yaml")
    assert (layout.folder, layout.format) == (tmp_path / "set", "YOLO files")


def test_a_data_yaml_runs_nothing(tmp_path):
    text(tmp_path / "set/data.yaml", "train: !!python/object/apply:os.mkdir [gone]\nnames: [a]")
    with pytest.raises(DataError, match="no layout that is known"):
        recognise(tmp_path / "set")
    assert not (tmp_path / "gone").exists()


def test_a_data_yaml_leads_nowhere_else(tmp_path):
    photo(tmp_path / "other/images/1.jpg")
    text(tmp_path / "set/data.yaml", "train: ../other/images\nnames: [a]")
    (tmp_path / "set/images").mkdir()
    with pytest.raises(DataError, match="no layout that is known"):
        recognise(tmp_path / "set")


@pytest.mark.slow
def test_recognising_needs_no_torch(tmp_path):
    class_folders(tmp_path / "set", "train", "val")
    code = (
        "import sys; from tasks.layouts import recognise; print(recognise('set').task); "
        "assert not {'torch', 'lightning', 'torchvision', 'cv2'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "classification\n"), done.stderr


def test_a_release_of_voc_without_its_test_scores_nothing_that_it_trains_on(tmp_path):
    """VOC2012's val is a part of its trainval, which the usual parts train on."""
    for year, name in (
        ("2007", "trainval"),
        ("2012", "trainval"),
        ("2012", "train"),
        ("2012", "val"),
    ):
        text(tmp_path / f"VOC{year}" / "ImageSets" / "Main" / f"{name}.txt", "a")
    assert voc_layout.parts_of(tmp_path, "train") == (("2012", "train"),)
    assert voc_layout.parts_of(tmp_path, "val") == (("2012", "val"),)
    text(tmp_path / "VOC2007" / "ImageSets" / "Main" / "test.txt", "a")
    assert voc_layout.parts_of(tmp_path, "val") == (("2007", "test"),)
    assert voc_layout.parts_of(tmp_path, "train")[0] == ("2007", "trainval")


def test_one_folder_named_twice_in_a_data_yaml_is_no_split(tmp_path):
    yolo(tmp_path, "train: train/images\nval: train/images\nnames: [cup, jar]", "train")
    layout = recognise(tmp_path)
    assert layout.data["init_args"]["val_share"]


KEYPOINTS = {"keypoints": ["left_ear", "right_ear"], "skeleton": [[1, 2]]}


def posed(file, folder, names=("a.jpg", "b.jpg", "c.jpg"), **category):
    """A file of key points: as COCO's boxes, with the names of the key points in the category."""
    coco(file, folder, names)
    lists = json.loads(file.read_text())
    lists["categories"][0] |= KEYPOINTS | category
    for annotation in lists["annotations"]:
        annotation |= {"keypoints": [5, 5, 2, 9, 9, 1], "num_keypoints": 2}
    file.write_text(json.dumps(lists))


@pytest.mark.parametrize(
    ("train", "val", "folders"),
    [
        *(
            (f"annotations/person_keypoints_train{year}.json",
             f"annotations/person_keypoints_val{year}.json", (f"train{year}", f"val{year}"))
            for year in ("2017", "")
        ),
        ("train/_annotations.coco.json", "valid/_annotations.coco.json", ("train", "valid")),
        ("ears_train.json", "ears_val.json", ("images", "images")),
    ],
)  # fmt: skip
def test_key_points_are_learnt_where_asked_for(tmp_path, train, val, folders):
    for file, folder, letters in zip((train, val), folders, ("abc", "def"), strict=True):
        posed(tmp_path / file, tmp_path / folder, [f"{letter}.jpg" for letter in letters])
    boxes = recognise(tmp_path)
    assert boxes.task == "detection"
    assert boxes.sentence.endswith("1 class (and key points, for `--task pose`)")
    poses = recognise(tmp_path, "pose")
    assert poses.sentence.startswith("pose: COCO files")
    assert poses.sentence.endswith("3 + 3 images, 2 key points")
    assert poses.class_names == ("left_ear", "right_ear")
    data = tasks.PoseData(**poses.data["init_args"] | {"root": str(tmp_path)}, batch_size=1)
    data.prepare_data()
    assert data.skeleton == ((0, 1),)
    assert data.describe()["skipped"] == {}


def test_key_points_without_splits_get_one(tmp_path):
    posed(tmp_path / "ears.json", tmp_path / "images", [f"{i}.jpg" for i in range(10)])
    layout = recognise(tmp_path, "pose")
    assert layout.held_out
    assert layout.counts == {"train": 8, "val": 2}


def test_where_there_are_no_key_points_none_are_offered(tmp_path):
    coco(tmp_path / "a.json", tmp_path / "images")
    assert "key points" not in recognise(tmp_path).sentence
    with pytest.raises(DataError, match=r"`--task` \(='pose'\) does not fit .*: detection: COCO"):
        recognise(tmp_path, "pose")
    with pytest.raises(DataError, match="Looked for were pose: COCO's JSON of key points"):
        recognise(tmp_path / "images", "pose")


@pytest.mark.parametrize("shape", ["4", "[4, 5]", "[0, 2]", "[a, 2]", "[[4], 2]", "true"])
def test_shapes_of_key_points_that_cannot_be_are_named(tmp_path, shape):
    described = f"train: train/images\nval: val/images\nnames: [cup, jar]\nkpt_shape: {shape}"
    yolo(tmp_path, described, "train", "val")
    with pytest.raises(DataError, match=r"`kpt_shape` \(=.*\) must be \[key points, 2 or 3\]"):
        read_layout(tmp_path)


@pytest.mark.parametrize(
    ("shape", "line", "told"),
    [
        ("[3, 2]", "1 0.5 0.5 0.25 0.25 0.4 0.4 0.6 0.6 0 0", POINTS),
        ("[2, 3]", "1 0.5 0.5 0.25 0.25 0.4 0.4 2 0 0 0", POINTS),
        (None, "1 0.5 0.5 0.25 0.25 0.4 0.4 2 0.6 0.6 1", POINTS),
        (None, "1 0.5 0.5 0.25 0.25 0.4 0.4 2", POINTS),
        ("[2, 3]", "1 0.375 0.375 0.625 0.375 0.625 0.625 0.375 0.625", OUTLINE),
        (None, "1 0.375 0.375 0.625 0.375 0.625 0.625 0.5 0.625 0.375 0.625", OUTLINE),
    ],
)
def test_boxes_with_key_points_are_no_outlines(tmp_path, shape, line, told):
    described = "train: train/images\nval: train/images\nnames: [cup, jar]\n"
    yolo(tmp_path, described + (f"kpt_shape: {shape}" if shape else ""), "train")
    for file in (tmp_path / "train/labels").iterdir():
        file.write_text(line)
    boxes = read_yolo(tmp_path, "train")
    for image in boxes.images:
        assert image.boxes.tolist() == [[15, 9, 25, 15]]
    assert boxes.skipped == {told: 3}


def test_xml_files_of_one_name_in_several_folders_go_with_their_images(tmp_path):
    for sequence in ("one", "two"):
        photo(tmp_path / "images" / sequence / "000001.jpg")
        xml(tmp_path / "annotations" / sequence, "000001")
    listed = xml_files(tmp_path, None)
    assert [(a.parent.name, b.parent.name) for a, b in listed] == [("one", "one"), ("two", "two")]


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("annotations/instances_valid.json", "valid"),
        ("annotations/instances_validation2017.json", "images/val2017"),
        ("annotations/my_val.json", "images"),
    ],
)
def test_a_validation_file_of_another_name_is_scored(tmp_path, file, folder):
    coco(tmp_path / "annotations/instances_train.json", tmp_path / "train")
    coco(tmp_path / file, tmp_path / folder, ["v.jpg"])
    layout = recognise(tmp_path)
    assert layout.sentence == "detection: COCO files, 2 + 1 images, 1 class"
    data = tasks.DetectionData(**layout.data["init_args"] | {"root": str(tmp_path)}, batch_size=1)
    data.prepare_data()
    assert data.split_sizes == (2, 1)


def test_another_kind_of_cocos_files_is_no_split_of_boxes(tmp_path):
    coco(tmp_path / "annotations/instances_train2017.json", tmp_path / "train2017")
    posed(tmp_path / "annotations/person_keypoints_val2017.json", tmp_path / "val2017")
    assert recognise(tmp_path, "detection").held_out


def _divided_yolo(root):
    yolo(root, "train: train/images\nval: val/images\nnames: [a, b]", "train", "val")


def _divided_masks(root):
    for split in ("train", "val"):
        pairs(root / f"images/{split}", root / f"masks/{split}")


def _divided_poses(root):
    for split in ("train", "val"):
        posed(root / f"annotations/person_keypoints_{split}.json", root / split)


@pytest.mark.parametrize(
    ("write", "made", "source"),
    [
        (genuine_coco, "DetectionData", "coco"),
        (_divided_yolo, "DetectionData", "yolo"),
        (xml_export, "DetectionData", "xml"),
        (_divided_masks, "SegmentationData", "masks"),
        (_divided_poses, "PoseData", "coco"),
    ],
)
def test_no_validation_split_is_drawn_of_a_set_that_has_one(tmp_path, write, made, source):
    write(tmp_path)
    named = {"class_names": ["ground", "roof"]} if source == "masks" else {}
    data = getattr(tasks, made)(source, str(tmp_path), val_share=0.2, batch_size=1, **named)
    with pytest.raises(UserError, match=r"`val_share` \(=0.2\) must be None: .*validation split"):
        data.prepare_data()


def _without_images(root):
    for stem in "ab":
        photo(root / f"images/{stem}.jpg")
        photo(root / f"images/{stem}{stem}.jfif")
    xml(root / "annotations", "a", "b", "aa", "bb")


def _of_one_name(root):
    for ending in ("jpg", "png"):
        for stem in "ab":
            photo(root / f"images/{stem}.{ending}")
    xml(root / "annotations", "a", "b")


def _listed_without_images(root):
    for stem in "ab":
        photo(root / f"images/{stem}.jpg")
    xml(root / "annotations", "a", "b")
    text(root / "ImageSets/Main/train.txt", "a", "b", "c", "d")


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        (_without_images, ALONE),
        (_of_one_name, TWICE),
        (_listed_without_images, UNPAIRED),
    ],
)
def test_annotated_images_that_cannot_be_used_are_counted_and_limited(tmp_path, write, kind):
    write(tmp_path)
    repairs = Counter()
    assert len(xml_files(tmp_path, None, repairs)) == 2
    assert +repairs == {kind: 2}
    allowed = tasks.DetectionData("xml", str(tmp_path), val_share=0.5, max_skipped=0.5)
    assert allowed.describe()["skipped"][kind] == 2
    strict = tasks.DetectionData("xml", str(tmp_path), val_share=0.5)
    with pytest.raises(DataError, match=rf"{kind}: 2\. `max_skipped` \(=0.01\)"):
        strict.prepare_data()


@pytest.mark.parametrize("task", [None, "pose"])
@pytest.mark.parametrize("others", [("val2017",), ("val2017", "test2017")])
def test_a_damaged_file_of_a_split_is_named(tmp_path, task, others):
    write, kind = (posed, "person_keypoints") if task else (coco, "instances")
    for split in ("train2017", *others):
        write(tmp_path / f"annotations/{kind}_{split}.json", tmp_path / split)
    file = tmp_path / f"annotations/{kind}_val2017.json"
    file.write_text(file.read_text()[:-9])
    with pytest.raises(DataError, match=rf"{kind}_val2017\.json must be JSON with the lists"):
        recognise(tmp_path, task)


def test_of_two_files_of_one_split_the_one_left_out_is_told(tmp_path):
    for name in ("train_a", "train_b", "val"):
        coco(tmp_path / f"annotations/{name}.json", tmp_path / "images", [f"{name}.jpg"])
    layout = recognise(tmp_path)
    assert layout.counts == {"train": 1, "val": 1}
    assert layout.oddities == {"train_b.json left out: another file tells of its split": 1}


def test_a_damaged_mask_in_ade20ks_folders_is_counted_before_training(tmp_path):
    for i in range(60):
        for split in ("training", "validation"):
            photo(tmp_path / f"images/{split}/{i}.jpg")
            mask(tmp_path / f"annotations/{split}/{i}.png", 1, 2)
    (tmp_path / "annotations/training/7.png").write_bytes(b"oops")
    layout = recognise(tmp_path)
    assert layout.sentence == "segmentation: ADE20K files, 60 + 60 images, 2 classes"
    arguments = layout.data["init_args"] | {"root": str(tmp_path), "max_skipped": 0.02}
    data = tasks.SegmentationData(**arguments, batch_size=1)
    data.prepare_data()
    assert data.split_sizes == (59, 60)
    with pytest.raises(DataError, match=r"7\.png"):
        tasks.SegmentationData(**arguments | {"max_skipped": 0.0}, batch_size=1).prepare_data()
