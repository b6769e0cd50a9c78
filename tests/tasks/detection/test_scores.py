"""Average precision: equal to pycocotools on the same predictions."""

import contextlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tasks.detection.coco import read_coco
from tasks.detection.scores import NAMES, Scores, match, overlaps

FIXTURE = Path(__file__).parents[4] / "shared" / "data" / "coco_cc"
SIDE = 160
CLASSES = 4


def blob(rng, box):
    """An ellipse in a box, as a mask."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    rx, ry = (box[2] - box[0]) / 2, (box[3] - box[1]) / 2
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= rng.uniform(0.8, 1.2)


def random_boxes(rng, count):
    low = rng.uniform(0, SIDE - 30, (count, 2))
    size = np.exp(rng.uniform(np.log(6), np.log(130), (count, 2)))
    return np.concatenate([low, np.minimum(low + size, SIDE)], axis=1).round(1)


def world(seed, images=12, masks=False):
    """Images with objects, crowds, and detections near and far from them, many of equal score."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for index in range(images):
        # One image has neither objects nor detections, one only detections, one only objects.
        count = 0 if index in (0, 1) else rng.integers(1, 7)
        boxes = random_boxes(rng, count)
        labels = rng.integers(0, CLASSES, count)
        crowd = rng.random(count) < 0.25
        area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) * rng.uniform(0.5, 1, count)
        near = boxes + rng.normal(0, 1.5, boxes.shape)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 2)
        far = random_boxes(rng, 0 if index in (0, 2) else rng.integers(0, 5))
        twice = near[: len(near) // 2] + 0.5
        detections = near[:0] if index in (0, 2) else np.concatenate([near, far, twice])
        kinds = np.concatenate([labels, rng.integers(0, CLASSES, len(far)), labels[: len(twice)]])
        kinds = kinds[: len(detections)]
        scores = rng.integers(1, 6, len(detections)) / 5
        truth.append({
            "boxes": torch.tensor(boxes).reshape(-1, 4),
            "labels": torch.tensor(labels),
            "iscrowd": torch.tensor(crowd).long(),
            "area": torch.tensor(area),
        })  # fmt: skip
        found.append({
            "boxes": torch.tensor(detections).reshape(-1, 4),
            "scores": torch.tensor(scores),
            "labels": torch.tensor(kinds),
        })  # fmt: skip
        if masks:
            for part in (truth[-1], found[-1]):
                shapes = [blob(rng, b) for b in part["boxes"].numpy()]
                part["masks"] = torch.tensor(np.array(shapes).reshape(-1, SIDE, SIDE))
    return found, truth


def pycoco(found, truth, kind, classes=CLASSES):
    """Run pycocotools; returns its evaluation."""

    def rle(mask):
        return coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))

    annotations, results = [], []
    for image, (t, f) in enumerate(zip(truth, found, strict=True), start=1):
        for i in range(len(t["boxes"])):
            x1, y1, x2, y2 = t["boxes"][i].tolist()
            row = {"id": len(annotations) + 1, "image_id": image, "area": float(t["area"][i])}
            row |= {"category_id": int(t["labels"][i]), "iscrowd": int(t["iscrowd"][i])}
            row |= {"bbox": [x1, y1, x2 - x1, y2 - y1]}
            annotations.append(row | ({"segmentation": rle(t["masks"][i])} if "masks" in t else {}))
        for i in range(len(f["boxes"])):
            x1, y1, x2, y2 = f["boxes"][i].tolist()
            row = {"image_id": image, "category_id": int(f["labels"][i])}
            row |= {"score": float(f["scores"][i])}
            shape = (
                {"segmentation": rle(f["masks"][i])}
                if kind == "segm"
                else {"bbox": [x1, y1, x2 - x1, y2 - y1]}
            )
            results.append(row | shape)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i, "height": SIDE, "width": SIDE} for i in range(1, len(truth) + 1)],
            "annotations": annotations,
            "categories": [{"id": i, "name": str(i)} for i in range(classes)],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def by_name(evaluation):
    """The first six numbers of the summary; -1 stands for sizes without objects."""
    pairs = zip(NAMES, evaluation.stats[:6], strict=True)
    return {name: value for name, value in pairs if value >= 0}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("batch", [1, 5])
def test_boxes_score_as_with_pycocotools(seed, batch):
    found, truth = world(seed, images=30)
    scores = Scores()
    for start in range(0, len(found), batch):
        scores.update(found[start : start + batch], truth[start : start + batch])
    reference = pycoco(found, truth, "bbox")
    assert 0.2 < reference.stats[0] < 0.9
    assert scores.summary() == pytest.approx(by_name(reference), abs=1e-6)
    precision = reference.eval["precision"][:, :, :, 0, 2]
    wanted = {k: precision[:, :, k].mean() for k in range(CLASSES)}
    assert scores.per_class() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("seed", range(2))
def test_masks_score_as_with_pycocotools(seed):
    found, truth = world(seed, masks=True)
    scores = Scores(masks=True)
    scores.update(found, truth)
    wanted = by_name(pycoco(found, truth, "bbox"))
    of_masks = by_name(pycoco(found, truth, "segm"))
    wanted |= {f"mask_{name}": value for name, value in of_masks.items()}
    assert scores.summary() == pytest.approx(wanted, abs=1e-6)


def test_scores_start_anew_after_reset():
    found, truth = world(0)
    scores = Scores()
    scores.update(found, truth)
    first = scores.summary()
    scores.update(found, truth)
    scores.reset()
    scores.update(found, truth)
    assert scores.summary() == first


