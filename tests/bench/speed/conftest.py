"""What the speed tests share: quick settings, and arms that worker processes can import."""

from pathlib import Path

import pytest


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
