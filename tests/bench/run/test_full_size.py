"""The full-size suites: whole networks on the meta device, two steps on genuine tiny sets."""

import copy
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from bench.analysis.gpu_hours import gpu_hours, hours, on_meta
from bench.config import files, schema
from bench.config.cell import without_start
from bench.config.plan import Choice, plan
from bench.run.fit import fit
from leaderboard import published

SUITES = [
    name
    for name in files.known("suites")
    if any(board.train_images for board in schema.load_suite(name).boards)
]
COCO_IDS = sorted({*range(1, 91)} - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
"""COCO's 80 categories, of which ids are missing."""
PARTS = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
COCO_POINTS = ["nose", *(f"{side}_{part}" for part in PARTS for side in ("left", "right"))]
SIDES = (96, 128)


def image(path, seed, size=SIDES):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def imagenet(root):
    for split in ("train", "val"):
        for label in ("n01440764", "n01443537"):
            for k in range(2):
                image(root / split / label / f"{label}_{k}.JPEG", k)


def coco(root):
    for split in ("train", "val"):
        outline = [[10, 8, 60, 8, 60, 48, 10, 48]]
        text = {
            "images": [
                {"id": k, "file_name": f"{k:012}.jpg", "width": 128, "height": 96} for k in range(4)
            ],
            "categories": [{"id": i, "name": f"category {i}"} for i in COCO_IDS],
            "annotations": [
                {
                    "id": k,
                    "image_id": k,
                    "category_id": COCO_IDS[-1 - k],
                    "bbox": [10, 8, 50, 40],
                    "area": 2000,
                    "iscrowd": 0,
                    "segmentation": outline,
                }
                for k in range(4)
            ],
        }
        file = root / "annotations" / f"instances_{split}2017.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(text))
        for k in range(4):
            image(root / f"{split}2017" / f"{k:012}.jpg", k)


def keypoints(root):
    for split in ("train", "val"):
        points = [[k + 8, 2 * k + 8, 2] for k in range(17)]
        figure = {
            "keypoints": [number for point in points for number in point],
            "num_keypoints": 17,
            "iscrowd": 0,
            "category_id": 1,
        }
        figure |= {"bbox": [8, 8, 20, 40], "area": 600}
        images = [
            {"id": k, "file_name": f"{k:012}.jpg", "width": 128, "height": 96} for k in range(5)
        ]
        text = {
            "images": images,
            "categories": [{"id": 1, "name": "person", "keypoints": COCO_POINTS}],
            "annotations": [{"id": k, "image_id": k, **figure} for k in range(4)],
        }
        file = root / "annotations" / f"person_keypoints_{split}2017.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(text))
        for k in range(5):
            image(root / f"{split}2017" / f"{k:012}.jpg", k)


def ade20k(root):
    for split in ("training", "validation"):
        for k in range(4):
            name = f"ADE_{split[:5]}_{k:08}"
            image(root / "images" / split / f"{name}.jpg", k)
            labels = np.random.default_rng(k).integers(0, 151, SIDES, dtype=np.uint8)
            (root / "annotations" / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels).save(root / "annotations" / split / f"{name}.png")
    lines = [f"{k}\t0.1\t10\t1\tthing {k}" for k in range(1, 151)]
    (root / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *lines]))


def voc(root):
    for year, split in (("2007", "trainval"), ("2012", "trainval"), ("2007", "test")):
        base = root / "VOCdevkit" / f"VOC{year}"
        stems = [f"{year}_{split}_{k}" for k in range(4 if split == "test" else 2)]
        listing = base / "ImageSets" / "Main" / f"{split}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("\n".join(stems))
        for k, stem in enumerate(stems):
            image(base / "JPEGImages" / f"{stem}.jpg", k)
            (base / "Annotations").mkdir(exist_ok=True)
            (base / "Annotations" / f"{stem}.xml").write_text(
                "<annotation><size><width>128</width><height>96</height><depth>3</depth></size>"
                "<object><name>dog</name><difficult>0</difficult><bndbox><xmin>11</xmin>"
                "<ymin>9</ymin><xmax>60</xmax><ymax>48</ymax></bndbox></object></annotation>"
            )


