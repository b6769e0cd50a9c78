"""Faults are injected: nothing ends a suite, nothing is lost, nothing is done twice."""

import os
import re
import runpy
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
import yaml

from bench.config.plan import Choice, plan
from bench.record import load_all
from bench.run import cell as cell_module
from bench.run import fit, resume
from bench.run.cell import run_cell
from bench.store import CHECKPOINT, Store

ROOT = Path(__file__).parents[3]
servers = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("servers.py"))))
children, wait_for = servers.children, servers.wait_for

KILLS = ("start", "between", "record", "mark")
"""Where a worker dies: at its start, between fit and test, before its record, before its mark."""

FAULTY = """
import multiprocessing, os, signal
from pathlib import Path
from bench.operators.dwconv import DepthwiseConv

faults = os.environ.get("FAULTS", "").split()


class One(DepthwiseConv):
    def fused(self):
        if "fuse" in faults:
            raise UnicodeDecodeError("utf-8", b"x", 0, 1, "injected")
        return super().fused()


class Two(DepthwiseConv):
    def forward(self, x):
        y = super().forward(x)
        return y * float("nan") if "nan" in faults and self.training else y


class Three(DepthwiseConv):
    pass


def die(fault):
    (Path(os.environ["FAULT_FLAGS"]) / fault).touch()
    os.kill(os.getpid(), signal.SIGKILL)


def dying(cls, name, fault):
    def method(self, *arguments, **options):
        die(fault)

    setattr(cls, name, method)


left = [f for f in faults if not (Path(os.environ["FAULT_FLAGS"]) / f).exists()]
if left and multiprocessing.parent_process() is not None:
    import bench.record, bench.run.fit, bench.store
    if left[0] == "start":
        die("start")
    if left[0] == "between":
        dying(bench.run.fit.Fitted, "__init__", "between")
    if left[0] == "record":
        dying(bench.record.Record, "save", "record")
    if left[0] == "mark":
        dying(bench.store.Store, "done", "mark")
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "convboard_faulty.py").write_text(FAULTY)
    metadata = folder / "convboard_faulty-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: convboard-faulty\nVersion: 1\n"
    )
    (metadata / "entry_points.txt").write_text(
        "[convboard.operators]\n"
        "one = convboard_faulty:One\ntwo = convboard_faulty:Two\nthree = convboard_faulty:Three\n"
    )
    return folder


@pytest.fixture(scope="module")
def small(tiny, tmp_path_factory):
    """A suite of an operator beside its baseline, one epoch each."""
    suite = yaml.safe_load(tiny.read_text())
    suite["boards"][0]["set"]["trainer"]["max_epochs"] = 1
    path = tmp_path_factory.mktemp("small") / "small.yaml"
    path.write_text(yaml.safe_dump(suite))
    return path


@pytest.fixture
def faulty(convboard, plugin, small, monkeypatch, tmp_path):
    """Run the command on a suite of faulty operators, with faults that happen or do not."""
    suite = yaml.safe_load(small.read_text())
    suite["boards"][0]["operators"] = ["dwconv", "one", "two", "three"]
    path = tmp_path / "faulty.yaml"
    path.write_text(yaml.safe_dump(suite))
    flags = tmp_path / "flags"
    flags.mkdir()
    monkeypatch.setenv("FAULT_FLAGS", str(flags))

    def run(faults, verb, *arguments, **options):
        monkeypatch.setenv("FAULTS", " ".join(faults))
        return convboard(verb, path, *arguments, path=[plugin], **options)

    run.flags = flags
    return run


def one_good_run(runs, operator):
    """Assert that a cell is done exactly once, with its record and checkpoint; return its run."""
    store = Store(runs)
    of_operator = [run for run, _ in store.runs() if run.data.tags.get("operator") == operator]
    done = [run for run in of_operator if "convboard.done" in run.data.tags]
    assert len(done) == 1, [run.data.tags for run in of_operator]
    names = store.files(done[0].info.run_id, "records")
    assert f"records/{done[0].data.tags['convboard.done']}" in names
    assert store.files(done[0].info.run_id, "checkpoint") == [CHECKPOINT]
    return done[0]


@pytest.mark.slow
def test_workers_that_are_killed_are_rows_and_run_again(faulty, convboard, tmp_path):
    """Each cell's worker dies at another place, one after the other."""
    runs, records, site = tmp_path / "runs", tmp_path / "records", tmp_path / "site"
    labels = ("dwconv", "one", "two", "three")
    first = faulty(KILLS, "run", "--runs", runs, "--workers", "1", status=1)
    assert first.stdout.count("SIGKILL") >= len(labels)
    assert {flag.name for flag in faulty.flags.iterdir()} == set(KILLS)
    assert "4 to run" in faulty((), "plan", "--runs", runs).stdout

    def statuses():
        convboard("export", "--runs", runs, "--records", records)
        exported = load_all(records)
        assert all(record.data is not None for record in exported)
        return {
            label: sorted(r.status for r in exported if r.entry.label == label) for label in labels
        }

    before = statuses()
    # also of the one that was killed after its record was kept and before it was marked
    assert before == {label: ["error"] for label in labels}

    faulty((), "run", "--runs", runs, "--workers", "1")
    for label in labels:
        one_good_run(runs, label)
    assert statuses() == {label: ["error", "ok"] for label in labels}
    convboard("site", "--records", records, "--out", site)
    pages = "".join(page.read_text() for page in (site / "boards").glob("*.html"))
    assert "SIGKILL" not in pages  # the success that came after it counts
    assert "0 to run" in faulty((), "plan", "--runs", runs).stdout


