"""What the verbs of a suite refuse, leave out and go on from."""

from types import SimpleNamespace

import pytest

from bench.cli import lightning as fitting
from bench.cli import publish, speed, suites
from bench.cli.main import parser
from bench.config.lightning import from_arguments
from bench.config.plan import plan
from bench.errors import Failure, UserError
from bench.run import fits, states


@pytest.mark.parametrize(
    ("error", "traced"),
    [(UserError("no data"), False), (Failure("no worker"), False), (KeyError("a bug"), True)],
)
def test_only_a_fault_of_the_code_is_traced(error, traced, monkeypatch, capsys):
    def refuse(options):
        raise error

    monkeypatch.setattr(speed, "time_target", refuse)
    monkeypatch.setattr(suites, "_draw", lambda options: None)
    exported = SimpleNamespace(records=0, faults=[])
    monkeypatch.setattr(publish, "export_records", lambda options: exported)
    assert not suites.shown(SimpleNamespace())
    told = capsys.readouterr()
    assert f"{error}; the records are exported all the same." in told.out
    assert ("Traceback" in told.err) == traced


def test_a_result_of_older_code_stays_where_the_code_of_today_does_not_fit(
    tiny, tmp_path, monkeypatch, capsys
):
    state = {cell.hash: "stale" if cell.operator == "acb" else "done" for cell in plan(str(tiny))}
    stale = [key for key, how in state.items() if how == "stale"]
    monkeypatch.setattr(fits, "unfit", lambda cells: dict.fromkeys(stale, "no slot of its size"))
    monkeypatch.setattr(states, "states", lambda *_: state)
    options = parser()[0].parse_args(["run", str(tiny), "--runs", str(tmp_path), "--stale"])
    assert suites._run(options) == 0  # and nothing is built
    assert "does not fit: test_convnext · acb: no slot of its size" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--gpus 2", "`--gpus` (=2.0) is for --executor ray or slurm."),
        ("--cpus 4", "`--cpus` (=4) is for --executor ray or slurm."),
        ("--address head:1", "`--address` (='head:1') is for --executor ray or slurm."),
        ("--slurm partition=gpu", "`--slurm` (='partition=gpu') is for --executor slurm."),
    ],
)
def test_flags_of_other_executors_are_refused_by_tune(flags, told, tiny, tmp_path, convboard):
    line = ("tune", tiny, "--runs", tmp_path / "runs", *flags.split())
    assert told in convboard(*line, status=2, at_once=True).stderr


def test_no_workers_cannot_reproduce(tmp_path, convboard):
    line = ("reproduce", tmp_path / "record.json", "--workers", "0")
    told = convboard(*line, status=2, at_once=True).stderr
    assert "`--workers` (=0) must be at least 1." in told


@pytest.mark.parametrize("data", [["--data", "tasks.PoseData"], ["--data=tasks.PoseData"]])
def test_data_of_fit_may_be_a_class(data, convboard, monkeypatch):
    seen = []
    monkeypatch.setattr(fitting, "fit", lambda options: seen.append(options))
    more = ["--model", "tasks.Pose", *data, "--data.batch_size", "8"]
    convboard("fit", *more, at_once=True)
    assert seen[0].data is None
    assert from_arguments(seen[0].arguments) == {
        "model": {"class_path": "tasks.Pose"},
        "data": {"class_path": "tasks.PoseData", "init_args": {"batch_size": 8}},
    }


def test_data_of_fit_may_be_a_folder(tmp_path, convboard, monkeypatch):
    seen = []
    monkeypatch.setattr(fitting, "fit", lambda options: seen.append(options))
    monkeypatch.setenv("CONVBOARD_DATA", "")  # the command sets it
    convboard("fit", "--data", tmp_path, "--data", "tasks.PoseData", at_once=True)
    assert seen[0].data == tmp_path
    assert seen[0].arguments == ["--data.class_path=tasks.PoseData"]
    told = convboard("fit", "--data", tmp_path / "gone", status=2, at_once=True).stderr
    assert "must be a folder" in told
