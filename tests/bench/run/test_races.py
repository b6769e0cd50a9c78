"""The speed runs of a suite: which arms race together, and end to end in all tasks."""

import copy
import dataclasses
import functools
from pathlib import Path

import pytest
import yaml

from bench.config import lightning, schema
from bench.config.plan import Choice, plan
from bench.config.speed import SpeedConfig
from bench.errors import UserError
from bench.record import Record
from bench.run import races, timing
from bench.run.race import Timed, device_of
from bench.speed import Arm
from bench.store import CELL, DONE, Kept, Store
from bench.store.export import export

SMALL = {
    "detection": {
        "task": "scenes-detection",
        "recipe": "quick-detection",
        "set": {
            "data": {"init_args": {"batch_size": 4, "options": {"train": 8, "val": 5}}},
            "trainer": {"max_epochs": 1},
        },
    },
    "segmentation": {
        "task": "scenes-segmentation",
        "recipe": "quick-segmentation",
        "set": {
            "data": {"init_args": {"batch_size": 4, "options": {"train": 8, "val": 5}}},
            "trainer": {"max_epochs": 1, "check_val_every_n_epoch": 1},
        },
    },
}


def write(path, boards, **speed):
    shared = {
        "hosts": ["test_convnext"],
        "operators": ["dwconv", "acb"],
        "baseline": "dwconv",
        "where": {"kernel_size": 7},
    }
    plan = {"processes": 2, "rounds": 3, "min_block_ms": 1, "warmup_cap_ms": 20}
    text = {
        "seeds": [0, 1],
        "boards": [{**shared, **board} for board in boards],
        "speed": {**plan, **speed},
    }
    path.write_text(yaml.safe_dump(text))
    return str(path)


def kept(*cells):
    return {
        cell.hash: Kept(
            f"run-{cell.hash}", "suite", cell.hash, "FINISHED", 0, {}, {DONE: "record.json"}
        )
        for cell in cells
    }


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    path = write(tmp_path_factory.mktemp("pace") / "two.yaml", SMALL.values())
    return plan(path)


def labels(race):
    return [contender.entry.label for contender in race.contenders]


def test_backbones_of_all_tasks_race_once(cells):
    (race,) = races.races(cells, SpeedConfig(scopes={"backbone": [1, 8]}), {})
    assert labels(race) == ["dwconv", "acb"]
    assert race.baseline == "dwconv"


def test_operators_of_all_tasks_race_once_at_each_shape(cells):
    plan = SpeedConfig(scopes={"operator": [1]})
    (race,) = races.races(cells, plan, {}, shapes=["8x16-k5"], flags="--scope operator")
    assert labels(race) == ["dwconv", "acb"]
    assert (race.in_channels, race.input_size) == (8, (16, 16))
    assert race.words == "two.yaml --scope operator"
    entry = race.contenders[0].entry
    assert (entry.host, entry.host_options["kernel_size"], entry.baseline) == ("layer", 5, True)
    assert len(races.races(cells, plan, {})) == 4


def test_end_to_end_each_board_races_with_what_is_trained(cells):
    plan = SpeedConfig(scopes={"end_to_end": [1]})
    assert races.races(cells, plan, {}) == []
    assert len(races.waiting(cells, {})) == 4
    some = [c for c in cells if c.task == "scenes-detection" and c.seed == 1]
    (race,) = races.races(cells, plan, kept(*some))
    assert {contender.recipe.seed for contender in race.contenders} == {1}
    assert "detection" in race.title
    detection, segmentation = races.races(cells, plan, kept(*cells))
    assert {c.recipe.seed for c in detection.contenders + segmentation.contenders} == {0}
    assert races.waiting(cells, kept(*cells)) == []
    # other weights are another race
    assert len({race.hash, detection.hash, segmentation.hash}) == 3


