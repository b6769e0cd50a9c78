"""A speed run of which no worker starts ends in a line."""

from types import SimpleNamespace

import pytest

from bench.errors import Failure
from bench.speed.campaign import Campaign
from bench.speed.crew import Death
from bench.speed.job import Job


def test_workers_that_cannot_start_are_a_failure(tmp_path):
    dead = Death("error", "no memory", None, None)
    crew = SimpleNamespace(
        is_loaded=lambda name: True, go=lambda *_: dead, unload=lambda: None, load=lambda *_: None
    )
    job = Job(SimpleNamespace(batches=(1,)), [], b"", 0)
    with pytest.raises(Failure, match="speed workers cannot start: no memory"):
        Campaign(tmp_path, 1, crew).run({"0": job}, lambda *_: None)
