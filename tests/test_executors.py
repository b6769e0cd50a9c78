"""Processes that run jobs: one that dies, hangs or raises costs its own job only."""

import os
import signal
import time

import pytest

from bench.executors import LocalProcesses


def work(job):
    """The jobs of these tests; runs in a process of its own."""
    if job == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "hang":
        time.sleep(600)
    return job * 2


def outcomes(jobs, **options):
    engine = LocalProcesses(**{"workers": 2, "timeout_s": 120, "threads": 1, **options})
    return {(event.kind, event.job): event.value for event in engine.run(work, jobs)}


@pytest.mark.slow
def test_a_death_costs_one_job():
    got = outcomes(["a", "die", "b", "c"])
    assert got["done", "a"] == "aa"
    assert got["done", "b"] == "bb"
    assert got["done", "c"] == "cc"
    assert ("died", "die") in got
    assert ("done", "die") not in got
    assert {job for kind, job in got if kind == "started"} == {"a", "die", "b", "c"}


@pytest.mark.slow
def test_a_hang_is_ended():
    got = outcomes(["hang", "a"], workers=1, timeout_s=2)
    assert ("timeout", "hang") in got
    assert got["done", "a"] == "aa"


@pytest.mark.slow
def test_leaving_early_ends_the_processes():
    engine = LocalProcesses(workers=1, timeout_s=600, threads=1)
    events = engine.run(work, ["hang"])
    assert next(events).kind == "started"
    slots = time.monotonic()
    events.close()
    assert time.monotonic() - slots < 60


def test_no_workers_is_an_error():
    with pytest.raises(ValueError, match=r"`workers` \(=0\)"):
        LocalProcesses(workers=0, timeout_s=1)