def test_end_to_end_the_weights_of_the_start_are_not_read_again(cells, tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr(lightning, "build", lambda config: built.append(config) or 1 / 0)
    cell = next(cell for cell in cells if cell.baseline)
    config = copy.deepcopy(cell.config)
    config["model"]["init_args"]["backbone"]["init_args"]["weights"] = "gone.safetensors"
    started = cell.model_copy(update={"config": config})
    with pytest.raises(ZeroDivisionError):
        races._trained([started], {}, 1, None, tmp_path)
    assert "weights" not in built[0]["model"]["init_args"]["backbone"]["init_args"]


def test_without_a_trained_baseline_there_is_no_race(cells):
    trained = [c for c in cells if c.operator == "acb"]
    assert races.races(cells, SpeedConfig(scopes={"end_to_end": [1]}), kept(*trained)) == []


def test_the_order_of_scopes_and_other_scopes_do_not_change_a_race(cells):
    (alone,) = races.races(cells, SpeedConfig(scopes={"backbone": [1, 8]}), {})
    first = races.races(cells, SpeedConfig(), kept(*cells))[0]
    assert first.hash == alone.hash


def changed(cell, path, value):
    """The cell with another value at a dotted place of its configuration."""
    config = copy.deepcopy(cell.config)
    *above, last = path.split(".")
    part = config
    for name in above:
        part = part[name]
    assert part.get(last) != value
    part[last] = value
    return cell.model_copy(update={"config": config})


@pytest.mark.parametrize(
    ("path", "value"), [("trainer.max_epochs", 7), ("data.init_args.options.train", 9)]
)
def test_arms_that_differ_in_more_than_the_operator_never_race_end_to_end(cells, path, value):
    """As after `run --only operator=acb --set …`: names and recipe are the same."""
    baseline, other = [c for c in cells if c.task == "scenes-detection" and c.seed == 0]
    plan = SpeedConfig(scopes={"end_to_end": [1]})
    both = [baseline, changed(other, path, value)]
    assert races.races(both, plan, kept(*both)) != []
    assert [labels(race) for race in races.races(both, plan, kept(*both))] == [["dwconv"]]
    assert races.waiting(both, kept(baseline)) == both[1:]
    assert [c.operator for c in races.waiting([baseline, other], kept(baseline))] == ["acb"]


def test_backbones_are_the_same_whatever_their_training(cells):
    baseline, other = [c for c in cells if c.task == "scenes-detection" and c.seed == 0]
    both = [baseline, changed(other, "trainer.max_epochs", 7)]
    (race,) = races.races(both, SpeedConfig(scopes={"backbone": [1]}), {})
    assert len(race.contenders) == 2


def test_two_arms_of_one_label_keep_apart(cells):
    baseline, other = [c for c in cells if c.task == "scenes-detection" and c.seed == 0]
    options = "model.init_args.backbone.init_args.where"
    wider = changed(other, options, {"kernel_size": 7, "stages": [0]})
    (race,) = races.races([baseline, other, wider], SpeedConfig(scopes={"backbone": [1]}), {})
    assert labels(race) == ["dwconv", "acb", "acb (scenes-detection)"]


def test_a_supernet_never_races(cells):
    mine = [c for c in cells if c.task == "scenes-detection" and c.seed == 0]
    supernet = changed(mine[1], "model.init_args.backbone.init_args.operator", "edo")
    both = [mine[0], supernet]
    for race in races.races(both, SpeedConfig(), kept(*both)):
        assert labels(race) == ["dwconv"]
    assert races.waiting(both, {}) == [mine[0]]


def test_a_race_with_a_failed_arm_is_not_done_and_is_measured_anew(cells, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "speed"))
    import speed_arms

    marker = tmp_path / "mended"
    settings = {"processes": 2, "rounds": 3, "min_block_ms": 0.1, "warmup_cap_ms": 5, "threads": 1}
    plan = SpeedConfig(scopes={"backbone": [1]}, **settings)
    (race,) = races.races(cells, plan, {})
    arms = [
        Arm("dwconv", speed_arms.Block),
        Arm("acb", functools.partial(speed_arms.Mended, str(marker))),
    ]
    race = dataclasses.replace(race, load=lambda store, folder: Timed(arms))
    runs = tmp_path / "runs"

    def time():
        records = timing.time_race(race, runs, "convboard speed two.yaml")
        return {r.entry.label: r for r in records}, Store(runs).kept()[race.hash]

    records, run = time()
    assert {label: r.status for label, r in records.items()} == {"dwconv": "ok", "acb": "error"}
    assert "not mended yet" in records["acb"].error
    assert "not mended yet" in records["acb"].speed.memory_error
    assert not run.done
    marker.touch()
    records, run = time()
    assert [r.status for r in records.values()] == ["ok", "ok"]
    assert run.done
    acb = records["acb"].speed
    assert [len(samples) for samples in acb.samples_ms] == [3, 3]
    assert acb.baseline_samples_ms == records["dwconv"].speed.samples_ms
    assert acb.conditions.min_block_ms == 0.1
    assert acb.conditions.torch_threads == acb.conditions.omp_num_threads == 1
    assert acb.conditions.tf32 is False
    assert len(acb.block_iterations) == 2
    exported = [Record.load(p) for p in export(Store(runs), tmp_path / "out").records]
    newest = max(
        (r for r in exported if r.entry.label == "acb"), key=lambda r: r.provenance.created
    )
    assert newest.status == "ok"


