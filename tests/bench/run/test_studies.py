"""Studies with objectives that cost nothing: what is searched, tried first, retried and kept."""

import dataclasses
import sqlite3
import time
from contextlib import closing
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import FixedTrial, TrialState

from bench.cli import tune as tune_verb
from bench.cli.main import main
from bench.config import files
from bench.config.plan import Choice, plan
from bench.config.schema import SearchSpace
from bench.config.speed import SpeedConfig
from bench.errors import ConfigError, Failure, UserError
from bench.run import fit
from bench.run.executor import Event
from bench.run.tune import Search, arm, database, kept, ratio, share, spaces, study, written
from bench.store import StoreError, ui


@pytest.fixture
def cell(tiny):
    (cell,) = plan(str(tiny), Choice(only={"operator": ["acb"]}))
    return cell


@pytest.fixture
def store(tmp_path):
    """What a study needs of a store, without the seconds that MLflow takes to open one."""
    return SimpleNamespace(folder=tmp_path, studies=lambda: f"sqlite:///{tmp_path}/optuna.db")


def with_tune(cell, **options):
    return cell.model_copy(update={"tune": {k: SearchSpace(**v) for k, v in options.items()}})


def test_space_spans_the_recipe_and_the_options(cell):
    found = spaces.space(cell)
    lr = cell.config["model"]["init_args"]["lr"]
    assert (found[spaces.LR].low, found[spaces.LR].high) == pytest.approx((lr / 10, lr * 10))
    assert found[spaces.DROP_PATH].high == spaces.MOST_DROPPED
    assert found[f"{spaces.OPTIONS}.gamma_init"].values == [1.0, 0.333]
    assert spaces.default_params(cell, found) == {
        "lr": lr,
        "weight_decay": cell.config["model"]["init_args"]["weight_decay"],
        "drop_path_rate": 0.0,
        "gamma_init": 0,
    }
    spaces.check(cell, found)


def test_a_host_without_drop_path_is_not_asked_for_it(cell):
    other = cell.model_copy(
        update={"config": files.merge(cell.config, {"model": {"init_args": {"weight_decay": 0.0}}})}
    )
    other.backbone["host"] = "ghostnet_050"
    found = spaces.space(other)
    assert spaces.DROP_PATH not in found
    assert (found[spaces.WEIGHT_DECAY].low, found[spaces.WEIGHT_DECAY].log) == (0.0, False)


def test_an_arm_in_place_is_searched_as_its_operator_is(cell):
    bare = cell.model_copy(update={"tune": {}})
    assert f"{spaces.OPTIONS}.gamma_init" in spaces.space(bare)
    bare.backbone["options"] = {"gamma_init": 0.5}  # the arm says what it is
    assert f"{spaces.OPTIONS}.gamma_init" not in spaces.space(bare)


def test_suggest_puts_each_value_in_its_place():
    searched = {
        "model.init_args.lr": SearchSpace(low=0.1, high=1.0, log=True),
        "a.options.paths": SearchSpace(low=1, high=3),
        "a.options.form": SearchSpace(values=["x", "y"]),
    }
    trial = FixedTrial({"lr": 0.5, "paths": 2, "form": 1})
    assert spaces.suggest(trial, searched) == {
        "model": {"init_args": {"lr": 0.5}},
        "a": {"options": {"paths": 2, "form": "y"}},
    }
    assert spaces.suggest(trial, searched, only={"paths": 2}) == {"a": {"options": {"paths": 2}}}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"gama_init": {"values": [1.0]}}, r"acb.*`tune` \(='gama_init'\).*did you mean 'gamma_i"),
        ({"gamma_init": {"values": [1.0, "x"]}}, r"gamma_init \(='x'\).*finite number"),
    ],
)
def test_a_space_that_can_not_be_run_is_told_before_the_first_trial(cell, changed, words):
    wrong = with_tune(cell, **changed)
    with pytest.raises(ConfigError, match=words):
        spaces.check(wrong, spaces.space(wrong))


