"""Where cells run: what is refused before any work, and what is estimated before it."""

import re
import sys
from types import SimpleNamespace

import pytest

from bench.config.plan import plan
from bench.errors import Failure, UserError
from bench.run import node, on_ray
from bench.run.code import all_sha256
from bench.run.engines import Engine, most_needs
from bench.run.estimate import MEMORY, SECONDS, estimates
from bench.run.executor import Needs
from bench.store import CELL, DONE, STUDIES, Kept


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        (Engine("clouds"), "`--executor` .='clouds'. is none; known: processes, ray, slurm."),
        (Engine(workers=0), "`--workers` .=0. must be at least 1"),
        (Engine(cpus=2), "`--cpus` .=2. is for --executor ray or slurm"),
        (Engine(slurm=["partition=gpu"]), "`--slurm` .='partition=gpu'. is for --executor slurm"),
        (Engine("slurm", slurm=["gpu"]), "`--slurm` .='gpu'. must read NAME=VALUE"),
        (Engine("slurm", gpus=0.5), "`--gpus` .=0.5. must be a whole number for slurm"),
        (Engine("ray", cpus=0), "`--cpus` .=0. must be at least 1"),
        (Engine("ray", address="http://head"), "`--address` .='http://head'. must read HOST:PORT"),
        (Engine("slurm", address="head:1"), "`--address` .='head:1'. must be left out for slurm"),
    ],
)
def test_what_is_wrong_is_told_before_any_work(engine, words, tmp_path):
    with pytest.raises(UserError, match=words):
        engine.executor(tmp_path, 1)


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_extra_is_one_line_that_names_it(name, package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"pip install 'convboard\[{name}\]'") as caught:
        Engine(name).executor(tmp_path, 1)
    assert len(str(caught.value).splitlines()) == 1


