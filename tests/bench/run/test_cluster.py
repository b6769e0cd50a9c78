"""Cells on a Ray cluster, with MLflow and Optuna on PostgreSQL: as on one machine, and none lost.

Two raylets of this machine stand for two machines. PostgreSQL is Debian's (`apt-get install
postgresql`, see .ci/run), and runs in a folder of its own.
"""

import os
import runpy
import time
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import yaml

from bench.record import load_all
from bench.store import CHECKPOINT, STUDIES, Store
from bench.store.export import export

servers = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("servers.py"))))
wait_for = servers.wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        servers.postgres_programs() is None and "CONVBOARD_POSTGRES" not in os.environ,
        reason="PostgreSQL is not here",
    ),
]


@pytest.fixture(scope="module")
def ray(cache):
    """A cluster of two nodes with a core each."""
    cluster = servers.RayCluster()
    try:
        cluster.start()
        cluster.start()
        yield cluster
    finally:
        cluster.close()


class Server:
    """An MLflow server on PostgreSQL that can be stopped and started again."""

    def __init__(self, folder, backend):
        self.folder, self.backend, self.port = folder, backend, servers.free_port()
        self.start()

    def start(self):
        self.process = servers.mlflow_server(self.folder, self.port, self.backend)

    def stop(self):
        servers.stop(self.process)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The MLflow server; `studies` is the address of Optuna's database beside its own."""
    with servers.postgres("mlflow", "studies") as (backend, studies):
        server = Server(tmp_path_factory.mktemp("server"), backend)
        server.studies = studies
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def shared(convboard, ray, server):
    """Run the command with what a worker elsewhere needs: the addresses of Ray and the stores."""
    at = {STUDIES: server.studies, "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{server.port}"}

    def run(*arguments, **options):
        return convboard(*arguments, "--executor", "ray", "--address", ray.address, **options, **at)

    return run


def suite(tiny, path, epochs, seeds=(0,)):
    """Write the tiny suite under the name of the file, with fewer images."""
    whole = yaml.safe_load(tiny.read_text())
    settings = whole["boards"][0]["set"]
    settings["data"]["init_args"]["options"] = {"train": 32, "val": 12, "classes": 3}
    settings["trainer"]["max_epochs"] = epochs
    path.write_text(yaml.safe_dump({**whole, "seeds": list(seeds)}))
    return path


def each_once(store, experiment, cells):
    """Assert that so many cells are done, each once, with its checkpoint, and none runs."""
    runs = [run for run, _ in store.runs(experiment)]
    done = [run for run in runs if "convboard.done" in run.data.tags]
    assert len({run.data.tags["convboard.cell"] for run in done}) == len(done) == cells
    for run in done:
        assert store.files(run.info.run_id, "checkpoint") == [CHECKPOINT]
    assert "RUNNING" not in {run.info.status for run in runs}


def store_of(server, runs):
    return Store(runs, f"http://127.0.0.1:{server.port}")


def test_records_are_those_of_a_local_run(tiny, shared, server, convboard, tmp_path):
    path = suite(tiny, tmp_path / "same.yaml", epochs=2)
    shared("run", path, "--runs", tmp_path / "there")
    each_once(store_of(server, tmp_path / "there"), "same", 2)
    convboard("run", path, "--runs", tmp_path / "here", "--workers", "2")
    export(Store(tmp_path / "here"), tmp_path / "here" / "records")
    export(store_of(server, tmp_path / "there"), tmp_path / "there" / "records")
    scores = [
        {r.entry.label: r.accuracy.metrics for r in load_all(tmp_path / where / "records")}
        for where in ("here", "there")
    ]
    assert set(scores[0]) == set(scores[1]) == {"dwconv", "acb"}
    for label, metrics in scores[0].items():
        for name, metric in metrics.items():
            assert scores[1][label][name].value == pytest.approx(metric.value, abs=1e-6), name
    words = "".join(path.read_text() for path in (tmp_path / "there" / "records").glob("*.json"))
    assert "127.0.0.1" not in words


def test_a_study_has_all_its_trials(tiny, shared, server, tmp_path):
    path = suite(tiny, tmp_path / "tuning.yaml", epochs=1)
    command = ["tune", path, "--only", "operator=acb", "--trials", "4"]
    assert "next: convboard run" in shared(*command, "--runs", tmp_path / "runs").stdout
    studies = optuna.storages.RDBStorage(server.studies)
    try:
        (summary,) = optuna.get_all_study_summaries(studies)
        trials = optuna.load_study(study_name=summary.study_name, storage=studies).trials
    finally:
        studies.remove_session()
        studies.engine.dispose()
    assert len(trials) == 4
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}
    store = store_of(server, tmp_path / "runs")
    of_trials = [run for run, _ in store.runs("tuning-tune") if "trial" in run.data.tags]
    assert {run.data.tags["trial"] for run in of_trials} == {str(t.number) for t in trials}
    assert "RUNNING" not in {run.info.status for run in of_trials}


def test_a_node_and_the_server_are_lost_and_no_cell_is(tiny, shared, server, ray, tmp_path):
    """A node is killed with all its processes; then the server is away for half a minute."""
    path = suite(tiny, tmp_path / "lossy.yaml", epochs=40, seeds=(0, 1))
    runs = tmp_path / "runs"
    process = shared("run", path, "--runs", runs, wait=False)
    try:
        wait_for(lambda: next(runs.glob("cells/*/last.ckpt"), None) and ray.works(ray.nodes[-1]))
        servers.stop(ray.nodes.pop())
        server.stop()
        time.sleep(30)
        server.start()
        assert process.wait(1500) == 0
    finally:
        process.kill()
    each_once(store_of(server, runs), "lossy", 4)


def test_what_a_cluster_lacks_is_said_before_any_work(tiny, shared, server, ray, tmp_path):
    wrong = shared("run", tiny, "--runs", tmp_path / "runs", "--devices", "64", status=2)
    assert "`devices` (=64) must be at most 1, the cores of the largest node." in wrong.stderr
    assert not list(tmp_path.glob("runs/cells/*"))


def test_the_same_as_slurm_would(tiny, convboard, tmp_path):
    """By submitit's stand-in for SLURM on one machine: no SLURM is here."""
    path = suite(tiny, tmp_path / "slurm.yaml", epochs=1)
    runs = tmp_path / "runs"
    command = ["run", path, "--runs", runs, "--executor", "slurm", "--address", "local"]
    convboard(*command, "--workers", "2")
    each_once(Store(runs), "slurm", 2)