def test_a_setting_of_the_board_is_checked_too(cell):
    def searched(name):
        of = {name: SearchSpace(low=0, high=2)}
        return cell.model_copy(update={"searched": of})

    good = searched("model.init_args.warmup_epochs")
    assert "model.init_args.warmup_epochs" in spaces.space(good)
    spaces.check(good, spaces.space(good))
    wrong = searched("model.init_args.warm_epochs")
    with pytest.raises(ConfigError, match=r"tune` of model\.init_args\.warm_epochs \(=0\)"):
        spaces.check(wrong, spaces.space(wrong))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"trials": 0}, r"`--trials` \(=0\)"),
        ({"sampler": "tpa"}, r"`--sampler` \(='tpa'\).*did you mean 'tpe'"),
        ({"pruner": "medium"}, r"`--pruner` \(='medium'\).*did you mean 'median'"),
        ({"objectives": ("speed",)}, r"`--objectives` \(='speed'\)"),
        ({"objectives": ("time",)}, r"must be accuracy, or accuracy,time"),
        ({"objectives": study.OBJECTIVES, "pruner": "median"}, r"prunes by one objective"),
        ({"objectives": study.OBJECTIVES, "sampler": "cmaes"}, r"CMA-ES has one objective"),
    ],
)
def test_names_are_checked_before_anything_starts(given, words):
    with pytest.raises(UserError, match=words):
        Search(**given)


@pytest.mark.parametrize("more", [["--workers", "2"], ["--executor", "ray"]])
def test_times_are_measured_with_nothing_beside(more, tmp_path, capsys):
    line = ["tune", "quick", "--objectives", "accuracy,time", "--runs", str(tmp_path / "runs")]
    with pytest.raises(SystemExit):
        main([*line, *more])
    assert "one trial at a time" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def opened(store, search=None, directions=("maximize",), first=None):
    return database.opened(store, "s", search or Search(), directions, first or {"x": 0.5})


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [("tpe", "median"), ("gp", "percentile"), ("random", "halving"), ("nsgaii", "hyperband")],
)
def test_the_first_trial_is_the_default_and_no_tuning_is_worse(store, sampler, pruner):
    opened_study = opened(store, Search(sampler=sampler, pruner=pruner)).study
    opened_study.sampler = study.sampler_of(sampler, 1)

    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        trial.report(x, 0)
        trial.should_prune()
        return -((x - 0.5) ** 2)  # the default is the optimum

    opened_study.optimize(objective, n_trials=4)
    again = opened(store, Search(sampler=sampler, pruner=pruner)).study
    assert len(again.trials) == 4  # the default is queued once
    assert again.trials[0].params == {"x": 0.5}
    assert again.trials[0].user_attrs == {study.DEFAULT: True}
    assert len({trial.params["x"] for trial in again.trials}) == 4
    (best,) = study.best(again)
    assert best.number == 0


def test_of_equal_trials_the_default_stands(store):
    one = opened(store).study
    one.optimize(lambda trial: 0.0 * trial.suggest_float("x", 0, 1), n_trials=4)
    assert [trial.number for trial in study.best(one)] == [0]


def test_no_trial_beats_those_of_the_front_in_both(store):
    one = opened(store, Search(objectives=study.OBJECTIVES), ("maximize", "minimize")).study
    values = iter([(0.5, 1.0), (0.6, 1.0), (0.7, 1.2), (0.6, 1.0), (0.4, 0.8), (0.5, 1.1)])

    def objective(trial):
        trial.suggest_float("x", 0, 1)
        return next(values)

    one.optimize(objective, n_trials=6)
    assert [trial.number for trial in study.best(one)] == [1, 2, 4]


def backdate(folder, number):
    with closing(sqlite3.connect(folder / "optuna.db")) as connection, connection:
        connection.execute(
            "UPDATE trials SET datetime_start = datetime(datetime_start, ?) WHERE number = ?",
            (f"-{2 * database.HEARTBEAT_S + 1} seconds", number),
        )


