"""Suites of real images: found by --data, left out where absent; boards say whether they learnt."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from bench.cli import suites as verbs
from bench.config import files, schema
from bench.config.plan import Choice, plan
from bench.errors import DataError, UserError
from bench.local import located
from bench.run import suite
from bench.run.states import states
from bench.store import CELL, DONE, Kept, Store
from tasks.data.locations import existing_folder

REAL = [
    name
    for name in files.known("suites")
    if any(b.optional and b.train_images is None for b in schema.load_suite(name).boards)
]


def image(path, size=(48, 40), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def class_folders(root):
    for split, label, k in [(s, c, k) for s in ("train", "test") for c in "ab" for k in range(20)]:
        image(root / split / label / f"{k}.jpg", seed=2 * k + (split == "test"))


def coco(root):
    for split in ("train", "val", "test"):
        for k in range(8):
            image(root / split / f"{k}.jpg", seed=k)
        text = {
            "images": [
                {"id": k, "file_name": f"{k}.jpg", "width": 48, "height": 40} for k in range(8)
            ],
            "categories": [{"id": 3, "name": "cell"}, {"id": 7, "name": "piece"}],
            "annotations": [
                {
                    "id": k,
                    "image_id": k,
                    "category_id": 3 if k % 2 else 7,
                    "bbox": [4, 4, 20, 18],
                    "area": 360,
                    "iscrowd": 0,
                }
                for k in range(8)
            ],
        }
        file = root / "annotations" / f"instances_{split}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(text))


def ade20k(root):
    for split in ("training", "validation"):
        for k in range(8):
            image(root / "images" / split / f"{k}.jpg", seed=k)
            labels = np.random.default_rng(k).integers(0, 3, (40, 48), dtype=np.uint8)
            (root / "annotations" / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels).save(root / "annotations" / split / f"{k}.png")
    (root / "objectInfo.txt").write_text(
        "Idx\tRatio\tTrain\tVal\tName\n1\t0\t0\t0\tland\n2\t0\t0\t0\tsea\n"
    )


WRITERS = {"clothing": class_folders, "chess": coco, "bccd": coco, "dubai": ade20k}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Tiny sets, each in the layout that its suite reads."""
    folder = tmp_path_factory.mktemp("sets")
    for name, write in WRITERS.items():
        write(folder / name)
    return folder


def test_every_real_suite_has_a_set_here():
    assert sorted(WRITERS) == REAL


