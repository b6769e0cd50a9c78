"""Processes that run jobs: one that dies, hangs or raises costs its own job only."""

import operator
import os
import stat
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from bench import locks
from bench.errors import UserError
from bench.run import gpus, same_code
from bench.run.executor import Needs
from bench.run.processes import LocalProcesses

A, B, C = (partial(str.upper, letter) for letter in "abc")
DIE = partial(os._exit, 9)
HANG = partial(time.sleep, 600)
CHANGED = partial(
    exec,
    "from bench.run import same_code\n"
    "raise same_code.CodeChanged('own.py was changed while this command ran')",
)
NOTED = partial(eval, "len(__import__('bench.run.same_code').run.same_code._noted)")


def outcomes(jobs, **options):
    engine = LocalProcesses(**{"workers": 2, "timeout_s": 120, "threads": 1, **options})
    return {(event.kind, event.job): event.value for event in engine.run(operator.call, jobs)}


@pytest.mark.slow
def test_a_death_costs_one_job():
    got = outcomes([A, DIE, B, C])
    assert got["done", A] == "A"
    assert got["done", B] == "B"
    assert got["done", C] == "C"
    assert ("died", DIE) in got
    assert ("done", DIE) not in got
    assert {job for kind, job in got if kind == "started"} == {A, DIE, B, C}


@pytest.mark.slow
def test_a_hang_is_ended():
    got = outcomes([HANG, A], workers=1, timeout_s=2)
    assert ("timeout", HANG) in got
    assert got["done", A] == "A"


@pytest.mark.slow
def test_leaving_early_ends_the_processes():
    engine = LocalProcesses(workers=1, timeout_s=600, threads=1)
    events = engine.run(operator.call, [HANG])
    assert next(events).kind == "started"
    since = time.monotonic()
    events.close()
    assert time.monotonic() - since < 60


def test_no_workers_is_an_error():
    with pytest.raises(ValueError, match=r"`workers` \(=0\)"):
        LocalProcesses(workers=0, timeout_s=1)