def signs_of_life(folder):
    with closing(sqlite3.connect(folder / "optuna.db")) as connection:
        return connection.execute("SELECT * FROM trial_heartbeats").fetchall()


def test_a_trial_that_died_before_its_first_sign_of_life_is_queued_again(store):
    """`ask` gives the trial; only `optimize` would make it say that it lives."""
    shared = opened(store)
    one, retry = shared.study, shared.retry_silent
    with pytest.warns(UserWarning, match="Heartbeat"):
        one.ask()
    retry()
    assert [trial.state for trial in one.trials] == [TrialState.RUNNING]  # it may be about to
    backdate(store.folder, 0)
    shared = opened(store)
    again, retry = shared.study, shared.retry_silent
    retry()
    assert [trial.state for trial in again.trials] == [TrialState.FAIL, TrialState.WAITING]
    retry()
    assert len(again.trials) == 2
    again.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert again.trials[1].params == {"x": 0.5}  # the default is not lost
    assert again.trials[1].user_attrs[study.DEFAULT]


def test_a_trial_that_lives_is_left_alone(store):
    shared = opened(store)
    one, retry = shared.study, shared.retry_silent

    def objective(trial):
        deadline = time.monotonic() + 60
        while not signs_of_life(store.folder) and time.monotonic() < deadline:
            time.sleep(0.01)
        backdate(store.folder, trial.number)
        retry()
        return trial.suggest_float("x", 0, 1)

    one.optimize(objective, n_trials=1)
    assert [trial.state for trial in one.trials] == [TrialState.COMPLETE]


def test_no_more_trials_begin_than_are_wanted(store):
    shared = opened(store)

    def objective(trial):
        assert not opened(store).run(lambda other: 0.0, most=2)  # one has ended, this one runs
        return trial.suggest_float("x", 0, 1)

    assert shared.run(lambda trial: trial.suggest_float("x", 0, 1), most=2)
    assert shared.run(objective, most=2)
    assert not shared.run(objective, most=2)
    assert [trial.state for trial in shared.study.trials] == [TrialState.COMPLETE] * 2


class Died(BaseException):
    """The end of a process, which tells the database nothing."""


def test_a_job_that_died_leaves_its_trial_to_another(store):
    """At once, and not for ever: a draw that kills each of its processes has failed."""
    shared = opened(store)

    def killed(trial):
        trial.suggest_float("x", 0, 1)
        raise Died

    for number in range(database.RETRIES + 1):
        with pytest.raises(Died):
            shared.run(killed, most=1, job=f"job {number}")
        assert not shared.run(killed, most=1)  # it runs, for all that is known
        shared.lost("another", "SIGKILL")
        assert shared.study.trials[-1].state == TrialState.RUNNING
        shared.lost(f"job {number}", "SIGKILL")
    trials = shared.study.trials
    assert [trial.state for trial in trials] == [TrialState.FAIL] * (database.RETRIES + 1)
    assert {trial.params["x"] for trial in trials} == {0.5}
    assert [trial.user_attrs.get("error") for trial in trials] == [None] * 3 + ["SIGKILL"]


def test_a_trial_that_takes_too_long_has_failed(store):
    shared = opened(store)
    with pytest.warns(UserWarning, match="Heartbeat"):
        shared.study.ask().set_user_attr(database.JOB, "job")
    shared.lost("job", "took more than 1 minutes", retry=False)
    (trial,) = shared.study.trials
    assert trial.state == TrialState.FAIL
    assert study.failed(shared.study) == [trial]


@pytest.fixture
def trained(monkeypatch):
    """Trainings that take no time: what each was given, and is scored with."""
    given = []

    def fitted(config, work, **others):
        given.append(config["model"]["init_args"]["lr"])
        module = SimpleNamespace(headline="top1")
        return SimpleNamespace(epochs=2, metrics={"top1": 0.5}, module=module)

    monkeypatch.setattr(fit, "fit", fitted)
    monkeypatch.setattr(share, "_WAIT_S", 0)
    return given