def visdrone(root):
    for split in ("train", "val"):
        for k in range(4):
            image(root / f"VisDrone2019-DET-{split}" / "images" / f"{k}.jpg", k)
            file = root / f"VisDrone2019-DET-{split}" / "annotations" / f"{k}.txt"
            file.parent.mkdir(exist_ok=True)
            file.write_text("10,8,50,40,1,4,0,0\n70,60,20,20,0,0,0,0\n")


WRITERS = {
    "imagenet1k": (imagenet, "imagenet1k"),
    "coco": (coco, "coco"),
    "coco-pose": (keypoints, "coco"),
    "ade20k": (ade20k, "ade20k"),
    "voc": (voc, "voc"),
    "visdrone": (visdrone, "visdrone"),
}
"""Of each suite what writes a tiny set, and the name of its folder."""


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    for write, name in WRITERS.values():
        write(folder / name)
    return folder


def boards_of(suite):
    """The cells of a suite by task and recipe."""
    boards = {}
    for cell in plan(suite, Choice(seeds=[0])):
        boards.setdefault((cell.task, cell.recipe, cell.board_name), []).append(cell)
    return list(boards.values())


def test_every_full_size_suite_has_a_set_here():
    assert sorted(WRITERS) == SUITES


@pytest.mark.parametrize("suite", SUITES)
def test_absent_data_leave_cells_out_and_nothing_is_downloaded(suite, tmp_path, monkeypatch):
    monkeypatch.setenv("CONVBOARD_DATA", str(tmp_path))
    assert {cell.absent for cell in plan(suite)} == {tmp_path / WRITERS[suite][1]}


METRICS = {"top1": "top1", "mAP": "box_ap", "mask_mAP": "mask_ap", "mIoU": "miou_ss"}


@pytest.mark.parametrize("suite", SUITES)
def test_published_figures_are_those_of_the_site(suite):
    figures = {(f.network, f.metric, f.value) for f in published.load()}
    for board in schema.load_suite(suite).boards:
        for host in board.hosts:
            official = schema.load_host(host).official
            for metric, value in official.published.items() if official else ():
                percent = round(100 * value, 6)
                assert (schema.load_host(host).host, METRICS[metric], percent) in figures


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_all_is_built_at_full_size_on_meta(suite):
    """Every network with its head; what has another seed alone is the same."""
    for cells in boards_of(suite):
        for cell in cells:
            inner = on_meta(without_start(cell.config["model"]))
            assert all(p.is_meta for p in inner.parameters()), cell.title
            assert sum(p.numel() for p in inner.parameters()) > 3e6, cell.title


def small(config):
    """A recipe as it is, on small images and a narrow head, for two steps on a CPU."""
    config = copy.deepcopy(config)
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    data |= {"batch_size": 2, "num_workers": 0}
    kind = config["model"]["class_path"].removeprefix("tasks.")
    data["image_size"] = [64, 96] if kind == "Detection" else 64
    if "eval_size" in data:
        data |= {"eval_size": 64, "eval_longest": 128}
    if "neck_channels" in model or kind == "Detection":
        model["neck_channels"] = 16
        model["head_options"] = narrow(model.get("head_options") or {})
    if "head_channels" in model or kind == "Segmentation":
        model["head_channels"] = 16
    if model.get("sizes"):
        model["sizes"] = [48, 64]
    config["trainer"] |= {
        "max_epochs": 1,
        "check_val_every_n_epoch": 1,
        "accumulate_grad_batches": 1,
        "accelerator": "cpu",
    }
    return config