def test_workers_take_different_gpus(tmp_path, monkeypatch):
    """By locks alone: there need be no GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert gpus.visible() == ["3", "5"]
    with gpus.taken(gpus.visible(), folder=tmp_path) as (first,):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == first == "3"
        with gpus.taken(["3", "5"], folder=tmp_path) as (second,):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == second == "5"
            with gpus.taken(["3", "5"], folder=tmp_path) as (third,):
                assert third == "3"  # more workers than GPUs
                with gpus.taken(["3", "5"], folder=tmp_path) as (fourth,):
                    assert fourth == "5"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,5"
    with gpus.taken(["3", "5"], folder=tmp_path) as (again,):
        assert again == "3"
    with gpus.taken(["7"], folder=tmp_path) as (only,):
        assert only == "7"


def test_a_cell_of_several_gpus_takes_those_that_are_free(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    with gpus.taken(gpus.visible(), 2, tmp_path) as first:
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
        with gpus.taken(["0", "1", "2", "3", "4"], 2, tmp_path) as second:
            assert (first, second) == (["0", "1"], ["2", "3"])
            with gpus.taken(["0", "1", "2", "3", "4"], 3, tmp_path) as third:
                assert third == ["0", "1", "4"]
    with gpus.taken(["0", "1"], 8, tmp_path) as all_of_them:
        assert all_of_them == ["0", "1"]


@pytest.mark.parametrize(("named", "seen"), [("-1", []), ("3,-1,4", ["3"]), ("", [])])
def test_gpus_are_named_as_cuda_reads_them(named, seen, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpus.visible() == seen


@pytest.mark.parametrize(
    ("devices", "running", "room"),
    [(8, [], True), (8, [8], False), (2, [2, 2], True), (2, [2, 2, 4], False), (1, [1] * 9, True)],
)
def test_cells_of_several_gpus_run_at_a_time_as_far_as_there_are(
    devices, running, room, monkeypatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join("01234567"))
    engine = LocalProcesses(workers=10, timeout_s=1)
    assert engine._has_room(Needs(devices), map(Needs, running)) == room
    alone = LocalProcesses(workers=1, timeout_s=1)
    assert not alone._has_room(Needs(1), [Needs(1)])
    assert alone._has_room(Needs(8), [])


def test_a_lock_that_is_held_inside_is_told_and_no_gpu_stays_taken(tmp_path):
    taken = []

    def held_inside():
        with gpus.taken(["3", "5"], folder=tmp_path) as (gpu,):
            taken.append(gpu)
            raise locks.Held("cell.lock")

    for _ in range(2):
        with pytest.raises(locks.Held):
            held_inside()
    assert taken == ["3", "3"]


@pytest.mark.slow
def test_jobs_are_not_forked_off_the_command():
    """A process that has computed is no good parent: its threads and CUDA context would come."""
    got = outcomes([os.getppid])
    assert got["done", os.getppid] != os.getpid()


@pytest.mark.slow
def test_a_job_has_the_environment_as_it_is(monkeypatch):
    """Also one that has changed since the server of the processes was started."""
    seen = partial(os.getenv, gpus.VISIBLE)
    for value in ("1", "2"):
        monkeypatch.setenv(gpus.VISIBLE, value)
        assert outcomes([seen])["done", seen] == value
    monkeypatch.delenv(gpus.VISIBLE)
    assert outcomes([seen])["done", seen] is None


def test_code_that_changes_under_a_server_is_not_run(tmp_path, monkeypatch):
    path = tmp_path / "own.py"
    path.write_text("old")
    module = type(os)("bench.own")
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "bench.own", module)
    monkeypatch.setattr(same_code, "_noted", {})
    same_code.note()
    same_code.require_same_code()
    path.write_text("newer")
    with pytest.raises(UserError, match=r"bench.own\.py was changed while this command ran"):
        same_code.require_same_code()


@pytest.mark.slow
def test_a_server_has_noted_its_code():
    assert outcomes([NOTED])["done", NOTED] > 50


def test_a_folder_of_locks_that_is_anothers_is_left_to_him(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with gpus.taken(gpus.visible()) as (first,):
        assert first == "3"
    shared = tmp_path / "convboard-gpus"
    assert stat.S_IMODE(shared.stat().st_mode) == 0o777
    assert stat.S_IMODE((shared / "3.lock").stat().st_mode) == 0o666
    reachable = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: shared != Path(path) and reachable(path, mode)
    )
    with gpus.taken(gpus.visible()) as (first,):
        assert first == "3"
    assert (tmp_path / f"convboard-gpus-{os.getuid()}" / "3.lock").exists()


FOUND = "sorted({'mmdet', 'this'} & set(__import__('sys').modules))"
AHEAD = f"""
import operator, os, sys
from functools import partial
from pathlib import Path
from bench.run.executor import Needs
from bench.run.processes import LocalProcesses

engine = LocalProcesses(workers=1, timeout_s=120, threads=1)
engine.require_ready(Path(), Needs(tasks=frozenset(sys.argv[1:])))
assert "CONVBOARD_TASKS" not in os.environ
print([e.value for e in engine.run(operator.call, [partial(eval, {FOUND!r})])][-1])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tasks", "found"),
    [
        (["tasks.Detection", "tasks.Classification"], "['mmdet']"),
        (["this", "this.s", "tasks.NoTask"], "[]"),
    ],
)
def test_the_packages_of_our_tasks_are_there_before_a_process_begins(tasks, found):
    line = [sys.executable, "-c", AHEAD, *tasks]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == found


@pytest.mark.slow
def test_changed_code_ends_the_command_and_is_no_jobs_failure(monkeypatch):
    engine = LocalProcesses(workers=1, timeout_s=120, threads=1)
    with pytest.raises(UserError, match="was changed while this command ran"):
        list(engine.run(operator.call, [CHANGED]))