class Runs:
    """A store that keeps runs in memory, and fails where it is told to."""

    def __init__(self, folder, faults=None):
        self.folder, self.kept, self.faults = folder, {}, faults or {}

    def studies(self):
        return f"sqlite:///{self.folder}/optuna.db"

    def _fault(self, call, run_id):
        fault = self.faults.get(call)
        if fault is not None and "trial" in self.kept[run_id]["tags"]:
            raise fault

    def begin(self, experiment, name, tags, params, parent=None):
        run_id = f"{id(self)}-{len(self.kept)}"
        self.kept[run_id] = {"tags": dict(tags), "metrics": {}, "status": "RUNNING"}
        self._fault("begin", run_id)
        return run_id

    def runs(self, experiment=None):
        for run_id, run in self.kept.items():
            named = SimpleNamespace(run_id=run_id)
            yield SimpleNamespace(info=named, data=SimpleNamespace(tags=run["tags"])), experiment

    def tag(self, run_id, tags):
        self.kept[run_id]["tags"] |= tags

    def metrics(self, run_id, values):
        self._fault("metrics", run_id)
        self.kept[run_id]["metrics"] |= values

    def end(self, run_id, status="FINISHED"):
        self.kept[run_id]["status"] = status

    def logger(self, experiment, run_id):
        return None


def shared_out(cell, store, trials=3):
    """What runs a study of the cell, the study, and the words of its trials."""
    of = share.Share(arm_with(cell), Search(trials=trials), "s", SpeedConfig(), store.folder)
    told = []
    return of, of.opened(store), lambda done, words: told.append(words), told


def test_what_fails_before_a_training_is_a_failure_too(cell, tmp_path, trained):
    store = Runs(tmp_path, {"begin": ValueError("no such experiment")})
    of, shared, tell, told = shared_out(cell, store)
    share.work(of, shared, store, tell)
    assert len(study.failed(shared.study)) == share.MOST_FAILURES == len(shared.study.trials)
    assert "failed: ValueError: no such experiment" in told[0]
    assert trained == []


@pytest.mark.parametrize(("call", "trainings"), [("begin", 0), ("metrics", 1)])
def test_a_store_that_fails_stops_a_study_and_costs_it_nothing(
    cell, tmp_path, trained, call, trainings
):
    store = Runs(tmp_path, {call: StoreError("the disk is full")})
    of, shared, tell, told = shared_out(cell, store)
    with pytest.raises(StoreError):
        share.work(of, shared, store, tell)
    assert told == ["trial 0 (the recipe): cut off"]
    assert len(trained) == trainings
    store.faults.clear()
    of, shared, tell, told = shared_out(cell, store)
    share.work(of, shared, store, tell)
    ended = study.ended(shared.study)
    assert len(ended) == 3 == len(trained)  # what was trained is not trained again
    assert ended[0].params == spaces.default_params(cell, spaces.space(cell))
    assert ended[0].user_attrs[study.DEFAULT]
    assert not study.failed(shared.study)
    scores = [r["metrics"]["held_out"] for r in store.kept.values() if r["status"] == "FINISHED"]
    assert scores == [0.5] * 3


def test_a_job_that_finds_the_store_of_no_use_stops_a_study(cell, tmp_path):
    of, shared, tell, _ = shared_out(cell, Runs(tmp_path))

    def run(function, jobs):
        for job in jobs:
            yield Event("failed", job, StoreError("the disk is full"))

    with pytest.raises(StoreError):
        share.share_out(of, shared, SimpleNamespace(run=run), tell)


def test_five_failures_end_a_command_and_not_its_study(cell, tmp_path, trained):
    store = Runs(tmp_path, {"begin": ValueError("no such experiment")})
    of, shared, tell, _ = shared_out(cell, store)
    share.work(of, shared, store, tell)
    assert not of.unfinished(shared.study)
    store.faults.clear()
    earlier = frozenset(trial.number for trial in study.failed(shared.study))
    again = dataclasses.replace(of, earlier=earlier)
    assert again.unfinished(shared.study)
    shared = again.opened(store)
    share.work(again, shared, store, tell)
    ended = study.ended(shared.study)
    assert len(ended) == 3
    assert [bool(trial.user_attrs.get(study.DEFAULT)) for trial in ended] == [True, False, False]
    assert len(again.opened(store).study.trials) == len(shared.study.trials)  # it is queued once


