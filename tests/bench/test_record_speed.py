"""The speed part of a record: what times must share to stand in one column; older records."""

import json
from pathlib import Path

import pytest

from bench.machine import machine
from bench.record import Conditions, Entry, Record, Speed
from bench.speed.protocol import Settings
from bench.speed.result import ArmResult
from leaderboard.join import setup_key

RESULTS = Path(__file__).parents[2] / "leaderboard" / "results"
CONDITIONS = {
    "min_block_ms": 10,
    "warmup_min_ms": 50,
    "warmup_cap_ms": 1000,
    "tf32": False,
    "torch_threads": 2,
    "torch_interop_threads": 2,
    "omp_num_threads": 2,
    "mkl_num_threads": 2,
}


def record(speed, **changes):
    return Record(
        kind="speed",
        status="error",
        error="not run",
        entry=Entry(
            label="a", operator="a", operator_sha256="0", host="h", task="backbone", form="fused"
        ),
        speed=Speed.model_validate({**speed.model_dump(), **changes}),
        machine=machine(),
        software={},
        provenance={"command": "", "reproduce": "", "created": "2026-01-01T00:00:00+00:00"},
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_block_ms", 2),
        ("warmup_min_ms", 10),
        ("warmup_cap_ms", 150),
        ("tf32", True),
        ("torch_threads", 1),
        ("torch_interop_threads", 1),
        ("omp_num_threads", 1),
        ("mkl_num_threads", None),
    ],
)
def test_times_under_unlike_conditions_share_no_column_and_no_identity(name, value):
    speed = ArmResult(
        "a", 1, Settings("a", (8, 8)), "run", conditions=Conditions(**CONDITIONS)
    ).speed()
    same, other = record(speed), record(speed, conditions={**CONDITIONS, name: value})
    assert setup_key(record(speed)) == setup_key(same)
    assert setup_key(other) != setup_key(same)
    assert other.identity != same.identity


def test_outcomes_of_a_run_do_not_split_a_column():
    speed = ArmResult(
        "a", 1, Settings("a", (8, 8)), "run", conditions=Conditions(**CONDITIONS)
    ).speed()
    other = record(speed, host_bound=True, throttled=True, steady=False, block_iterations=[3])
    assert setup_key(other) == setup_key(record(speed))


def test_the_engine_splits_columns_and_identities_and_older_records_say_it_by_compiled():
    def of(engine):
        return record(ArmResult("a", 1, Settings("a", (8, 8), engine=engine), "run").speed())

    records = {engine: of(engine) for engine in ("torch", "compile", "onnxruntime", "openvino")}
    assert len({setup_key(r) for r in records.values()}) == 4
    assert len({r.identity for r in records.values()}) == 4
    for engine, compiled in (("torch", False), ("compile", True)):
        older = records[engine].speed.model_dump()
        del older["engine"]
        assert older["compiled"] is compiled
        assert Speed.model_validate(older) == records[engine].speed


def test_records_from_before_the_conditions_load_and_keep_their_columns(tmp_path):
    paths = sorted(RESULTS.rglob("speed-*.json"))[:20]
    loaded = []
    for path in paths:
        content = json.loads(path.read_text())
        del content["speed"]["conditions"]
        (tmp_path / path.name).write_text(json.dumps(content))
        loaded.append(Record.load(tmp_path / path.name))
    assert {r.speed.conditions for r in loaded} == {None}
    columns = {(r.speed.scope, r.speed.input_size) for r in loaded}
    assert len({setup_key(r) for r in loaded}) <= len(columns)
