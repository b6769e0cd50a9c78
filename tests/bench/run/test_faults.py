"""Faults are injected: nothing ends a suite, nothing is lost, nothing is done twice."""

import os
import random
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
import yaml

from bench.config.plan import plan
from bench.record import load_all
from bench.store import CHECKPOINT, Store

ROOT = Path(__file__).parents[3]
servers = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("servers.py"))))
children, wait_for = servers.children, servers.wait_for

FAULTY = """
import multiprocessing, os, signal
from bench.operators.dwconv import DepthwiseConv


class Plain(DepthwiseConv):
    def fused(self):
        if fault == "fuse":
            raise UnicodeDecodeError("utf-8", b"x", 0, 1, "injected")
        return super().fused()

    def forward(self, x):
        y = super().forward(x)
        return y * float("nan") if fault == "nan" and self.training else y


def once():
    try:
        os.close(os.open(os.environ["FAULT_FLAG"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def killing(cls, name):
    before = getattr(cls, name)

    def method(self, *arguments, **options):
        if once():
            os.kill(os.getpid(), signal.SIGKILL)
        return before(self, *arguments, **options)

    setattr(cls, name, method)


fault = os.environ.get("FAULT")
if fault and multiprocessing.parent_process() is not None:
    import bench.record, bench.run.fit, bench.store
    if fault == "start" and once():
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "between":
        killing(bench.run.fit.Fitted, "__init__")
    if fault == "record":
        killing(bench.record.Record, "save")
    if fault == "mark":
        killing(bench.store.Store, "done")
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
        "[convboard.operators]\nplain = convboard_faulty:Plain\n"
    )
    return folder


@pytest.fixture(scope="module")
def small(tiny, tmp_path_factory):
    """A suite of one cell with the faulty operator beside its baseline, one epoch each."""
    suite = yaml.safe_load(tiny.read_text())
    board = suite["boards"][0]
    board["operators"] = ["dwconv", "plain"]
    board["set"]["trainer"]["max_epochs"] = 1
    path = tmp_path_factory.mktemp("small") / "small.yaml"
    path.write_text(yaml.safe_dump(suite))
    return path


@pytest.fixture
def faulty(convboard, plugin, monkeypatch, tmp_path):
    """Run the command with a fault in its workers; None for none."""
    monkeypatch.setenv("FAULT_FLAG", str(tmp_path / "flag"))

    def run(fault, *arguments, **options):
        monkeypatch.setenv("FAULT", fault or "")
        return convboard(*arguments, path=[plugin], **options)

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
@pytest.mark.parametrize("fault", ["start", "between", "record", "mark"])
def test_a_worker_that_is_killed_is_a_row_and_runs_again(fault, small, faulty, convboard, tmp_path):
    runs, records, site = tmp_path / "runs", tmp_path / "records", tmp_path / "site"
    command = ["run", small, "--runs", runs, "--workers", "1"]
    first = faulty(fault, *command, "--only", "operator=plain", status=1)
    assert "SIGKILL" in first.stdout
    assert (
        "1 to run" in faulty(None, "plan", small, "--runs", runs, "--only", "operator=plain").stdout
    )
    convboard("export", "--runs", runs, "--records", records)
    statuses = sorted(r.status for r in load_all(records) if r.entry.label == "plain")
    # killed after its record was kept and before it was marked, it has that record too
    assert statuses == (["error", "ok"] if fault == "mark" else ["error"])

    faulty(None, *command)
    one_good_run(runs, "plain")
    convboard("export", "--runs", runs, "--records", records)
    exported = [r for r in load_all(records) if r.entry.label == "plain"]
    assert sorted(r.status for r in exported) == sorted([*statuses, "ok"])
    assert all(r.data is not None for r in exported)
    convboard("site", "--records", records, "--out", site)
    pages = "".join(page.read_text() for page in (site / "boards").glob("*.html"))
    assert "SIGKILL" not in pages  # the success that came after it counts
    assert "0 to run" in faulty(None, "plan", small, "--runs", runs).stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "words"),
    [("fuse", "UnicodeDecodeError"), ("nan", "diverged at step")],
)
def test_whatever_raises_in_a_cell_is_its_row(fault, words, small, faulty, tmp_path):
    runs = tmp_path / "runs"
    done = faulty(fault, "run", small, "--runs", runs, status=1)
    assert words in done.stdout
    one_good_run(runs, "dwconv")  # the other went on
    faulty(None, "run", small, "--runs", runs)
    one_good_run(runs, "plain")


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
    command += ["--set", "trainer.max_epochs=60"]
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
    other = convboard(*command, wait=False)
    first = convboard(*command)
    assert other.wait(300) == 0
    assert first.returncode == 0
    for operator in ("dwconv", "acb"):
        one_good_run(runs, operator)
    assert len(list(Store(runs).runs())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["empty", "truncated"])
def test_a_damaged_checkpoint_is_left_aside(damage, tiny, convboard, tmp_path):
    runs = tmp_path / "runs"
    command = ["run", tiny, "--runs", runs, "--only", "operator=acb", "--workers", "1"]
    command += ["--set", "trainer.max_epochs=60"]
    process = convboard(*command, wait=False)
    before = wait_for(lambda: next(runs.glob("cells/*/before-last.ckpt"), None))
    process.send_signal(signal.SIGINT)
    process.wait(60)
    for name in ("last.ckpt", "before-last.ckpt"):
        path = before.with_name(name)
        content = path.read_bytes()
        path.write_bytes(b"" if damage == "empty" else content[: len(content) // 2])
    done = convboard(*command)
    assert "last.ckpt could not be read" in done.stdout
    one_good_run(runs, "acb")


@pytest.mark.slow
def test_a_full_disk_fails_the_cell_and_loses_nothing(small, faulty, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk])
    if mounted.returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        runs = disk / "runs"
        done = faulty(None, "run", small, "--runs", runs, status=1)
        assert "Traceback" not in done.stderr
        assert re.search(r"No space left|disk is full", done.stdout + done.stderr)
        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        faulty(None, "run", small, "--runs", runs)
        for operator in ("dwconv", "plain"):
            one_good_run(runs, operator)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.slow
def test_a_locked_store_is_waited_for(small, faulty, convboard, plugin, tmp_path):
    runs = tmp_path / "runs"
    faulty(None, "plan", small, "--runs", runs)
    process = convboard(
        *("run", small, "--runs", runs, "--only", "operator=dwconv"), wait=False, path=[plugin]
    )
    wait_for(lambda: next(runs.glob("cells/*/config.yaml"), None))
    with sqlite3.connect(runs / "mlflow.db", timeout=30, isolation_level=None) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        time.sleep(15)
        connection.execute("ROLLBACK")
    assert process.wait(240) == 0
    one_good_run(runs, "dwconv")


@pytest.mark.slow
def test_a_server_that_stops_for_a_while_costs_time_only(tiny, tmp_path):
    folder, port, runs = tmp_path / "server", servers.free_port(), tmp_path / "runs"
    folder.mkdir()
    process = servers.mlflow_server(folder, port)
    env = {**os.environ, "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}", "COLUMNS": "200"}
    command = [sys.executable, "-m", "bench.cli", "run", tiny, "--runs", runs]
    command += ["--only", "operator=acb", "--set", "trainer.max_epochs=20"]
    command = [str(part) for part in command]
    run = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: next(runs.glob("cells/*/last.ckpt"), None))
    servers.stop(process)
    time.sleep(5)
    process = servers.mlflow_server(folder, port)
    try:
        out, _ = run.communicate(timeout=240)
        assert run.returncode == 0, out
    finally:
        servers.stop(process)
    gone = subprocess.run(
        [*command[:3], "plan", str(tiny), "--runs", str(runs)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
    assert gone.returncode == 1
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


SOAK = int(os.environ.get("CONVBOARD_SOAK", 24))
"""Cells of a soak; more, and Ray, where the variable says so."""


@pytest.fixture(params=["processes", "ray"])
def engine(request):
    """Arguments that name an executor, and what tells its workers, as long as a command runs."""
    if request.param == "processes":
        yield [], lambda process: children(process)
        return
    if "CONVBOARD_SOAK" not in os.environ:
        pytest.skip("by hand: CONVBOARD_SOAK says how many cells")
    cluster = servers.RayCluster()
    try:
        cluster.start()
        cluster.start()
        arguments = ["--executor", "ray", "--address", cluster.address]
        yield arguments, lambda process: [p for node in cluster.nodes for p in jobs(node)]
    finally:
        cluster.close()


def jobs(node):
    """The processes of a Ray node that run convboard's jobs."""
    return [p for p in children(node) if "_events" in " ".join(_line(p)) or p.name() == "python"]