def test_two_stores_may_share_the_database_of_studies(cell, tmp_path):
    here, there = Runs(tmp_path), Runs(tmp_path)
    of = arm_with(cell)
    one = opened(here).study
    mine = kept.run_of(one, here, of)
    other = kept.run_of(one, there, of)
    assert other in there.kept
    assert kept.run_of(one, here, of) == mine
    assert (len(here.kept), len(there.kept)) == (1, 1)


def arm_with(cell):
    return arm.Arm(cell, cell, spaces.space(cell), "top1", "fraction", True)


def run_study(store, cell, values, objectives=("accuracy",)):
    directions = ("maximize", "minimize")[: len(objectives)]
    first = spaces.default_params(cell, spaces.space(cell))
    one = opened(store, Search(objectives=objectives), directions, first).study
    left = iter(values)

    def objective(trial):
        spaces.suggest(trial, spaces.space(cell))
        trial.set_user_attr("epochs", 2)
        value = next(left)
        if value is None:
            raise optuna.TrialPruned
        return value

    one.optimize(objective, n_trials=len(values))
    return one


def test_what_is_told_of_a_study(store, cell, tmp_path):
    one = run_study(store, cell, [0.5, 0.7, None, *(0.3 + 0.01 * n for n in range(8))])
    told = kept.study_of(one, arm_with(cell), Search(trials=11), 0.2)
    states = [trial.state for trial in told.trials]
    assert states == [*["complete"] * 2, "pruned", *["complete"] * 8]
    assert [trial.number for trial in told.trials if trial.default] == [0]
    assert [trial.number for trial in told.trials if trial.best] == [1]
    assert told.trials[0].params["gamma_init"] == 1.0  # the value, not its place in a list
    assert sum(trial.epochs for trial in told.trials) == 22
    assert sum(told.importances.values()) == pytest.approx(1)
    drawn = {path.name for path in kept.draw(one, told, tmp_path) if path.stat().st_size > 1000}
    assert drawn == {"history.png", "importances.png", "epochs.png"}


def test_what_is_told_of_two_objectives(store, cell, tmp_path):
    values = [(0.5, 1.0), (0.7, 1.3), (0.6, 0.9), (0.4, 1.1)]
    one = run_study(store, cell, values, study.OBJECTIVES)
    told = kept.study_of(one, arm_with(cell), Search(objectives=study.OBJECTIVES), 0.2)
    assert [objective.name for objective in told.objectives] == ["top1", "time ratio"]
    assert [trial.number for trial in told.trials if trial.best] == [1, 2]
    found = arm._operators(one, arm_with(cell))
    assert [operator.label for operator in found] == ["acb-tuned-1", "acb-tuned-2"]
    assert tmp_path / "pareto.png" in kept.draw(one, told, tmp_path)


def test_the_suite_has_every_arm_as_it_was_and_as_tuned(store, cell, tiny, tmp_path):
    one = run_study(store, cell, [0.5, 0.7])
    (found,) = arm._operators(one, arm_with(cell))
    path = tmp_path / "tuned.yaml"
    base, acb = plan(str(tiny))
    written.write(path, str(tiny), Choice(), [(base, ()), (acb, (found,))])
    cells = {each.operator: each for each in plan(str(path))}
    assert list(cells) == ["dwconv", "acb", "acb-tuned"]
    tuned, params = cells["acb-tuned"], one.trials[1].params
    assert cells["acb"].hash == acb.hash
    assert {each.board for each in cells.values()} == {acb.board}
    assert tuned.config["model"]["init_args"]["lr"] == params["lr"]
    dropped = {"drop_path_rate": params["drop_path_rate"]}
    assert tuned.backbone["host_options"] == acb.backbone["host_options"] | dropped
    assert tuned.untuned[spaces.DROP_PATH] is None
    assert tuned.untuned[spaces.LR] == acb.config["model"]["init_args"]["lr"]
    assert tuned.network["host_options"] == acb.backbone["host_options"]  # of what is timed
    assert tuned.tuned.trials == 2


