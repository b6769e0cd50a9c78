"""`convboard compare`: recognises images, writes a suite that can be run again, answers."""

import argparse
from pathlib import Path

import pytest
import yaml
from PIL import Image

from bench.cli import compare as verb
from bench.cli import decide, suites
from bench.config.plan import plan
from bench.record import load_all
from bench.run.winner import write_lines
from tasks.data.figures import figures

ROOT = Path(__file__).parents[3]


@pytest.fixture
def photos(tmp_path):
    for split, count in (("train", 6), ("val", 2)):
        for number, name in enumerate(("cat", "dog")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (96, 64), (60 * number, 20 * i, 0)).save(folder / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def asked(monkeypatch):
    """What the parts that take minutes are asked for."""
    given = {}
    monkeypatch.setattr(decide, "decided", lambda options: given.update(decide=options) or 0)
    monkeypatch.setattr(suites, "shown", lambda options: given.update(bench=options) or True)
    monkeypatch.setattr(verb, "_answer", lambda options, suite, planned: given.update(suite=suite))
    monkeypatch.setenv("CONVBOARD_DATA", "nowhere")
    monkeypatch.setattr("bench.run.pace.epoch_seconds", lambda config: 2.0)
    return given


def test_from_a_folder_to_a_suite(photos, tmp_path, asked, convboard):
    path = tmp_path / "mine.yaml"
    line = ["compare", "test_resnet", "--data", photos, "--operators", "acb,unireplk"]
    line += ["--size", "32", "--budget", "5m", "--runs", tmp_path / "runs", "--out", path]
    out = convboard(*line, at_once=True).stdout
    assert "classification: class folders, 12 + 4 images, 2 classes" in out
    assert "unireplk is depthwise: a 1×1 convolution stands behind it" in out
    assert "6 cells, 6 to run" in out
    assert f"convboard bench {path} --data {tmp_path}" in out
    arms = {cell.operator: cell.backbone for cell in plan(str(path))}
    assert arms["unireplk"]["mix"] == "pointwise"
    assert "mix" not in arms["acb"]
    assert arms["acb"]["where"] == {"stages": [3, 4]}
    assert asked["suite"] == yaml.safe_load(path.read_text())["name"]
    assert asked["decide"].suite == asked["bench"].suite == str(path)
    assert asked["decide"].budget == "5m"
    assert asked["decide"].line.startswith("convboard compare test_resnet")


def test_a_budget_holds_so_many_epochs_and_they_stay(photos, tmp_path, asked, convboard):
    path = tmp_path / "mine.yaml"
    line = ["compare", "test_resnet", "--data", photos, "--operators", "acb", "--size", "32"]
    line += ["--runs", tmp_path / "runs", "--out", path]

    def epochs(*more):
        told = convboard(*line, *more, at_once=True).stdout
        return yaml.safe_load(path.read_text())["boards"][0]["set"]["trainer"]["max_epochs"], told

    # three seeds of two networks: 20 s beside 5 s an epoch
    known, told = epochs("--budget", "4m")
    assert known == 12
    assert "An epoch takes about 2 s here, and three seeds of 2 networks about 4 min 0 s" in told
    assert "12 epochs (usual: 100; the budget holds no more) in batches" in told
    known, told = epochs("--budget", "2h")
    assert known == 12
    assert "12 epochs (as mine.yaml has; --epochs changes it)" in told
    assert epochs("--budget", "4m", "--epochs", "7")[0] == 7
    assert epochs("--max-skipped", "0.2")[0] == 100
    board = yaml.safe_load(path.read_text())["boards"][0]
    assert board["set"]["data"]["init_args"]["max_skipped"] == 0.2
    path.unlink()
    known, told = epochs("--budget", "1m")
    assert known == 5
    assert "about 2 min 15 s, more than the budget of 1m, before" in told


def test_key_points_are_compared_where_they_are_asked_for(tmp_path, asked, convboard):
    root = figures(size=48, train=8, val=4, root=tmp_path)
    path = tmp_path / "poses.yaml"
    line = ["compare", "test_convnext", "--data", root, "--operators", "parc", "--task", "pose"]
    out = convboard(*line, "--runs", tmp_path / "runs", "--out", path, at_once=True).stdout
    assert "pose: COCO files, 8 + 4 images, 7 key points" in out
    (config, *_) = [cell.config for cell in plan(str(path))]
    assert config["model"]["class_path"] == "tasks.Pose"
    assert config["data"]["class_path"] == "tasks.PoseData"
    assert asked["decide"].suite == str(path)
    boxes = [word for word in line if word not in ("--task", "pose")]
    out = convboard(*boxes, "--runs", tmp_path / "runs", "--out", path, at_once=True).stdout
    assert "1 class (and key points, for `--task pose`)" in out


def test_mistakes_are_told_before_anything_runs(photos, tmp_path, asked, convboard):
    def refused(*line):
        return convboard("compare", *line, status=2, at_once=True).stderr

    assert "did you mean 'resnet18'" in refused("resnet19", "--data", photos)
    assert "did you mean 'acb'" in refused(
        "test_resnet", "--data", photos, "--operators", "acbb"
    )  # fmt: skip
    assert "sees squares" in refused("test_resnet", "--data", photos, "--size", "32x64")
    assert "`--epochs` (=0)" in refused("test_resnet", "--data", photos, "--epochs", "0")
    for seeds in ("0", "1"):
        most = refused("test_resnet", "--data", photos, "--seeds-max", seeds)
        assert f"`--seeds-max` (={seeds}) must be at least 2" in most
    assert "`--operators` (='as-is') must be left out" in refused(
        "test_resnet", "--data", photos, "--operators", "acb,as-is"
    )
    assert "`--max-skipped` (=1.5) must be in [0, 1)" in refused(
        "test_resnet", "--data", photos, "--max-skipped", "1.5"
    )
    assert "`--budget` (='soon')" in refused("test_resnet", "--data", photos, "--budget", "soon")
    (tmp_path / "empty").mkdir()
    assert "empty" in refused("test_resnet", "--data", tmp_path / "empty")
    assert "must be a file that ends in .yaml" in refused(
        "test_resnet", "--data", photos, "--operators", "acb", "--out", tmp_path / "x.txt"
    )  # fmt: skip
    assert not asked


def test_the_answer_is_the_card_and_the_winner_is_the_leading_arm(monkeypatch, capsys):
    written = []
    monkeypatch.setattr(verb, "_write_winner", lambda options, board, row: written.append(row))
    options = argparse.Namespace(records=ROOT / "leaderboard" / "results", runs=None)
    cells = {r.provenance.cell for r in load_all(options.records)}
    verb._answer(options, "quick", cells)
    out = capsys.readouterr().out
    assert out.count(" on scenes: ") == 3
    for row in written:
        assert row.label in out
        assert row.scores
    written.clear()
    verb._answer(options, "another suite", cells)
    verb._answer(options, "quick", {"0" * 12})  # that of an earlier comparison of the name
    assert not written


def test_the_lines_that_load_a_winner_are_python_and_few(tmp_path):
    path = write_lines(tmp_path, "acb-1234", "resnet18")
    text = path.read_text()
    compile(text, path.name, "exec")
    assert len(text.splitlines()) <= 14
    assert 'load(Path(__file__).with_name("acb-1234-fused.safetensors"))' in text
    own = write_lines(tmp_path, "own-1234", 'nets/my"net.py:Net').read_text()
    compile(own, "own.py", "exec")
    assert """trust.name(['nets/my"net.py:Net'])""" in own
