"""Predictions drawn on images: what is drawn is where it was found; errors say what is wrong."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image

from bench.analysis import draw
from bench.analysis import predict as predicting
from bench.errors import UserError
from bench.store import Store
from bench.store.glance import look
from tasks import ClassificationData, Detection, DetectionData, PoseData, SegmentationData

GREY = torch.full((3, 400, 600), 128, dtype=torch.uint8)


def changed(drawn, before=GREY):
    return (drawn.picture != before).any(0)


def test_boxes_and_masks_are_drawn_in_the_originals_pixels():
    found = {
        "boxes": torch.tensor([[10.0, 20, 30, 40], [0, 0, 5, 5]]),
        "scores": torch.tensor([0.9, 0.2]),
        "labels": torch.tensor([1, 0]),
        "masks": torch.zeros(2, 100, 150, dtype=torch.bool),
    }
    found["masks"][0, 22:38, 22:28] = True
    boxed = {name: value for name, value in found.items() if name != "masks"}
    drawn = draw.detections(GREY, boxed, (100, 150), ["pawn", "king"], 0.3)
    assert drawn.words == "king 0.90"
    rows, columns = changed(drawn).nonzero().T
    assert (rows.min(), rows.max()) == (80, 160)
    assert columns.min() == 40
    assert not changed(drawn)[140:156, 92:108].any()  # inside the box, below its words
    masked = draw.detections(GREY, found, (100, 150), ["pawn", "king"], 0.3)
    assert changed(masked)[140:150, 92:108].all()


def test_nothing_found_is_said_and_the_image_is_left():
    found = {
        "boxes": torch.zeros(0, 4),
        "scores": torch.zeros(0),
        "labels": torch.zeros(0, dtype=torch.int64),
    }
    drawn = draw.detections(GREY, found, (100, 150), ["pawn"], 0.3)
    assert drawn.words == "nothing"
    assert torch.equal(drawn.picture, GREY)


def test_poses_are_drawn_in_the_originals_pixels():
    points = torch.tensor(
        [[[100.0, 100, 2], [200, 100, 2], [150, 300, 0]], [[400, 50, 2], [0, 0, 0], [400, 150, 1]]]
    )
    drawn = draw.poses(GREY, points, [(0, 1), (1, 2), (0, 2)], [0.9, 0.25])
    assert drawn.words == "figure 0.90, figure 0.25"
    marked = changed(drawn)
    assert marked[100, 150]  # the line between the two key points of the first
    assert marked[100, 400]  # and of the second, past the one that is missing
    assert marked[98:103, 98:103].all()
    assert not marked[290:310, 140:160].any()
    assert not marked[:20, :20].any()
    assert not torch.equal(drawn.picture[:, 100, 150], drawn.picture[:, 100, 400])
    small = draw.poses(GREY[:, ::4, ::4], points[:1] / 4, [(0, 1)])
    assert small.words == "figure"
    assert draw.poses(GREY, points[:0], []).words == "nothing"


def test_labels_are_coloured_by_class():
    mask = torch.zeros(400, 600, dtype=torch.int64)
    mask[200:] = 3
    drawn = draw.labels(GREY, mask, ["a", "b", "c", "d"])
    assert drawn.words == "a 50 %, d 50 %"
    top, bottom = drawn.picture[:, 150, 500], drawn.picture[:, 350, 500]
    assert not torch.equal(top, bottom)
    for pixel, label in ((top, 0), (bottom, 3)):
        blend = 0.45 * 128 + 0.55 * torch.tensor(draw.colour(label))
        assert (pixel - blend).abs().max() <= 1


def test_classes_are_written_best_first_on_small_images_too():
    small = torch.zeros(3, 28, 56, dtype=torch.uint8)
    drawn = draw.classes(small, torch.tensor([0.1, 0.7, 0.2]), ["x", "y", "z"])
    assert drawn.words == "y 0.70, z 0.20, x 0.10"
    assert drawn.picture.shape == (3, 320, 640)
    assert drawn.picture.any()


def test_images_are_seen_as_scored_ones_are(cache, monkeypatch):
    monkeypatch.setenv("CONVBOARD_CACHE", str(cache))
    knobs = {"train": 16, "val": 8, "classes": 2}
    for data in (
        ClassificationData(image_size=32, batch_size=4, options=knobs),
        SegmentationData(image_size=48, batch_size=4, options=knobs),
        DetectionData(image_size=48, batch_size=4, options=knobs),
        PoseData(image_size=48, batch_size=4, options={"train": 16, "val": 8}),
    ):
        data.prepare_data()
        data.setup("validate")
        scored, _ = next(iter(data.val_dataloader()))
        # those sets are generated at the size at which they are scored
        seen = data.as_scored((scored[0] * 255).round().to(torch.uint8))
        torch.testing.assert_close(seen, scored[0], atol=1 / 255, rtol=0)
        wide = data.as_scored(torch.randint(256, (3, 100, 150), dtype=torch.uint8))
        assert 0 <= wide.min() <= wide.max() <= 1
        assert wide.shape[0] == 3
        assert min(wide.shape[1:]) <= 48
        if isinstance(data, (DetectionData, PoseData)):
            assert wide.shape[1:] == scored.shape[2:]
            assert not wide[:, 32:].any()
            assert data.scored_size(torch.zeros(3, 100, 150)) == (32, 48)


def test_what_is_drawn_is_what_was_scored(tmp_path):
    """Of an image that does not fill its frame the network sees the padding when scored."""
    Image.new("RGB", (100, 50), (200, 30, 30)).save(tmp_path / "a.png")
    lists = {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 50}],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 30], "area": 1200}
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(lists))
    data = DetectionData(
        "coco", str(tmp_path), annotations=("a.json",) * 2, images=(".",) * 2, image_size=64,
        batch_size=1,
    )  # fmt: skip
    data.prepare_data()
    data.setup("validate")
    (batch,) = data.val_dataloader()
    image, _ = data.example("val", 0)
    seen = data.as_scored(image)
    assert torch.equal(seen, batch[0][0])
    assert data.scored_size(image) == tuple(batch[1][0]["size"].tolist()) == (32, 64)
    torch.manual_seed(0)
    host = timm.create_model("test_convnext", features_only=True)
    task = Detection(host, 1, head="retinanet", neck_channels=16,
                     head_options={"test_cfg": {"score_thr": 0.0}}).eval()  # fmt: skip
    (scored,) = task._detect(batch[0], sizes=[(32, 64)], originals=[(50, 100)])
    (found,) = task.predict(seen[None], sizes=[data.scored_size(image)])
    assert len(found["scores"]) > 1
    assert torch.equal(found["scores"], scored["scores"])
    boxes = found["boxes"] * torch.tensor([100 / 64, 50 / 32]).repeat(2)
    torch.testing.assert_close(boxes, scored["boxes"], atol=1e-3, rtol=0)


def test_pictures_of_one_name_do_not_overwrite_each_other(tmp_path):
    taken = set()
    names = [predicting._free(tmp_path, stem, taken).name for stem in ("a", "b", "a")]
    assert names == ["a-predicted.png", "b-predicted.png", "a-predicted-2.png"]


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match=r"`--score` \(=1.5\) must be in \[0, 1\]"):
        list(predicting.predict(None, None, [], tmp_path, 1.5))
    with pytest.raises(ValueError, match=r"`cell` \(='abc'\): no cell"):
        look(tmp_path, wait_s=1).find("abc")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"broken\.png'\) cannot be read"):
        predicting._read(broken)
    whole = tmp_path / "whole.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(whole)
    half = tmp_path / "half.jpg"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(UserError, match=r"half\.jpg'\) cannot be read"):
        predicting._read(half)
    with pytest.raises(UserError, match="no such file"):
        predicting._read(tmp_path / "none.png")


def test_a_folder_is_drawn_without_hidden_broken_and_drawn_images(tmp_path, monkeypatch):
    said = draw.Drawn(torch.zeros(3, 4, 4, dtype=torch.uint8), "cat 0.90")
    network = SimpleNamespace(module=None, data=None, class_names=())
    monkeypatch.setattr(predicting, "alone", lambda store, run: network)
    monkeypatch.setattr(predicting, "draw", lambda *given: said)
    photos = tmp_path / "photos"
    for name in ("b ü.png", ".hidden.png", ".ipynb_checkpoints/c.png", "drawn/old.png"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(photos / name)
    (photos / "a.png").write_bytes(b"no image")
    out = photos / "drawn"
    told = list(predicting.predict(None, None, [photos], out))
    assert [path.name for path, _ in told] == ["a.png", "b ü-predicted.png"]
    assert told[0][1].startswith("left out: `image` (=")
    assert told[1][1] == "cat 0.90"
    with pytest.raises(UserError, match="cannot be read"):
        list(predicting.predict(None, None, [photos / "b ü.png", photos / "a.png"], out))
    assert len(list(predicting.predict(None, None, [photos], tmp_path))) == 4  # around the photos
    with pytest.raises(UserError, match=r"`--out` .* must not be the folder of the images"):
        list(predicting.predict(None, None, [out], out))


TASKS = {
    "classification": ("Classification", {}, {"options": {"train": 16, "val": 8, "classes": 2}}),
    "detection": (
        "Detection",
        {"head": "fcos", "neck_channels": 16, "head_convs": 1},
        {"options": {"train": 16, "val": 8, "classes": 2}},
    ),
    "segmentation": (
        "Segmentation",
        {"head": "fpn", "head_channels": 16},
        {"options": {"train": 16, "val": 8, "classes": 2}},
    ),
    "pose": (
        "Pose",
        {"head_channels": 16, "peak_threshold": 0.001},
        {"options": {"train": 16, "val": 8, "largest": 0.9, "ratio": 1.0}},
    ),
}


@pytest.mark.slow
def test_every_task_from_a_cell_to_pictures(tmp_path, convboard):
    runs, image = tmp_path / "runs", tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)).save(image)
    for task, (name, head, data) in TASKS.items():
        backbone = {
            "host": "test_convnext",
            "operator": "dwconv",
            "where": {"kernel_size": 7},
            "input_size": [32, 32],
            "features_only": task != "classification",
        }
        config = tmp_path / f"{task}.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "model": {
                        "class_path": f"tasks.{name}",
                        "init_args": {
                            "backbone": {
                                "class_path": "bench.backbones.build",
                                "init_args": backbone,
                            },
                            **head,
                        },
                    },
                    "data": {
                        "class_path": f"tasks.{name}Data",
                        "init_args": {"image_size": 32, "batch_size": 8, **data},
                    },
                    "trainer": {"max_epochs": 1, "accelerator": "cpu"},
                }
            )
        )
        before = set(Store(runs).kept())
        convboard("fit", "--runs", runs, "--config", config)
        (cell,) = set(Store(runs).kept()) - before
        out = tmp_path / task
        told = convboard(
            *("predict", cell[:8], image, "--runs", runs, "--out", out, "--score", "0")
        )
        (picture,) = out.iterdir()
        assert f"{picture.name}: " in told.stdout
        with Image.open(picture) as drawn:
            assert drawn.size == (480, 320)
    wrong = convboard("predict", cell, __file__, "--runs", runs, "--out", out, status=2)
    assert "test_predict.py') cannot be read" in wrong.stderr
