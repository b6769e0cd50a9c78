"""A set is looked at: it is told in words, on a page whose pictures are drawn and words escaped."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from bench.analysis.look import look, write_page
from bench.cli.main import main
from bench.errors import DataError
from tasks.data.figures import figures
from tasks.layouts import recognise


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A set of boxes in which a class has a name that is markup, and a box leaves the image."""
    monkeypatch.setenv("CONVBOARD_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "photos"
    for split, count in (("train", 5), ("valid", 2)):
        (root / split).mkdir(parents=True)
        images, annotations = [], []
        for i in range(count):
            Image.new("RGB", (64, 48), (90, 60, 10 * i)).save(root / split / f"{i}.jpg")
            images.append({"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48})
            box = {"bbox": [40, 10, 30, 20], "area": 600, "iscrowd": 0}
            annotations.append({"id": i, "image_id": i, "category_id": 1} | box)
        categories = [{"id": 1, "name": "<b>cup</b>"}]
        lists = {"images": images, "annotations": annotations, "categories": categories}
        (root / split / "_annotations.coco.json").write_text(json.dumps(lists))
    return root


def test_a_set_is_told_and_shown(folder, tmp_path, capsys):
    main(["look", str(folder), "--out", str(tmp_path / "out"), "--samples", "3"])
    words = capsys.readouterr().out
    for part in (
        "detection: COCO files as Roboflow exports them, 5 + 2 images, 1 class.\n",
        "5 images to train on, 2 to score (val); 64×48 pixels, all of 5 looked at.",
        "<b>cup</b>",
        "box cut at the border: 7",
        "class_path: tasks.DetectionData",
        "photos.html shows samples.",
    ):
        assert part in words
    page = (tmp_path / "out/photos.html").read_text()
    assert "&lt;b&gt;cup&lt;/b&gt;" in page
    assert "<b>" not in page
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", page)
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    assert len(pictures) == 3
    with Image.open(io.BytesIO(base64.b64decode(pictures[0]))) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    ground = np.array([90, 60, 0])
    drawn = (np.abs(pixels - ground).sum(axis=2) > 60).nonzero()
    # a box from (40, 10) on, in pixels of a file of 48 lines
    scale = pixels.shape[0] / 48
    assert drawn[1].min() == pytest.approx(40 * scale, abs=8)


def test_masks_and_classes_are_counted_and_drawn(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVBOARD_CACHE", str(tmp_path / "cache"))
    labels = np.zeros((24, 32), np.uint8)
    labels[:6] = 255
    for i in range(10):
        for part, array in (("images", np.stack([labels] * 3, axis=2)), ("masks", labels)):
            (tmp_path / "set" / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / "set" / part / f"{i}.png")
    findings = look(recognise(tmp_path / "set"), samples=2)
    assert [(c.name, c.train, c.scored) for c in findings.classes] == [
        ("background", 8 * 18 * 32, 2 * 18 * 32),
        ("object", 8 * 6 * 32, 2 * 6 * 32),
    ]
    assert [(p.split, p.words) for p in findings.pictures] == [
        ("train", "background 75 %, object 25 %"),
        ("val", "background 75 %, object 25 %"),
    ]
    assert findings.mended["mask of black and white: white (from 128 on) is class 1"] == 10
    page = write_page(findings, tmp_path / "out").read_text()
    assert "val, drawn" in page
    assert "image drawn into the validation split" in page


def test_regions_to_ignore_are_counted_apart(folder):
    file = folder / "train" / "_annotations.coco.json"
    lists = json.loads(file.read_text())
    lists["annotations"][0]["iscrowd"] = 1
    file.write_text(json.dumps(lists))
    counts = [(c.name, c.train, c.scored) for c in look(recognise(folder), samples=0).classes]
    assert counts == [("<b>cup</b>", 4, 2), ("region to ignore", 1, 0)]


def test_a_place_that_cannot_be_written_is_told_in_a_line(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("CONVBOARD_TRACEBACK", raising=False)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SystemExit) as ended:
        main(["look", str(folder), "--out", str(tmp_path / "file" / "out"), "--samples", "1"])
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert re.fullmatch(r"convboard: .*file/out: Not a directory\.\n", told)


def test_key_points_are_told_where_they_are_not_asked_for(tmp_path, capsys):
    root = figures(size=48, train=4, val=2, root=tmp_path)
    main(["look", str(root), "--out", str(tmp_path / "out")])
    assert (
        "detection: COCO files, 4 + 2 images, 1 class (and key points, for `--task pose`).\n"
        in (capsys.readouterr().out)
    )
    main(["look", str(root), "--task", "pose", "--out", str(tmp_path / "out")])
    words = capsys.readouterr().out
    assert "pose: COCO files, 4 + 2 images, 7 key points.\n" in words
    assert re.search(r"left_hand +\d+ +\d+", words)
    assert "class_path: tasks.PoseData" in words
    page = (tmp_path / "out" / f"{root.name}.html").read_text()
    assert len(re.findall(r"data:image/jpeg;base64,", page)) == 6
    with pytest.raises(SystemExit):
        main(["look", str(root), "--task", "poses"])
    assert "`--task` (='poses') is not known; did you mean 'pose'?" in capsys.readouterr().err


def test_nothing_to_recognise_is_told(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as ended:
        main(["look", str(tmp_path / "empty")])
    assert ended.value.code == 2
    assert "no layout that is known" in capsys.readouterr().err
    with pytest.raises(DataError):
        recognise(tmp_path / "empty")
