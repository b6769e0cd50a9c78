"""Tuning: resumable, pruned, on a held-out split; its result is a suite."""

import optuna
import pytest
import yaml
from optuna.trial import FixedTrial

from bench.config.plan import Choice, plan
from bench.config.schema import SearchSpace
from bench.errors import UserError
from bench.run import tune
from bench.store import Store


def test_space_spans_the_recipe(tiny):
    (cell,) = plan(str(tiny), Choice(only={"operator": ["acb"]}))
    spaces = tune.space(cell)
    lr = cell.config["model"]["init_args"]["lr"]
    assert spaces["model.init_args.lr"].low == pytest.approx(lr / 10)
    assert spaces["model.init_args.lr"].high == pytest.approx(lr * 10)
    assert "model.init_args.backbone.init_args.options.gamma_init" in spaces


def test_suggest_puts_each_value_in_its_place():
    spaces = {
        "model.init_args.lr": SearchSpace(low=0.1, high=1.0, log=True),
        "a.options.paths": SearchSpace(low=1, high=3),
        "a.options.form": SearchSpace(values=["x", "y"]),
    }
    trial = FixedTrial({"lr": 0.5, "paths": 2, "form": 1})
    assert tune.suggest(trial, spaces) == {
        "model": {"init_args": {"lr": 0.5}},
        "a": {"options": {"paths": 2, "form": "y"}},
    }


def test_one_cell_only(tiny, tmp_path):
    with pytest.raises(UserError, match="--only operator="):
        tune.tune(str(tiny), Choice(), tmp_path, trials=1, out=None)
    with pytest.raises(UserError, match=r"`--trials` \(=0\)"):
        tune.tune(str(tiny), Choice(), tmp_path, trials=0, out=None)


@pytest.mark.slow
def test_a_study_from_end_to_end(tiny, tmp_path, convboard):
    runs, out = tmp_path / "runs", tmp_path / "tuned.yaml"
    command = ["tune", tiny, "--only", "operator=acb", "--runs", runs, "--out", out, "--trials"]
    convboard(*command, "2")
    convboard(*command, "3")
    name = f"sqlite:///{runs / 'optuna.db'}"
    (summary,) = optuna.get_all_study_summaries(name)
    assert summary.n_trials == 3
    store = Store(runs)
    trials = [run for run, _ in store._runs(None) if "trial" in run.data.tags]
    parents = {run.data.tags["mlflow.parentRunId"] for run in trials}
    assert len(trials) == 3
    assert parents == {summary.user_attrs["mlflow_run"]}
    assert all(run.data.params["data.init_args.holdout"] == "0.2" for run in trials)

    best = optuna.load_study(study_name=summary.study_name, storage=name).best_params
    board = yaml.safe_load(out.read_text())["boards"][0]
    assert board["set"]["model"]["init_args"]["lr"] == best["lr"]
    assert board["tuned"]["trials"] == 3
    (cell,) = plan(str(out))
    assert cell.config["data"]["init_args"]["holdout"] == 0.0
    convboard("run", out, "--runs", runs)
    record = next(r for r in store.kept().values() if r.cell == cell.hash)
    assert record.done