@pytest.mark.slow
@pytest.mark.timeout(1800 * SOAK // 24)
def test_a_soak_with_random_kills(engine, tiny, convboard, tmp_path):
    """Tiny cells, workers and parents killed at random: each is done exactly once."""
    arguments, workers = engine
    suite = yaml.safe_load(tiny.read_text())
    board = suite["boards"][0]
    board["set"]["data"]["init_args"]["options"] = {"train": 16, "val": 6, "classes": 3}
    board["set"]["trainer"]["max_epochs"] = 1
    suite["seeds"] = list(range(SOAK // 2))
    path = tmp_path / "soak.yaml"
    path.write_text(yaml.safe_dump(suite))
    runs = tmp_path / "runs"
    draw = random.Random(0)
    kills = 0
    most = SOAK // 4
    for _ in range(30 + most):
        command = ("run", path, "--runs", runs, "--workers", "2", *arguments)
        process = convboard(*command, wait=False)
        while process.poll() is None:
            time.sleep(draw.uniform(2, 8))
            if kills >= most:
                process.wait(900 * SOAK // 24)
                break
            family = [p for p in workers(process) if "forkserver" not in " ".join(_line(p))]
            victim = psutil.Process(process.pid) if draw.random() < 0.4 else None
            if victim is None and family:
                victim = draw.choice(family)
            if victim is not None and process.poll() is None:
                victim.kill()
                kills += 1
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert kills >= 3
    store = Store(runs)
    done = [run for run, _ in store.runs() if "convboard.done" in run.data.tags]
    assert len({run.data.tags["convboard.cell"] for run in done}) == len(done) == SOAK
    for run in done:
        assert store.files(run.info.run_id, "checkpoint") == [CHECKPOINT]
    convboard("export", "--runs", runs, "--records", tmp_path / "records")
    good = [r for r in load_all(tmp_path / "records") if r.status == "ok"]
    assert len({r.provenance.cell for r in good}) == len(good) == SOAK


def _line(process):
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


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
    assert process.wait(60) == 130
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
