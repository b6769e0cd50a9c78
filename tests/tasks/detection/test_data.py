"""Readers of COCO, VOC and VisDrone, and what happens to an image and its boxes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torchvision import tv_tensors

from bench.errors import DataError
from tasks.data.images import read_image
from tasks.data.order import AspectSampler, EpochSampler
from tasks.detection.boxes import BoxImage, BoxSet, rarest_labels
from tasks.detection.coco import read_coco
from tasks.detection.data import DetectionData
from tasks.detection.dataset import BoxDataset, collate
from tasks.detection.outlines import decode
from tasks.detection.transforms import Augmentation, crop, letterbox, mosaic, sane
from tasks.detection.visdrone import read_visdrone
from tasks.detection.voc import read_voc
from tasks.layouts.coco import coco_files

FIXTURE = Path(__file__).parents[4] / "shared" / "data"
needs_fixture = pytest.mark.skipif(
    not (FIXTURE / "coco_cc").is_dir(), reason="needs the sets of ../shared/data"
)


def picture(path, size=(40, 60), colour=(200, 30, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], colour).save(path, comment="/".join(path.parts[-3:]))


def coco(root, split="train2017", **changes):
    """Write a tiny COCO: sparse ids, polygons and both run lengths, a crowd, an empty image."""
    column = np.zeros((40, 60), dtype=np.uint8, order="F")
    column[:, 1] = 1
    compressed = coco_mask.encode(column)["counts"].decode()
    content = {
        "images": [
            {"id": 10 * i + 7, "file_name": f"{i}.jpg", "height": 40, "width": 60}
            for i in range(4)
        ],
        "categories": [{"id": 90, "name": "fork"}, {"id": 3, "name": "car"}],
        "annotations": [
            {
                "id": 1, "image_id": 7, "category_id": 90, "bbox": [10, 5, 20, 10], "area": 150.5,
                "iscrowd": 0, "segmentation": [[10, 5, 30, 5, 30, 15, 10, 15]],
            },
            {
                "id": 2, "image_id": 7, "category_id": 3, "bbox": [0, 0, 2, 40], "area": 80,
                "iscrowd": 1, "segmentation": {"size": [40, 60], "counts": [0, 80, 2320]},
            },
            {
                "id": 3, "image_id": 17, "category_id": 3, "bbox": [1, 0, 1, 40], "area": 40,
                "iscrowd": 0, "segmentation": {"size": [40, 60], "counts": compressed},
            },
            {
                "id": 4, "image_id": 17, "category_id": 3, "bbox": [5, 5, 0, 9], "area": 0,
                "iscrowd": 0, "segmentation": [[5, 5, 5, 14, 5, 5]],
            },
        ],
    }  # fmt: skip
    for key, change in changes.items():
        change(content[key])
    file = root / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    for record in content["images"]:
        picture(root / split / record["file_name"])
    return file, root / split


def test_coco(tmp_path):
    found = read_coco(*coco(tmp_path), masks=True)
    assert found.class_names == ("car", "fork")
    assert found.skipped == {"box without area": 1}
    first, second, third, fourth = found.images
    assert first.boxes.tolist() == [[10, 5, 30, 15], [0, 0, 2, 40]]
    assert first.labels.tolist() == [1, 0]
    assert first.crowd.tolist() == [False, True]
    assert first.area.tolist() == [150.5, 80]
    assert (first.masks().sum(axis=(1, 2)) == [200, 80]).all()
    assert second.masks()[0, :, 1].all()
    assert second.masks().sum() == 40
    assert third.boxes.shape == (0, 4) == fourth.boxes.shape
    assert third.masks().shape == (0, 40, 60)


def test_decoding_is_that_of_pycocotools():
    rng = np.random.default_rng(0)
    mask = rng.random((13, 9)) > 0.6
    runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = {"size": [13, 9], "counts": runs["counts"].decode()}
    assert (decode(text, 13, 9) == mask).all()
    flat = mask.flatten(order="F").astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    counts = np.diff([0, *edges, flat.size]).tolist()
    assert (decode({"size": [13, 9], "counts": counts}, 13, 9) == mask).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": lambda a: a[0].update(image_id=1)}, "annotation 1 .* image 1 that is not"),
        ({"annotations": lambda a: a[0].update(category_id=1)}, "category 1 not listed"),
        ({"annotations": lambda a: a[0].update(bbox=[1, 2, 3])}, r"`bbox` \(=\[1, 2, 3\]\)"),
        ({"annotations": lambda a: a[0].update(bbox=[1, 2, 3, float("nan")])}, "`bbox`"),
        ({"annotations": lambda a: a[0].pop("segmentation")}, "no `segmentation`"),
        ({"annotations": lambda a: a.clear()}, "has no objects"),
        ({"images": lambda i: i[1].update(id=7)}, "image id 7 twice"),
        ({"images": lambda i: i[1].pop("height")}, "has no `height`"),
        ({"categories": lambda c: c[0].update(id=3)}, "different ids"),
        ({"categories": lambda c: c.clear()}, "different ids"),
    ],
)
def test_coco_that_contradicts_itself(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        read_coco(*coco(tmp_path, **change), masks=True)


def test_coco_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="instances_train2017"):
        coco_files(tmp_path, "train")
    file, images = coco(tmp_path)
    with pytest.raises(DataError, match=r"None of the 4 images .* the first is '0\.jpg' in .*gone"):
        read_coco(file, images / "gone")
    file.write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        read_coco(file, images)
    file.write_text('{"images": []}')
    with pytest.raises(DataError, match="no list of `annotations`"):
        read_coco(file, images)


@pytest.mark.parametrize("split", ["train2017", "train2014", "train"])
def test_coco_layouts(tmp_path, split):
    coco(tmp_path, split)
    assert coco_files(tmp_path, "train")[1].name == split
    export = tmp_path / "export" / "valid"
    export.mkdir(parents=True)
    (export / "_annotations.coco.json").write_text("{}")
    assert coco_files(tmp_path / "export", "val") == (export / "_annotations.coco.json", export)


def voc(root, year="2007", name="trainval", objects=None):
    objects = objects or [("dog", 0, (1, 1, 60, 40)), ("person", 1, (11, 6, 30, 15))]
    folder = root / f"VOC{year}"
    rows = "".join(
        f"<object><name>{n}</name><difficult>{d}</difficult><bndbox><xmin>{b[0]}</xmin>"
        f"<ymin>{b[1]}</ymin><xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for n, d, b in objects
    )
    for stem in ("000001", "000002"):
        file = folder / "Annotations" / f"{stem}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            f"<annotation><size><width>60</width><height>40</height></size>{rows}</annotation>"
        )
        picture(folder / "JPEGImages" / f"{stem}.jpg")
    listing = folder / "ImageSets" / "Main" / f"{name}.txt"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("000001\n000002\n")


def test_voc(tmp_path):
    devkit = tmp_path / "VOCdevkit"
    for year, name in (("2007", "trainval"), ("2012", "trainval"), ("2007", "test")):
        voc(devkit, year, name)
    train = read_voc(tmp_path, "train")
    assert len(train.images) == 4
    assert len(read_voc(devkit, "val").images) == 2
    image = train.images[0]
    assert train.class_names[11] == "dog"
    assert image.labels.tolist() == [11, 14]
    assert image.boxes.tolist() == [[0, 0, 60, 40], [10, 5, 30, 15]]
    assert image.crowd.tolist() == [False, True]
    assert image.area.tolist() == [2400, 200]


def test_voc_of_2012_alone(tmp_path):
    voc(tmp_path, "2012", "train")
    voc(tmp_path, "2012", "val")
    assert len(read_voc(tmp_path, "train").images) == len(read_voc(tmp_path, "val").images) == 2


def test_voc_that_is_wrong(tmp_path):
    with pytest.raises(DataError, match=r"must hold VOC2012/ImageSets/Main/train\.txt"):
        read_voc(tmp_path, "train")
    voc(tmp_path, "2012", "train", [("dragon", 0, (1, 1, 2, 2))])
    with pytest.raises(DataError, match=r"000001\.xml has an object of no class .*dragon"):
        read_voc(tmp_path, "train")
    (tmp_path / "VOC2012" / "Annotations" / "000001.xml").write_text("<annotation>")
    with pytest.raises(DataError, match=r"000001\.xml .* cannot be read"):
        read_voc(tmp_path, "train")


def visdrone(
    root, split="train", text="10,5,20,10,1,4,0,0\n0,0,8,8,0,0,0,0\n30,30,5,5,1,11,0,0,\n"
):
    folder = root / f"VisDrone2019-DET-{split}"
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "annotations" / "a.txt").write_text(text)
    picture(folder / "images" / "a.jpg")


def test_visdrone(tmp_path):
    visdrone(tmp_path)
    found = read_visdrone(tmp_path, "train")
    (image,) = found.images
    assert image.size == (40, 60)
    real = ~image.crowd
    assert image.boxes[real].tolist() == [[10, 5, 30, 15]]
    assert [found.class_names[i] for i in image.labels[real]] == ["car"]
    # Two regions to ignore, each for every class.
    assert sorted(image.labels[image.crowd].tolist()) == sorted(2 * list(range(10)))
    assert {tuple(b) for b in image.boxes[image.crowd].tolist()} == {(0, 0, 8, 8), (30, 30, 35, 35)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n", "line 1 of a.txt"),
        ("1,2,3,4,1,12,0,0\n", "`category` .=12. must be from 0 to 11"),
    ],
)
def test_visdrone_that_is_wrong(tmp_path, text, message):
    with pytest.raises(DataError, match=r"must hold VisDrone2019-DET-val"):
        read_visdrone(tmp_path, "val")
    visdrone(tmp_path, text=text)
    with pytest.raises(DataError, match=message):
        read_visdrone(tmp_path, "train")


def sample(height=40, width=60, boxes=((10, 5, 30, 15), (50, 30, 60, 40))):
    """An image that is bright in its boxes, with masks of the same shape."""
    pixels = torch.zeros(3, height, width, dtype=torch.uint8)
    masks = torch.zeros(len(boxes), height, width, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
        pixels[:, y1:y2, x1:x2] = 255
    return {
        "image": tv_tensors.Image(pixels),
        "boxes": tv_tensors.BoundingBoxes(
            torch.tensor(boxes).float().reshape(-1, 4), format="XYXY", canvas_size=(height, width)
        ),
        "labels": torch.arange(len(boxes)),
        "iscrowd": torch.zeros(len(boxes), dtype=torch.long),
        "masks": tv_tensors.Mask(masks),
    }


def agree(moved, tolerance):
    """Boxes are the bounds of the masks, and the image is bright inside of them."""
    for box, mask in zip(moved["boxes"], moved["masks"], strict=True):
        rows, columns = mask.nonzero().T
        bounds = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert box.tolist() == pytest.approx([float(b) for b in bounds], abs=tolerance)
        assert moved["image"].float().mean(0)[mask].mean() > 200


def test_fit_keeps_the_aspect_ratio():
    moved = letterbox(sample(), (80, 80))
    assert moved["image"].shape == (3, 53, 80)
    agree(moved, 1)
    assert letterbox(sample(), (40, 60))["boxes"].tolist() == sample()["boxes"].tolist()


def test_crop_leaves_out_what_is_outside():
    moved = crop(sample(), 8, 20, 30, 20)
    assert moved["image"].shape == (3, 30, 20)
    assert moved["boxes"].tolist() == [[0, 0, 10, 7]]
    assert moved["labels"].tolist() == [0]
    assert moved["masks"].shape == (1, 30, 20)
    agree(moved, 0)


def test_boxes_that_are_too_small_go():
    tiny = sample(boxes=((10, 5, 30, 15),))
    tiny["boxes"][0, 2] = 10.5
    assert all(len(sane(tiny)[key]) == 0 for key in ("boxes", "labels", "iscrowd", "masks"))


def test_boxes_are_never_trained_on_beyond_the_image():
    beyond = sample(boxes=((10, 5, 30, 15), (-5, 30, 90, 70), (61, 5, 80, 15)))
    cut = Augmentation((1.0, 1.0), flip=0.0, photometric=False)(beyond, (40, 60))
    assert cut["boxes"].tolist() == [[10, 5, 30, 15], [0, 30, 60, 40]]
    assert len(cut["labels"]) == len(cut["masks"]) == 2


@pytest.mark.parametrize("seed", range(6))
def test_training_moves_everything_together(seed):
    torch.manual_seed(seed)
    augmentation = Augmentation((0.5, 2.0), flip=0.5, photometric=False)
    moved = augmentation(sample(), (40, 60))
    height, width = moved["image"].shape[-2:]
    assert height <= 40
    assert width <= 60
    agree(moved, 1.01)
    assert len(moved["boxes"]) == len(moved["labels"]) == len(moved["iscrowd"])


def test_scales_lie_in_their_range():
    torch.manual_seed(0)
    factors = [Augmentation((0.5, 2.0), 0, False).factor() for _ in range(200)]
    assert min(factors) >= 0.5
    assert max(factors) <= 2
    assert 60 < sum(f < 1 for f in factors) < 140


def test_photometric_changes_only_colours():
    torch.manual_seed(0)
    before = sample()
    before["image"] //= 2
    moved = Augmentation((1.0, 1.0), 0.0, photometric=True)(before, (40, 60))
    assert moved["boxes"].tolist() == before["boxes"].tolist()
    assert not torch.equal(moved["image"], before["image"])


@pytest.mark.parametrize("seed", range(4))
def test_mosaic(seed):
    torch.manual_seed(seed)
    joined = mosaic([sample() for _ in range(4)], (40, 60), [0.5, 1.0, 1.0, 1.5])
    assert joined["image"].shape == (3, 80, 120)
    assert 1 <= len(joined["boxes"]) == len(joined["masks"]) == len(joined["labels"]) <= 8
    agree(joined, 1.01)


def test_empty_images_pass_everything():
    torch.manual_seed(0)
    empty = sample(boxes=())
    empty["masks"] = tv_tensors.Mask(torch.zeros(0, 40, 60, dtype=torch.bool))
    moved = Augmentation((0.5, 2.0), 0.5, True)(mosaic([empty] * 4, (40, 60), [1.0] * 4), (40, 60))
    assert moved["boxes"].shape == (0, 4)


def box_set(tmp_path, sizes):
    images = []
    for index, size in enumerate(sizes):
        path = tmp_path / f"{index}.png"
        picture(path, size)
        box, label, crowd, area = [[2.0, 3, 12, 13]], [index % 2], [False], [77.0]
        images.append(BoxImage(path, size, *map(np.array, (box, label, crowd, area))))
    return BoxSet(tuple(images), ("a", "b"), {})


def test_samples_are_a_function_of_seed_epoch_and_index(tmp_path):
    images = box_set(tmp_path, [(40, 60)] * 5)
    augmentation = Augmentation((0.5, 2.0), 0.5, True)

    def dataset(seed):
        return BoxDataset(images, (32, 32), augmentation=augmentation, mosaic_share=0.5, seed=seed)

    def same(a, b):
        return torch.equal(a[0], b[0]) and torch.equal(a[1]["boxes"], b[1]["boxes"])

    one, other = dataset(0), dataset(0)
    _ = one[2, 3]
    assert same(one[1, 4], other[1, 4])
    assert not same(one[1, 4], one[2, 4])
    assert not same(one[1, 4], dataset(1)[1, 4])


def test_images_in_memory_are_those_of_the_disk(tmp_path):
    images = box_set(tmp_path, [(40, 60)] * 2)
    augmentation = Augmentation((0.5, 2.0), 0.5, True)
    kept = BoxDataset(images, (32, 32), augmentation=augmentation, memory_mb=1)
    read = BoxDataset(images, (32, 32), augmentation=augmentation)
    first = [kept[0, i][0] for i in range(2)]
    for image in images.images:
        image.path.write_bytes(b"")
    with pytest.raises(OSError, match="cannot identify"):
        read[0, 0]
    assert all(torch.equal(kept[0, i][0], image) for i, image in enumerate(first))


def test_scored_samples_keep_the_truth_of_the_file(tmp_path):
    images = box_set(tmp_path, [(40, 60)])
    image, target = BoxDataset(images, (80, 80))[0]
    assert image.shape == (3, 53, 80)
    assert image.min() >= 0
    assert image.max() <= 1
    assert target["size"].tolist() == [53, 80]
    original = target["original"]
    assert original["size"].tolist() == [40, 60]
    assert original["boxes"].tolist() == [[2, 3, 12, 13]]
    assert original["area"].tolist() == [77]
    assert target["boxes"][0].tolist() == pytest.approx([2.667, 3.975, 16, 17.225], abs=1e-3)


def test_collate_pads_to_the_frame(tmp_path):
    dataset = BoxDataset(box_set(tmp_path, [(40, 60), (60, 40)]), (64, 64))
    images, targets = collate([dataset[0], dataset[1]])
    assert images.shape == (2, 3, 64, 64)
    assert (images[0, :, 43:] == 0).all()
    assert images[0, 0, :43].min() > 0.7
    assert [t["size"].tolist() for t in targets] == [[43, 64], [64, 43]]


def test_batches_of_one_aspect(tmp_path):
    data = DetectionData(image_size=(32, 48), batch_size=4, group_aspect=True)
    sizes = [(40, 60) if i % 3 else (60, 40) for i in range(20)]
    data.train_set = BoxDataset(box_set(tmp_path, sizes), (32, 48), turn=True)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(1)
    batches = list(loader)
    assert len(batches) == len(loader) == 5
    assert sorted(t["image_id"] for _, targets in batches for t in targets) == list(range(20))
    shapes = [images.shape[-2:] for images, _ in batches]
    assert shapes.count((32, 48)) == 3
    assert shapes.count((48, 32)) == 1
    # Two standing and two lying ones are left over.
    assert shapes[-1] == (48, 48)


def test_one_aspect_is_the_order_of_all_tasks():
    order = {"seed": 3, "rank": 1, "world_size": 2}
    assert list(AspectSampler([False] * 21, 4, **order)) == list(EpochSampler(21, **order))


@pytest.fixture
def folder(tmp_path):
    for split in ("train2017", "val2017"):
        coco(tmp_path, split)
    return tmp_path


def test_data_module(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("CONVBOARD_CACHE", str(tmp_path / "cache"))
    data = DetectionData("coco", str(folder), image_size=(32, 48), batch_size=2, masks=True)
    data.prepare_data()
    data.setup("fit")
    assert (data.num_classes, data.class_names) == (2, ("car", "fork"))
    batches = list(data.train_dataloader())
    assert len(batches) == 2
    assert all(images.shape == (2, 3, 32, 48) for images, _ in batches)
    _, targets = next(iter(data.val_dataloader()))
    assert targets[0]["masks"].shape == (2, 32, 48)
    assert [t["image_id"] for t in targets] == [0, 1]
    described = data.describe()
    assert described["train_samples"] == described["scored_samples"] == 4
    assert described["skipped"] == {"box without area": 2}
    assert described["files_sha256"] == data.describe()["files_sha256"]


def test_the_hash_of_a_set_covers_its_annotations(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("CONVBOARD_CACHE", str(tmp_path / "cache"))
    before = DetectionData("coco", str(folder)).describe()["files_sha256"]
    coco(folder, "val2017", annotations=lambda a: a[0].update(area=151))
    assert DetectionData("coco", str(folder)).describe()["files_sha256"] != before


def test_holdout_is_cut_from_training(folder):
    data = DetectionData("coco", str(folder), holdout=0.5, batch_size=1)
    data.setup("fit")
    paths = [{i.path for i in part.images.images} for part in (data.train_set, data.val_set)]
    assert [len(p) for p in paths] == [3, 1]  # of the two classes there is one image each
    assert not paths[0] & paths[1]
    assert all(p.parent.name == "train2017" for p in paths[0] | paths[1])
    assert DetectionData("coco", str(folder), holdout=0.01).split_sizes == (3, 1)


def test_holdout_is_cut_of_every_class(folder):
    data = DetectionData("coco", str(folder), holdout=0.5, batch_size=1)
    whole = data._published["train"]
    images = [replace(whole.images[0], labels=np.array([i % 2, 0])) for i in range(16)]
    data._checked[0]["train"] = replace(whole, images=tuple(images))
    _, scored = data._splits
    # every second image, whatever it is, would be of one class
    assert [int(image.labels[0]) for image in scored.images] == [0, 1] * 4


def test_what_is_held_out_is_what_is_shown_as_scored(folder):
    data = DetectionData("coco", str(folder), holdout=0.5, batch_size=1)
    picture(folder / "train2017" / "2.jpg", colour=(1, 250, 1))
    picture(folder / "train2017" / "3.jpg", colour=(1, 1, 250))
    trained, held = data._splits
    for split, part in (("train", trained), ("val", held)):
        for index, image in enumerate(part.images):
            shown, _ = data.example(split, index)
            assert torch.equal(shown, read_image(image.path))
    with pytest.raises(IndexError):
        data.example("val", len(held.images))


def test_regions_to_ignore_are_counted_apart(tmp_path):
    for split in ("train", "val"):
        visdrone(tmp_path, split)
    data = DetectionData("visdrone", str(tmp_path), batch_size=1)
    counts = data.class_counts("train")
    assert {name: count for name, count in counts.items() if count} == {
        "car": 1,
        "region to ignore": 2,
    }
    part = data._published["train"]
    assert rarest_labels(part).tolist() == [part.class_names.index("car")]


def test_a_region_to_ignore_is_no_class_of_its_image(folder):
    part = read_coco(folder / "annotations/instances_train2017.json", folder / "train2017")
    (first,) = part.subset([0]).images
    # a crowd of the rarer class lies on it
    assert first.labels.tolist() == [1, 0]
    assert rarest_labels(part.subset([0])).tolist() == [1]
    only = replace(first, crowd=np.array([True, True]))
    assert rarest_labels(replace(part, images=(only,))).tolist() == [-1]


def test_the_hash_of_a_set_covers_its_masks_where_they_are_learnt(folder):
    def hashes():
        found = [DetectionData("coco", str(folder), masks=masks) for masks in (False, True)]
        return [data.describe()["files_sha256"] for data in found]

    before = hashes()
    assert before[0] != before[1]
    other = [[10, 5, 30, 5, 30, 15]]
    coco(folder, "val2017", annotations=lambda a: a[0].update(segmentation=other))
    after = hashes()
    assert before[0] == after[0]
    assert before[1] != after[1]


@pytest.mark.parametrize("damage", [b"", b"no image", "half"])
def test_broken_images_are_found_before_training(folder, monkeypatch, tmp_path, damage):
    monkeypatch.setenv("CONVBOARD_CACHE", str(tmp_path / "cache"))
    path = folder / "val2017" / "2.jpg"
    path.write_bytes(path.read_bytes()[:400] if damage == "half" else damage)
    with pytest.raises(DataError, match=r"1 file\(s\) can't be read: val2017/2\.jpg"):
        DetectionData("coco", str(folder), batch_size=2, max_skipped=0).prepare_data()


def test_batches_larger_than_the_set(folder):
    with pytest.raises(DataError, match=r"`batch_size` \(=5\) must be at most the 4 images"):
        DetectionData("coco", str(folder), batch_size=5).prepare_data()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "cocoo", "root": "."}, "did you mean 'coco'"),
        ({"source": "voc"}, r"`root` \(=None\) must be the folder"),
        ({"source": "voc", "root": ".", "masks": True}, r"`masks` \(=True\)"),
        ({"source": "voc", "root": ".", "options": {"train": 1}}, "`options`"),
        ({"source": "coco", "root": ".", "images": ("a", "b")}, "must be given together"),
        ({"image_size": 4}, r"`image_size` \(=4\)"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"scale": (2.0, 1.0)}, "`scale`"),
        ({"flip": 1.5}, "`flip`"),
        ({"mosaic": -1}, "`mosaic`"),
        ({"holdout": 0.6}, r"`holdout` \(=0.6\) must be in \[0, 0.5\]"),
        ({"options": {"trian": 4}}, r"`options` \('trian'\).*train"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        DetectionData(**arguments)


def test_classes_must_agree(folder):
    coco(folder, "val2017", categories=lambda c: c[0].update(name="spoon"))
    with pytest.raises(
        DataError, match=r"1 class\(es\) of 'val' are missing from the training split: spoon"
    ):
        _ = DetectionData("coco", str(folder)).num_classes


def test_named_files(folder):
    names = ("annotations/instances_val2017.json",) * 2
    data = DetectionData("coco", str(folder), annotations=names, images=("val2017", "val2017"))
    assert data.num_classes == 2


def test_scenes(tmp_path):
    data = DetectionData(
        "scenes", str(tmp_path), batch_size=4, masks=True,
        options={"train": 8, "val": 6, "classes": 3},
    )  # fmt: skip
    data.prepare_data()
    data.setup("fit")
    images, targets = next(iter(data.train_dataloader()))
    assert images.shape == (4, 3, 64, 64)
    for target in targets:
        for box, mask in zip(target["boxes"], target["masks"], strict=True):
            rows, columns = mask.nonzero().T
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert data.describe()["scored_samples"] == 6


@needs_fixture
def test_genuine_coco():
    data = DetectionData("coco", str(FIXTURE / "coco_cc"), image_size=128, group_aspect=True)
    data.prepare_data()
    data.setup("fit")
    assert data.num_classes == 80
    assert data.class_names[79] == "toothbrush"
    assert len(data.train_set) == 26
    assert len(data.val_set) == 27
    assert any(i.crowd.any() for i in data.val_set.images.images)
    seen = [target for _, targets in data.val_dataloader() for target in targets]
    assert sum(len(t["boxes"]) for t in seen) == 174


@needs_fixture
@pytest.mark.parametrize(("name", "classes", "train"), [("chess", 12, 202), ("bccd", 3, 205)])
def test_real_sets(name, classes, train):
    data = DetectionData("coco", str(FIXTURE / name), image_size=(240, 320))
    assert data.num_classes == classes
    assert data.describe()["train_samples"] == train