def test_sizes_without_objects_are_left_out():
    scores = Scores()
    truth = {"boxes": torch.tensor([[0.0, 0, 9, 9]]), "labels": torch.tensor([1])}
    found = truth | {"scores": torch.tensor([0.3])}
    scores.update([found], [truth])
    assert scores.summary() == {"mAP": 1, "mAP50": 1, "mAP75": 1, "mAP_small": 1}
    assert scores.per_class() == {1: 1}


@pytest.mark.parametrize("seed", range(4))
def test_matches_are_those_of_pycocotools(seed):
    found, truth = world(seed, images=30)
    reference = pycoco(found, truth, "bbox")
    verdicts = [match(f, t) for f, t in zip(found, truth, strict=True)]
    counts = {-1: 0, 0: 0, 1: 0}
    for cell in reference.evalImgs:
        if cell is None or cell["aRng"] != [0, 1e10]:
            continue
        own = found[cell["image_id"] - 1]
        mine = np.flatnonzero(own["labels"].numpy() == cell["category_id"])
        mine = mine[np.argsort(-own["scores"].numpy()[mine], kind="stable")]
        matched, ignored = cell["dtMatches"][0] > 0, cell["dtIgnore"][0].astype(bool)
        wanted = np.where(ignored, -1, matched.astype(int))
        assert verdicts[cell["image_id"] - 1][mine].tolist() == wanted.tolist()
        for verdict in wanted:
            counts[verdict] += 1
    assert min(counts.values()) > 3


def test_overlaps_with_crowds_are_shares_of_the_detection():
    boxes, others = np.array([[0.0, 0, 4, 4]]), np.array([[2.0, 0, 10, 4], [2.0, 0, 10, 4]])
    found = overlaps(boxes, others, np.array([False, True]))
    np.testing.assert_allclose(found, [[8 / 40, 8 / 16]])


@pytest.mark.skipif(not FIXTURE.is_dir(), reason="needs the COCO fixture of ../shared/data")
def test_real_coco_annotations():
    """Shaken annotations of the genuine files, with their crowds and odd areas."""
    rng = np.random.default_rng(0)
    file = FIXTURE / "annotations" / "instances_val2017.json"
    images = read_coco(file, FIXTURE / "val2017").images
    found, truth = [], []
    for image in images:
        shaken = image.boxes + rng.normal(0, 4, image.boxes.shape)
        scores = rng.integers(1, 6, len(shaken)) / 5
        labels = torch.from_numpy(image.labels)
        found.append({
            "boxes": torch.from_numpy(shaken), "scores": torch.from_numpy(scores), "labels": labels,
        })  # fmt: skip
        truth.append({
            "boxes": torch.from_numpy(image.boxes), "labels": labels,
            "iscrowd": torch.from_numpy(image.crowd).long(), "area": torch.from_numpy(image.area),
        })  # fmt: skip
    scores = Scores()
    scores.update(found, truth)
    reference = pycoco(found, truth, "bbox", classes=80)
    assert scores.summary() == pytest.approx(by_name(reference), abs=1e-6)


TWO_PROCESSES = """
import json
import sys
from pathlib import Path

import torch
from torch import distributed

from tasks.detection.scores import Scores

if __name__ == "__main__":
    rank, images = int(sys.argv[1]), int(sys.argv[2])
    distributed.init_process_group(
        "gloo", init_method=f"file://{Path('meet').absolute()}", rank=rank, world_size=2
    )
    samples = torch.load("samples.pt", weights_only=True)
    scores = Scores(masks=True)
    for index in range(rank, images, 2):
        scores.update([samples[index][0]], [samples[index][1]])
    results = [scores.summary(), {str(k): v for k, v in scores.per_class().items()}]
    scores.reset()
    scores.update([samples[0][0]], [samples[0][1]])  # the same image twice, once in each
    results.append(scores.summary())
    Path(f"{rank}.json").write_text(json.dumps(results))
    distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("images", [7, 1])
def test_two_processes_score_as_one(images, tmp_path, forked):
    generator = torch.Generator().manual_seed(0)
    samples = []
    for count in range(images):
        low = torch.randint(0, 20, (count + 2, 2), generator=generator).float()
        boxes = torch.cat([low, low + torch.randint(8, 20, low.shape, generator=generator)], 1)
        masks = torch.zeros(len(boxes), 40, 40, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = True
        labels = torch.randint(0, 3, (len(boxes),), generator=generator)
        moved = boxes + torch.randint(0, 3, boxes.shape, generator=generator)
        chances = torch.rand(len(boxes), generator=generator)
        detected = {"boxes": moved, "labels": labels, "scores": chances, "masks": masks.flip(2)}
        truth = {"boxes": boxes, "labels": labels, "masks": masks}
        truth |= {"iscrowd": torch.zeros_like(labels), "area": masks.sum((1, 2)).float()}
        samples.append((detected, truth))
    torch.save(samples, tmp_path / "samples.pt")
    (tmp_path / "two.py").write_text(TWO_PROCESSES)
    running = [
        forked.start([str(rank), str(images)], str(tmp_path), dict(os.environ), [], "two")
        for rank in (0, 1)
    ]
    assert [process.wait(200) for process in running] == [0, 0]

    one, twice = Scores(masks=True), Scores(masks=True)
    for detected, truth in samples:
        one.update([detected], [truth])
    twice.update([samples[0][0]] * 2, [samples[0][1]] * 2)
    per_class = {str(label): ap for label, ap in one.per_class().items()}
    assert 0 < one.summary()["mAP"] < 1
    for rank in (0, 1):
        results = json.loads((tmp_path / f"{rank}.json").read_text())
        assert results == [one.summary(), per_class, twice.summary()]