@pytest.mark.slow
def test_whatever_raises_in_a_cell_is_its_row(faulty, tmp_path):
    command = ("run", "--runs", tmp_path / "runs", "--only", "operator=dwconv,one,two")
    done = faulty(("fuse", "nan"), *command, status=1)
    assert "UnicodeDecodeError" in done.stdout
    assert "diverged at step" in done.stdout
    one_good_run(tmp_path / "runs", "dwconv")  # the others went on
    faulty((), *command)
    for label in ("one", "two"):
        one_good_run(tmp_path / "runs", label)


@pytest.mark.slow
def test_a_score_that_is_not_a_number_says_why(small, convboard, plugin, tmp_path):
    """Segmentation whose scored masks are all ignored."""
    import numpy as np
    from PIL import Image

    root = tmp_path / "my secret masks" / "set"
    for split, label in (("train", 1), ("val", 255)):
        for k in range(8):
            for kind in ("images", "masks"):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
            image = np.full((32, 32, 3), 40 * k % 255, dtype=np.uint8)
            Image.fromarray(image).save(root / "images" / split / f"{k}.png")
            mask = np.full((32, 32), label, dtype=np.uint8)
            mask[:16] = 0 if split == "train" else 255
            Image.fromarray(mask).save(root / "masks" / split / f"{k}.png")
    suite = {
        "seeds": [0],
        "boards": [
            {
                "task": "scenes-segmentation",
                "hosts": ["test_convnext"],
                "operators": ["dwconv"],
                "baseline": "dwconv",
                "recipe": "quick-segmentation",
                "set": {
                    "model": {"init_args": {"head_norm": "group"}},
                    "data": {
                        "init_args": {
                            "source": "masks",
                            "root": str(root),
                            "class_names": ["a", "b"],
                            "image_size": 32,
                            "batch_size": 4,
                            "options": None,
                        }
                    },
                    "trainer": {"max_epochs": 1, "check_val_every_n_epoch": 1},
                },
            }
        ],
    }
    path = tmp_path / "my secret suites" / "ignored.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(suite))
    runs = tmp_path / "my secret place" / "runs"
    done = convboard("run", path, "--runs", runs, status=1)
    assert re.search(r"`mIoU` is not a number.*ignored", done.stdout)
    convboard("export", "--runs", runs, "--records", tmp_path / "records")
    (record,) = (tmp_path / "records").iterdir()
    words = record.read_text()  # names no folder, whatever it is called
    assert "secret" not in words
    assert tmp_path.name not in words
    assert '"root": "…/set"' in words
    assert "ignored.yaml" in words


@pytest.mark.slow
def test_workers_end_with_their_parent_and_the_repeat_goes_on(tiny, convboard, tmp_path):
    runs = tmp_path / "runs"
    command = ["run", tiny, "--runs", runs, "--only", "operator=acb", "--workers", "1"]
    command += ["--set", "trainer.max_epochs=40"]
    process = convboard(*command, wait=False)
    wait_for(lambda: next(runs.glob("cells/*/last.ckpt"), None))
    family = children(process)
    assert family
    process.kill()
    process.wait(30)
    assert psutil.wait_procs(family, 30)[1] == []
    convboard(*command)
    run = one_good_run(runs, "acb")
    history = Store(runs).client.get_metric_history(run.info.run_id, "val/top1")
    steps = [metric.step for metric in history]
    assert steps == sorted(steps)  # one process wrote them after the other
    assert len({run.info.run_id for run, _ in Store(runs).runs()}) == 1


