"""What the speed tests share: quick settings, and arms that worker processes can import."""

import pickle
from pathlib import Path

import pytest
import torch

from bench.speed import Settings, crew, worker
from bench.speed.job import Job, Note


@pytest.fixture
def make(monkeypatch):
    """The module of test arms, importable here and in worker processes."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import speed_arms

    return speed_arms


@pytest.fixture
def quick():
    """The least that `measure` can do."""
    return {
        "input_size": (8, 8),
        "batches": (1, 2),
        "threads": 1,
        "processes": 2,
        "rounds": 3,
        "min_block_ms": 0.1,
        "warmup_min_ms": 0,
        "warmup_cap_ms": 5,
        "memory": False,
    }


@pytest.fixture
def run_here(make, quick, tmp_path):
    """Run one worker's job in this process and put torch's settings back."""
    threads = torch.get_num_threads()

    def run(arms, prepare=make.fuse, images=None, **changes):
        known = {name: value for name, value in quick.items() if name != "memory"}
        pickled = [(label, pickle.dumps(factory)) for label, factory in arms.items()]
        job = Job(Settings(**{**known, **changes}), pickled, pickle.dumps(prepare), 0, images)
        result = worker.timed(worker.staged(job, Note(tmp_path / "note")))
        return {(c["label"], c["batch"]): c for c in result["cells"]}

    yield run
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture
def forks(forked, monkeypatch):
    """Workers are forks of a process that has imported what they need: seconds less for each."""
    monkeypatch.setattr(crew, "subprocess", forked.subprocess)
