"""A soak: workers and parents are killed at random; each cell is done once, no worker is left.

Few cells by default; CONVBOARD_SOAK=200 says how many, adds Ray, a full disk and a locked store.
"""

import os
import random
import runpy
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml

from bench.record import load_all
from bench.store import CHECKPOINT, Store

servers = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("servers.py"))))
children, wait_for = servers.children, servers.wait_for

ASKED = int(os.environ.get("CONVBOARD_SOAK", 0))
KILLS = ("worker", "parent", "worker", "worker", "parent")
LONG = (*KILLS, "lock", *KILLS, "disk")
"""What happens, over and over."""


class Processes:
    """The executor that needs nothing: a server of the command's forks its workers."""

    arguments = ()
    cells, kills = ASKED or 16, 6

    def __init__(self):
        self.seen = set()

    def workers(self, process):
        """Those of a command."""
        found = servers.workers(process)
        self.seen.update(found)
        return found

    def left(self):
        """Workers that are there although their command has ended."""
        return [worker for worker in self.seen if lives(worker)]

    def close(self):
        """Nothing was started."""


class OnRay:
    """A cluster of two nodes, each with a core."""

    cells, kills = ASKED, ASKED // 4

    def __init__(self):
        self.cluster = servers.RayCluster()
        try:
            self.cluster.start()
            self.cluster.start()
        except BaseException:
            self.close()
            raise
        self.arguments = ("--executor", "ray", "--address", self.cluster.address)

    def workers(self, process):
        """Ray's processes that run jobs, and what those have started."""
        return self.left()

    def left(self):
        """Those that are there; a command that has ended has none."""
        tasks = [task for node in self.cluster.nodes for task in self.cluster.works(node)]
        return [*tasks, *(job for task in tasks for job in children(task))]

    def close(self):
        """End the cluster."""
        self.cluster.close()


def lives(process):
    """Whether a process runs; one that only waits to be forgotten does not."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.fixture(params=[Processes, OnRay])
def engine(request):
    """What runs the cells."""
    if request.param is OnRay and not ASKED:
        pytest.skip("by hand: CONVBOARD_SOAK says how many cells")
    engine = request.param()
    yield engine
    engine.close()


@pytest.fixture
def disk(tmp_path):
    """A folder that can be full, if ours may mount one; one of 2 GB at most."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", folder]
    mounted = ASKED and subprocess.run(mount).returncode == 0
    yield folder
    if mounted:
        subprocess.run(["umount", "-l", folder], check=True)


def lock(runs):
    """Keep the store locked for a while."""
    with closing(sqlite3.connect(runs / "mlflow.db", timeout=30)) as connection:
        connection.isolation_level = None
        with suppress(sqlite3.OperationalError):  # it is being written for longer than we wait
            connection.execute("BEGIN EXCLUSIVE")
            time.sleep(8)
            connection.execute("ROLLBACK")


def fill(folder):
    """Have no room on a disk for a while."""
    if not os.path.ismount(folder):
        return
    with (folder / "filler").open("wb") as filler, suppress(OSError):
        block = bytes(1 << 20)
        while True:
            filler.write(block)
    time.sleep(5)
    (folder / "filler").unlink()


def strike(trouble, process, engine, disk, draw):
    """Let something happen; return whether it did."""
    if trouble == "lock":
        lock(disk / "runs")
    elif trouble == "disk":
        fill(disk)
    else:
        family = engine.workers(process)
        victim = psutil.Process(process.pid) if trouble == "parent" else None
        if trouble == "worker" and family:
            victim = draw.choice(family)
        if victim is None or process.poll() is not None:
            return False
        victim.kill()
    return True


@pytest.mark.slow
@pytest.mark.timeout(max(900, 60 * ASKED))
def test_a_soak_with_random_kills(engine, disk, tiny, convboard, tmp_path):
    """Tiny cells: each is done exactly once, whatever happens."""
    suite = yaml.safe_load(tiny.read_text())
    settings = suite["boards"][0]["set"]
    settings["data"]["init_args"]["options"] = {"train": 16, "val": 6, "classes": 3}
    settings["trainer"]["max_epochs"] = 1
    suite["seeds"] = list(range(engine.cells // 2))
    path, runs = tmp_path / "soak.yaml", disk / "runs"
    path.write_text(yaml.safe_dump(suite))
    draw = random.Random(0)
    most, pause = (ASKED // 4, 10) if ASKED else (engine.kills, 2.5)
    troubles = [k for _ in range(most) for k in (LONG if ASKED else KILLS)][:most]
    began, rounds = time.monotonic(), 0
    for _ in range(30 + 2 * most):
        rounds += 1
        process = convboard(
            *("run", path, "--runs", runs, "--workers", "2", *engine.arguments), wait=False
        )
        while process.poll() is None:
            if not troubles:
                process.wait(900 + 60 * ASKED)
                break
            with suppress(subprocess.TimeoutExpired):
                process.wait(min(30, 0.5 + draw.expovariate(1 / pause)))
            engine.workers(process)
            with suppress(psutil.NoSuchProcess):  # it has ended just now
                if strike(troubles[0], process, engine, disk, draw):
                    print(f"{time.monotonic() - began:5.0f} s, round {rounds}: {troubles.pop(0)}")
        wait_for(lambda: not engine.left(), 120)
        if process.returncode == 0:
            break
    print(f"{rounds} rounds in {time.monotonic() - began:.0f} s, {len(troubles)} troubles left")
    assert process.returncode == 0
    assert most - len(troubles) >= 2
    store = Store(runs)
    done = [run for run, _ in store.runs() if "convboard.done" in run.data.tags]
    assert len({run.data.tags["convboard.cell"] for run in done}) == len(done) == engine.cells
    for run in done:
        assert store.files(run.info.run_id, "checkpoint") == [CHECKPOINT]
    convboard("export", "--runs", runs, "--records", tmp_path / "records")
    records = load_all(tmp_path / "records")
    print(f"{len(records)} records, {sum(r.status != 'ok' for r in records)} of them failures")
    good = [r for r in records if r.status == "ok"]
    assert len({r.provenance.cell for r in good}) == len(good) == engine.cells
    states = {run.info.status for run, _ in store.runs()}
    assert "RUNNING" not in states
    shutil.rmtree(runs)