@pytest.mark.parametrize(
    ("asked", "there", "taken"),
    [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu"), ("cuda", False, "cuda")],
)
def test_the_device_is_a_gpu_if_there_is_one(asked, there, taken, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    assert device_of(SpeedConfig(device=asked)) == taken


def test_an_exported_form_runs_on_the_cpu_though_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    plan = SpeedConfig(scopes={"backbone": [1]}, engine="onnxruntime")
    assert device_of(plan) == "cpu"


def test_a_compiled_form_cannot_be_compared_end_to_end(tmp_path):
    path = write(tmp_path / "compiled.yaml", SMALL.values(), engine="compile")
    with pytest.raises(UserError, match=r"`engine` \(='compile'\) must be 'torch' for `scope`"):
        schema.load_suite(path)


@pytest.mark.slow
@pytest.mark.parametrize("task", SMALL)
def test_end_to_end_from_image_to_result(task, tmp_path, convboard):
    path = write(tmp_path / "small.yaml", [SMALL[task]], scopes={"end_to_end": [1, 3]})
    runs = tmp_path / "runs"
    early = convboard("speed", path, "--runs", runs)
    assert "2 arms are not trained yet" in early.stdout
    convboard("run", path, "--runs", runs, "--seeds", "0")
    convboard("speed", path, "--runs", runs, "--seeds", "0")
    again = convboard("speed", path, "--runs", runs, "--seeds", "0")
    assert "done before" in again.stdout
    convboard("export", "--runs", runs, "--records", tmp_path / "records")
    found = [Record.load(file) for file in (tmp_path / "records").glob("speed-*.json")]
    assert {(r.entry.label, r.speed.batch) for r in found} == {
        (label, batch) for label in ("dwconv", "acb") for batch in (1, 3)
    }
    trained = [Record.load(file) for file in (tmp_path / "records").glob("accuracy-*.json")]
    for record in found:
        assert record.status == "ok", record.error
        assert record.speed.scope == "end_to_end"
        assert record.entry.task == task
        assert record.data == trained[0].data
        assert record.recipe.seed == 0
        assert record.speed.gate_max_error <= record.speed.gate_tolerance
    races = [
        run
        for run in Store(runs).kept().values()
        if run.tags[CELL] not in {cell.hash for cell in plan(path, Choice())}
    ]
    assert len(races) == 1
    assert not list((runs / "cells").iterdir())