@pytest.mark.slow
def test_two_at_once_share_the_work(tiny, convboard, tmp_path):
    """Also the first opening of a folder: both make its database."""
    runs = tmp_path / "runs"
    command = ["run", tiny, "--runs", runs, "--workers", "1"]
    other = convboard(*command, wait=False, FRESH_TABLES="1")
    first = convboard(*command, FRESH_TABLES="1")
    assert other.wait(300) == 0
    assert first.returncode == 0
    for operator in ("dwconv", "acb"):
        one_good_run(runs, operator)
    assert len(list(Store(runs).runs())) == 2


def damage(path, kept):
    """Leave the first of the bytes of a file, so many of a hundred."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * kept // 100])


@pytest.mark.parametrize("kept", [0, 50])
def test_a_checkpoint_that_cannot_be_read_is_removed(kept, tmp_path):
    last, before = (tmp_path / name for name in (resume.LAST, resume.BEFORE))
    for path in (last, before):
        torch.save({"state_dict": {"weight": torch.zeros(500)}}, path)
    assert resume.newest(tmp_path) == (last, [])
    damage(last, kept)
    found, (words,) = resume.newest(tmp_path)
    assert found == before
    assert words.startswith("last.ckpt could not be read")
    assert not last.exists()
    damage(before, kept)
    assert resume.newest(tmp_path)[0] is None
    assert not before.exists()


@pytest.mark.slow
def test_damaged_checkpoints_are_left_aside(tiny, convboard, tmp_path):
    runs = tmp_path / "runs"
    command = ["run", tiny, "--runs", runs, "--only", "operator=acb", "--workers", "1"]
    command += ["--set", "trainer.max_epochs=30"]
    process = convboard(*command, wait=False)
    before = wait_for(lambda: next(runs.glob("cells/*/before-last.ckpt"), None))
    process.send_signal(signal.SIGINT)
    assert process.wait(180) == 130
    damage(before, 50)
    damage(before.with_name("last.ckpt"), 0)
    said = " ".join(convboard(*command).stdout.split())
    for name in ("last.ckpt", "before-last.ckpt"):
        assert re.search(rf"(?<!-){name} could not be read", said), said
    one_good_run(runs, "acb")


@pytest.mark.slow
def test_a_full_disk_fails_the_cell_and_loses_nothing(small, convboard, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk])
    if mounted.returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        runs = disk / "runs"
        done = convboard("run", small, "--runs", runs, status=1, FRESH_TABLES="1")
        assert "Traceback" not in done.stderr
        assert re.search(r"No space left|disk is full", done.stdout + done.stderr)
        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        convboard("run", small, "--runs", runs)
        for operator in ("dwconv", "acb"):
            one_good_run(runs, operator)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.slow
def test_a_locked_store_is_waited_for(small, convboard, tmp_path):
    runs = tmp_path / "runs"
    convboard("plan", small, "--runs", runs)
    process = convboard("run", small, "--runs", runs, "--only", "operator=dwconv", wait=False)
    wait_for(lambda: next(runs.glob("cells/*/config.yaml"), None))
    with sqlite3.connect(runs / "mlflow.db", timeout=30, isolation_level=None) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        time.sleep(8)  # SQLite itself gives up after five
        connection.execute("ROLLBACK")
    assert process.wait(240) == 0
    one_good_run(runs, "dwconv")


@pytest.mark.slow
def test_a_server_that_stops_for_a_while_costs_time_only(tiny, convboard, tmp_path):
    folder, port, runs = tmp_path / "server", servers.free_port(), tmp_path / "runs"
    folder.mkdir()
    process = servers.mlflow_server(folder, port)
    at = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    command = ["run", tiny, "--runs", runs, "--only", "operator=acb"]
    run = convboard(*command, "--set", "trainer.max_epochs=20", wait=False, **at)
    wait_for(lambda: next(runs.glob("cells/*/last.ckpt"), None))
    servers.stop(process)
    time.sleep(5)
    process = servers.mlflow_server(folder, port)
    try:
        assert run.wait(240) == 0
    finally:
        servers.stop(process)
    gone = convboard("plan", tiny, "--runs", runs, status=1, **at)
    assert "the tracking server does not answer" in gone.stderr.splitlines()[-1]


def test_what_is_wrong_with_a_store_is_one_line(tiny, convboard, tmp_path):
    file = tmp_path / "file"
    file.write_text("no folder")
    wrong = convboard("plan", tiny, "--runs", file, status=2)
    assert "must be a folder" in wrong.stderr
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "mlflow.db").write_bytes(b"not a database at all" * 100)
    wrong = convboard("plan", tiny, "--runs", broken, status=1)
    assert len(wrong.stderr.strip().splitlines()) == 1
    assert "mlflow.db" in wrong.stderr
    assert (broken / "mlflow.db").read_bytes().startswith(b"not a database")


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["fit", "search-dilation"])
def test_ctrl_c_in_one_run_ends_with_130_and_goes_on(verb, tiny, convboard, tmp_path, capfd):
    config, runs = tmp_path / "run.yaml", tmp_path / "runs"
    config.write_text(yaml.safe_dump(plan(str(tiny))[0].config))
    command = {
        "fit": ["fit", "--config", config, "--trainer.max_epochs", "30"],
        "search-dilation": [
            *("search-dilation", tiny, "--operators", "dwconv,icconv", "--dmax", "2"),
            *("--set", "trainer.max_epochs=20", "--out", tmp_path / "searched.yaml"),
        ],
    }[verb]
    command += ["--runs", runs]
    process = convboard(*command, wait=False)
    wait_for(lambda: next(runs.glob("cells/*/last.ckpt"), None))
    process.send_signal(signal.SIGINT)
    assert process.wait(180) == 130
    said = capfd.readouterr().err
    assert said.endswith("Stopped. The same command goes on from here.\n")
    assert "Traceback" not in said
    store = Store(runs)
    ((run, _),) = store.runs()
    assert run.info.status == "KILLED"
    assert not (tmp_path / "searched.yaml").exists()

    convboard(*command)
    (ended,) = store.kept().values()
    assert ended.done
    assert ended.run_id == run.info.run_id
    history = store.client.get_metric_history(ended.run_id, "val/top1")
    steps = [metric.step for metric in history]
    assert steps == sorted(steps)  # it went on, and did not begin anew
    assert {run.info.status for run, _ in store.runs()} == {"FINISHED"}
    assert (tmp_path / "searched.yaml").exists() == (verb == "search-dilation")


@pytest.mark.slow
@pytest.mark.parametrize("locale", ["C", "POSIX", "en_US.ISO-8859-1"])
def test_output_works_in_any_locale_and_width(locale):
    words = {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    env = {**os.environ, **words, "LC_ALL": locale, "COLUMNS": "40"}
    command = [sys.executable, "-m", "bench.cli", "explain", "operator"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "label" in done.stdout


def test_what_was_begun_with_other_code_or_data_starts_afresh(tmp_path):
    checkpoint = tmp_path / resume.LAST

    def begun(**what):
        torch.save({"state_dict": {}}, checkpoint)
        return resume.begun_with(tmp_path, what), checkpoint.exists()

    assert begun(code="a", data="b") == ([], True)
    assert begun(code="a", data="b") == ([], True)
    words, there = begun(code="c", data="b")
    assert (words, there) == (["what was begun with other code was left aside"], False)
    assert begun(code="c", data="d")[0] == ["what was begun with other data was left aside"]
    (tmp_path / resume.BEGUN).write_text("{")  # cut off
    assert begun(code="e", data=None) == ([], True)


def cut_off(curve, trainer, module):
    if trainer.current_epoch == 1:
        raise KeyboardInterrupt


@pytest.mark.slow
def test_a_cell_that_is_cut_off_goes_on_with_its_own_code_alone(
    tiny, convboard, tmp_path, monkeypatch
):
    (cell,) = plan(str(tiny), Choice(only={"operator": ["acb"]}))
    store = Store(tmp_path / "runs")
    work = store.folder / "cells" / cell.hash
    monkeypatch.setattr(fit.Curve, "on_train_epoch_end", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run_cell(cell, store.folder, "command")
    assert (work / resume.LAST).exists()
    monkeypatch.undo()
    monkeypatch.setattr(cell_module, "code_of", lambda cell: "other")
    ran = run_cell(cell, store.folder, "command")
    assert ran.record.status == "ok"
    assert "what was begun with other code was left aside" in ran.notes
    assert len(ran.record.accuracy.curve["val/top1"]) == 2  # both epochs are of the new code