def test_what_was_tuned_before_stays_beside_what_is_tuned_anew(store, cell, tiny, tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    (found,) = arm._operators(run_study(store, cell, [0.5, 0.7]), arm_with(cell))
    base, acb = plan(str(tiny))
    written.write(first, str(tiny), Choice(), [(base, ()), (acb, (found,))])
    base, acb, tuned = plan(str(first))
    rate = {"model": {"init_args": {"lr": 0.5}}}
    anew = found.model_copy(update={"set": files.merge(found.set, rate)})
    written.write(second, str(first), Choice(), [(base, ()), (acb, (anew,)), (tuned, ())])
    cells = {each.operator: each for each in plan(str(second))}
    assert sorted(cells) == ["acb", "acb-tuned", "acb-tuned-2", "dwconv"]
    assert cells["acb-tuned"].hash == tuned.hash
    assert cells["acb-tuned-2"].config["model"]["init_args"]["lr"] == 0.5


def test_arms_of_the_command_line_are_written_as_they_were_tuned(tiny, tmp_path):
    choice = Choice(operators=["parc"], where={"stages": [4]})
    base, parc = plan(str(tiny), choice)
    path = tmp_path / "tuned.yaml"
    written.write(path, str(tiny), choice, [(base, ()), (parc, ())])
    assert [cell.hash for cell in plan(str(path))] == [base.hash, parc.hash]


def test_a_choice_names_the_suite_that_is_written():
    names = {
        written.file_name("quick", choice)
        for choice in (
            Choice(),
            Choice(operators=["parc"]),
            Choice(operators=["acb"]),
            Choice(operators=["acb"], mix="pointwise"),
            Choice(operators=["acb"], where={"stages": [4]}),
            Choice(hosts=["resnet18"]),
            Choice(hosts=["mine/net.py:make"]),
        )
    }
    assert len(names) == 7
    assert "quick-acb.yaml" in names
    assert "quick-net.py_make.yaml" in names


def test_unlike_budgets_are_told(cell, capsys):
    trial = SimpleNamespace(state="complete", values=[0.5], default=True, best=True, epochs=1)
    told = SimpleNamespace(trials=[trial] * 4, objectives=[SimpleNamespace(name="top1")])
    found = SimpleNamespace(arm=arm_with(cell), study=told)
    tune_verb._print([found], 3)
    title = arm_with(cell).title
    assert f"more than 3 trials, from earlier: {title} (4)." in capsys.readouterr().out
    tune_verb._print([found], 4)
    assert "budgets" not in capsys.readouterr().out


def test_where_the_recipe_is_best_no_arm_is_added(store, cell):
    assert arm._operators(run_study(store, cell, [0.7, 0.5]), arm_with(cell)) == ()


@pytest.mark.parametrize("host_options", [True, False])
def test_the_recipe_alone_changes_no_time(cell, host_options, monkeypatch):
    plan_ = SimpleNamespace()
    if not host_options:
        cell.backbone.pop("host_options")
    monkeypatch.setattr(ratio, "measured", lambda *_: pytest.fail("it is measured"))
    above = {}
    files.put(above, spaces.LR, 0.1)
    files.put(above, spaces.DROP_PATH, 0.2)
    config = files.merge(cell.config, above)
    assert ratio.time_ratio(cell, config, plan_, SimpleNamespace()) == 1.0


def test_dashboard_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(ui, "find_spec", lambda name: None)
    with pytest.raises(Failure, match=r"pip install 'convboard\[dashboard\]'"):
        ui.serve_studies(tmp_path, 8080)
    monkeypatch.setattr(ui, "find_spec", lambda name: name)
    with pytest.raises(Failure, match="has no study yet"):
        ui.serve_studies(tmp_path, 8080)