@pytest.mark.parametrize("name", REAL)
def test_absent_data_leave_cells_out(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CONVBOARD_DATA", str(tmp_path))
    cell = plan(name)[0]
    assert cell.absent == tmp_path / name
    store = Store(tmp_path / "runs")
    assert states([cell], store) == {cell.hash: "absent"}
    (tmp_path / name).mkdir()
    assert cell.absent is None
    assert states([cell], store) == {cell.hash: "waiting"}
    (tmp_path / name).rmdir()
    run_id = store.begin(name, cell.title, {CELL: cell.hash}, {})
    store.done(run_id, "accuracy-record.json")
    assert states([cell], store) == {cell.hash: "done"}  # also where its data are gone


@pytest.mark.parametrize("name", REAL)
def test_the_layouts_are_read(name, sets, monkeypatch):
    monkeypatch.setenv("CONVBOARD_DATA", str(sets))
    cells = plan(name)
    assert {cell.seed for cell in cells} == {0, 1, 2}
    suite.preflight(cells[:1])


def test_what_is_mended_is_said_once_and_stands_in_the_records_data(tmp_path, monkeypatch, caplog):
    class_folders(tmp_path / "clothing")
    image(tmp_path / "clothing/train/a/.ipynb_checkpoints/0.jpg")
    monkeypatch.setenv("CONVBOARD_DATA", str(tmp_path))
    first = plan("clothing")[0]
    config = json.loads(json.dumps(first.config))
    config["data"]["init_args"]["image_size"] = 32
    other = first.model_copy(update={"config": config})
    data = suite.preflight([first, other])
    told = {"image of a hidden folder or name left out": 1}
    assert [part.skipped for part in data.values()] == [told, told]
    (message,) = [r.getMessage() for r in caplog.records if r.name == suite.__name__]
    assert message == "clothing, left out or mended: image of a hidden folder or name left out: 1"


def test_configurations_name_no_folder_of_a_machine(sets, monkeypatch):
    before = [cell.hash for cell in plan("chess")]
    monkeypatch.setenv("CONVBOARD_DATA", str(sets))
    cells = plan("chess")
    assert [cell.hash for cell in cells] == before
    assert str(sets) not in json.dumps([cell.config for cell in cells])


def test_where_a_set_lies(tmp_path, monkeypatch):
    monkeypatch.delenv("CONVBOARD_DATA", raising=False)
    assert located("coco").parts == ("coco",)
    monkeypatch.setenv("CONVBOARD_DATA", str(tmp_path))
    assert located("coco") == tmp_path / "coco"
    assert located(tmp_path / "other") == tmp_path / "other"
    with pytest.raises(DataError, match=r"`root` \(='coco'\) must be a folder below .*--data"):
        existing_folder("coco")
    with pytest.raises(DataError, match=r"must be a folder; --data"):
        existing_folder(tmp_path / "other")


def test_an_absent_suite_is_told_and_fails(tmp_path, convboard):
    absent = ["bench", "dubai", "--data", tmp_path, "--runs", tmp_path / "runs"]
    done = convboard(*absent, status=1, at_once=True)
    assert f"dubai is left out: its data are not in {tmp_path / 'dubai'}" in done.stdout
    assert "none of its data are there" in done.stderr
    folder = convboard("bench", tmp_path, status=2, at_once=True)
    assert "is a folder; `convboard compare HOST --data" in folder.stderr
    plan = convboard("plan", "dubai", "--data", tmp_path, "--runs", tmp_path / "runs")
    assert "absent" in plan.stdout
    assert "0 to run" in plan.stdout
    wrong = convboard("plan", "dubai", "--data", tmp_path / "no", status=2)
    assert "`--data`" in wrong.stderr


@pytest.mark.slow
def test_a_set_runs_from_end_to_end(sets, tmp_path, convboard):
    small = ["--set", "trainer.max_epochs=1", "--set", "data.init_args.image_size=[64, 64]"]
    small += ["--seeds", "0", "--operators", "dwconv", "--runs", tmp_path / "runs"]
    done = convboard("run", "bccd", "--data", sets, *small, folder=tmp_path)
    assert "ok bccd" in done.stdout
    (record,) = (tmp_path / "runs").rglob("accuracy-*.json")
    text = record.read_text()
    assert json.loads(text)["data"]["name"] == "bccd"
    assert json.loads(text)["data"]["split"] == "test"
    config = json.loads(text)["recipe"]["config"]
    assert config["data"]["init_args"]["root"] == "bccd"
    assert os.fspath(sets) not in json.dumps(config)


def test_boards_say_whether_their_baseline_has_learnt(tiny, capsys):
    cells = [
        cell.model_copy(update={"learnt": {"top1": 0.8}})
        for cell in plan(str(tiny), Choice(seeds=[0, 1]))
    ]

    def kept(*values):
        baselines = [cell for cell in cells if cell.baseline]
        return {
            cell.hash: Kept(
                "run", "tiny", cell.hash, "FINISHED", 0, {"final/top1": value}, {DONE: ""}
            )
            for cell, value in zip(baselines, values, strict=False)
        }

    assert suite.learnt(cells, {}) == []
    (found,) = suite.learnt(cells, kept(0.9, 0.8))
    assert found.mean == pytest.approx(0.85)
    verbs._print_learnt(cells, kept(0.9, 0.8))
    assert "not" not in capsys.readouterr().out
    verbs._print_learnt(cells, kept(0.7))
    assert "not learnt" in capsys.readouterr().out


def test_what_must_be_learnt_is_a_metric_of_the_task(tiny):
    cell = plan(str(tiny))[0].model_copy(update={"learnt": {"top": 0.8}})
    with pytest.raises(UserError, match=r"`learnt` \(='top'\).*'top1'"):
        suite.preflight([cell])