def relative(host):
    """A small host of the kind, with its options."""
    if host.startswith("shiftwise"):
        sizes = {"dims": [8, 16, 24, 32], "kernel_sizes": [[51], [49], [47], [13]]}
        return host, {"depths": [1, 1, 1, 1], **sizes}
    kinds = {"convnext": "test_convnext", "resnet": "test_resnet"}
    small = next((name for kind, name in kinds.items() if host.startswith(kind)), None)
    if small is None:  # of a paper
        sizes = {"dims": [8, 16, 24, 32], "kernel_sizes": [[3], [13], [13], [13]]}
        return "unireplknet_a", {"depths": [1, 1, 1, 1], **sizes}
    return small, {}


def narrow(options):
    widths = {256: 16, 1024: 32}
    if isinstance(options, dict):
        return {
            k: widths.get(v, v) if str(k).endswith("channels") else narrow(v)
            for k, v in options.items()
        }
    return [narrow(v) for v in options] if isinstance(options, list) else options


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_each_recipe_takes_two_steps_on_tiny_data(suite, sets, tmp_path, monkeypatch):
    """Of each board its last host in a small relative, with the last of its operators."""
    monkeypatch.setenv("CONVBOARD_DATA", str(sets))
    seen = set()
    for cells in boards_of(suite):
        cell = cells[-1]
        config = small(cell.config)
        backbone = config["model"]["init_args"]["backbone"]["init_args"]
        host, options = relative(backbone["host"])
        backbone |= {"host": host, "host_options": options, "input_size": [64, 96]}
        backbone.pop("pretrained", None)
        shared = [{**config["model"]["init_args"], "backbone": None}, config["trainer"]]
        key = json.dumps([cell.task, host, cell.operator == "as-is", shared], sort_keys=True)
        if key in seen:
            continue
        seen.add(key)
        fitted = fit(config, tmp_path / cell.hash)
        assert fitted.samples_seen == 4, cell.title
        assert 0 <= fitted.metrics[fitted.module.headline] <= 1
        assert all(torch.isfinite(p).all() for p in fitted.module.parameters()), cell.title


def test_gpu_hours_are_by_the_formula(tmp_path, monkeypatch):
    assert hours(10**9, 1000, 36) == pytest.approx(6e9 * 36000 / 3.12e13 / 3600)
    monkeypatch.setenv("CONVBOARD_DATA", str(tmp_path))
    cells = plan("imagenet1k", Choice(only={"host": ["resnet18"]}))
    macs = 1814073344 - 900 * 512  # its published count, with 100 classes in place of 1,000
    assert gpu_hours(cells) == {cells[0].hash: pytest.approx(hours(macs, 1281167, 100))}
    assert gpu_hours(cells, reached=6.24e13)[cells[0].hash] == pytest.approx(
        hours(macs, 1281167, 100) / 2
    )
    assert gpu_hours([cells[0].model_copy(update={"train_images": None})]) == {}


def test_gpu_hours_of_poses_leave_out_the_mirror_images_of_scoring(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVBOARD_DATA", str(tmp_path))
    cell = plan("coco-pose", Choice())[0]
    plain = copy.deepcopy(cell.config)
    assert plain["model"]["init_args"].pop("flip_test")
    (alone,) = gpu_hours([cell.model_copy(update={"config": plain})]).values()
    assert gpu_hours([cell])[cell.hash] == alone


def test_plan_tells_the_hours_and_what_they_rest_on(convboard, tmp_path):
    command = ("plan", "imagenet1k", "--only", "host=resnet18", "--data", tmp_path)
    told = convboard(*command)
    assert "GPU hours each" in told.stdout
    assert "an estimate from counted operations, on an A100 at 10% of its 312 TFLOPS" in told.stdout
    assert "absent" in told.stdout
    given = convboard(*command, "--tflops", "62.4").stdout
    assert "at the 62.4 TFLOPS of --tflops" in given
    each = [re.search(r"([\d,]+) GPU hours in all", text) for text in (told.stdout, given)]
    many, few = (int(found[1].replace(",", "")) for found in each)
    assert few == pytest.approx(many / 2, abs=1)
    wrong = convboard(*command, "--tflops", "0", status=2)
    assert "`--tflops` (=0.0) must be > 0" in wrong.stderr