def test_slurm_needs_its_programs(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no sbatch is on the PATH"):
        Engine("slurm").executor(tmp_path, 1)


def test_an_address_where_nobody_listens(tmp_path):
    with pytest.raises(Failure, match="no Ray cluster answers there"):
        Engine("ray", address="127.0.0.1:1").executor(tmp_path, 1)


def test_a_head_waits_for_those_that_compute(monkeypatch):
    """As a cluster starts on Kubernetes: the head has no cores for cells, and is there first."""
    head, worker = ({"Alive": True, "Resources": cores} for cores in ({}, {"CPU": 4.0}))
    answers = iter([[head], [head], [head, worker]])
    monkeypatch.setattr(on_ray, "_POLL_S", 0)
    executor = object.__new__(on_ray.OnRay)
    executor.ray = SimpleNamespace(nodes=lambda: next(answers))
    assert executor._joined() == [head, worker]
    monkeypatch.setattr(on_ray, "_LOOK_S", -1)
    executor.ray = SimpleNamespace(nodes=lambda: [head])
    assert executor._joined() == [head]


def test_more_devices_than_there_are(tmp_path):
    executor = Engine(workers=1).executor(tmp_path, 1)
    executor.require_ready(tmp_path, Needs(devices=1, cpu=True))
    with pytest.raises(UserError, match=r"`devices` \(=9999\) must be at most \d+, the"):
        executor.require_ready(tmp_path, Needs(devices=9999, cpu=True))


def test_a_flag_says_how_many_devices(tiny, convboard, tmp_path):
    wrong = convboard("plan", tiny, "--runs", tmp_path, "--devices", "0", status=2)
    assert "`--devices` (=0) must be at least 1." in wrong.stderr
    assert most_needs(plan(str(tiny))) == Needs(tasks=frozenset(["tasks.Classification"]))


@pytest.fixture
def clean(monkeypatch):
    """No variable of convboard's; what a test sets is gone after it."""
    for name in ("MLFLOW_TRACKING_URI", "CONVBOARD_DATA", STUDIES):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_what_another_machine_lacks(clean, tmp_path):
    with node.expected(tmp_path / "runs") as wanted:
        assert wanted.fault() is None
        other = node.Expected("another", wanted.mark, None, {})
        assert "other code" in other.fault()
    assert "does not see the runs folder" in wanted.fault()  # its mark is gone
    away = node.Expected(all_sha256(), None, "http://127.0.0.1:1", {})
    assert "does not reach the server" in away.fault()
    without = node.Expected(all_sha256(), None, None, {"CONVBOARD_DATA": str(tmp_path / "no")})
    assert "has no folder no/ of data" in without.fault()


def test_variables_of_a_job_elsewhere(clean, monkeypatch):
    """Stores must be the same on all machines; where the data lie is each machine's own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://here:1")
    monkeypatch.setenv(STUDIES, "postgresql://here/studies")
    monkeypatch.setenv("CONVBOARD_DATA", "/here")
    sent = node.surroundings()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:1")
    monkeypatch.delenv(STUDIES)
    monkeypatch.setenv("CONVBOARD_DATA", "/there")
    node.surround(sent)
    assert node.server() == "http://here:1"
    assert node.surroundings() == {**sent, "CONVBOARD_DATA": "/there"}


def kept(cell, seconds, memory):
    metrics = {SECONDS: seconds, MEMORY: memory}
    return Kept("run", "suite", cell.hash, "FINISHED", 0, metrics, {CELL: cell.hash, DONE: "r"})


def test_cells_are_estimated_by_the_closest_that_are_done(tiny):
    from bench.config.plan import Choice

    cells = plan(str(tiny), Choice(seeds=[0, 1, 2]))
    of = {(cell.operator, cell.seed): cell for cell in cells}
    assert estimates(cells, cells, {}) == {}
    runs = {
        cell.hash: kept(cell, seconds, memory)
        for cell, seconds, memory in [
            (of["acb", 0], 10.0, 3e9),
            (of["acb", 1], 20.0, 2e9),
        ]
    }
    (of_board,) = estimates([of["dwconv", 0]], cells, runs).values()
    assert (of_board.seconds, of_board.memory_bytes) == (15.0, 3e9)
    runs[of["dwconv", 0].hash] = kept(of["dwconv", 0], 90.0, 1e9)
    (of_arm,) = estimates([of["acb", 2]], cells, runs).values()
    assert (of_arm.seconds, of_arm.memory_bytes) == (15.0, 3e9)


@pytest.mark.parametrize(
    ("nodes", "options", "needs", "refused"),
    [
        ([(64, 0), (4, 2)], {}, Needs(devices=2), None),
        ([(64, 0), (4, 2)], {}, Needs(devices=3), "`devices` (=3) must be at most 2, the GPUs"),
        ([(64, 0), (4, 2)], {}, Needs(devices=32, cpu=True), None),
        ([(64, 0), (4, 2)], {"cpus": 8}, Needs(devices=2), "`cpus` (=8) must be at most 2 for"),
        ([(4, 8), (64, 2)], {"cpus": 16}, Needs(devices=2), None),
        ([(4, 1), (8, 1)], {"gpus": 2}, Needs(), "`gpus` (=2) must be at most 1, as on a node"),
        ([(4, 0), (8, 0)], {"cpus": 9}, Needs(), "`cpus` (=9) must be at most 8 for"),
    ],
)
def test_a_job_finds_room_on_any_node_of_a_cluster(
    nodes, options, needs, refused, tmp_path, monkeypatch
):
    alive = [{"Alive": True, "Resources": {"CPU": cpu, "GPU": gpu}} for cpu, gpu in nodes]
    monkeypatch.setattr(on_ray, "connected", lambda _: SimpleNamespace(nodes=lambda: alive))
    monkeypatch.setattr(on_ray.OnRay, "_faults", lambda *_: [])
    cluster = on_ray.OnRay(60, **options)
    if refused is None:
        cluster.require_ready(tmp_path, needs)
    else:
        with pytest.raises(UserError, match=re.escape(refused)):
            cluster.require_ready(tmp_path, needs)
