"""The verb tune: an Optuna study for every arm that is chosen, all of one budget at least."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.arguments import (
    Verbs,
    add_choice,
    add_engine,
    choice_of,
    engine_of,
    runs_of,
    split,
    tell_next,
)
from bench.errors import Failure, UserError

if TYPE_CHECKING:
    from bench.config.cell import Cell
    from bench.config.schema import OperatorConfig
    from bench.config.speed import SpeedConfig
    from bench.record import Data, Study
    from bench.run.executor import Executor
    from bench.run.tune import Arm, Search, Tuned
    from bench.store import Store


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    text = "search the recipe and every operator's own options by Optuna, all with one budget"
    verb = verbs.add("tune", tune, text)
    add_choice(verb)
    add_engine(verb)
    verb.add_argument(
        "--trials",
        type=int,
        default=20,
        help="trials of each arm, in all (default 20); a study that has more keeps them",
    )
    verb.add_argument("--sampler", default="tpe", help="tpe (default), random, gp, cmaes or nsgaii")
    verb.add_argument(
        "--pruner",
        help="median (default), percentile, halving, hyperband or none; two objectives have none",
    )
    verb.add_argument(
        "--objectives",
        default="accuracy",
        help="accuracy (default), or accuracy,time: measured, over the default's",
    )
    verb.add_argument(
        "--out", type=Path, default=None, help="suite that runs what was found; default in RUNS"
    )


def tune(options: argparse.Namespace) -> None:
    """Tune every arm that is chosen, one after the other; status 1 where one failed.

    What can be wrong of any is found before the first trial. An arm that does not fit its host is
    a row that says so.
    """
    from bench.cli.suites import tell_absent, tell_unfit
    from bench.config.files import require_suite_file
    from bench.config.plan import each_arm, plan
    from bench.config.schema import load_suite
    from bench.config.speed import SpeedConfig
    from bench.run import suite
    from bench.run.cell import WAIT_S, keep_unfit
    from bench.run.fits import unfit
    from bench.run.ranks import ranks_of
    from bench.run.tune import Search, arm_of
    from bench.run.tune.spaces import check
    from bench.run.tune.written import file_name, write
    from bench.store import Store

    engine_of(options).require_sound()  # also where the trials run in this process
    require_suite_file(options.out)
    search = Search(
        options.trials, options.sampler, options.pruner, tuple(split(options.objectives))
    )
    alone = options.executor == "processes" and options.workers in (None, 1)
    if "time" in search.objectives and not alone:
        raise UserError(
            "`--objectives accuracy,time` runs one trial at a time, in this process: what else "
            "runs would be in its times; leave out --workers and --executor."
        )
    choice = choice_of(options)
    whole = load_suite(options.suite)
    cells = plan(options.suite, choice)
    tell_absent(cells)
    cells = [cell for cell in cells if not cell.absent]
    if not cells:
        raise Failure(f"{whole.name}: none of its data are there, so there is nothing to tune.")
    if any(ranks_of(cell.config["trainer"]) > 1 for cell in cells):
        raise UserError("`devices` must be 1 in a study: a trial runs on one device.")
    reasons = unfit(cells)
    tell_unfit(cells, reasons)
    firsts = {title: of[0] for title, of in each_arm(cells).items()}
    arms = {t: arm_of(c, search) for t, c in firsts.items() if c.hash not in reasons}
    for arm in arms.values():
        check(arm.cell, arm.spaces)
    store = Store(runs_of(options), wait_s=WAIT_S)
    store.require_writable()
    store.require_active([f"{whole.name}-tune"])
    without = [cell for cell in cells if cell.hash in reasons]
    tuned = [cell for arm in arms.values() for cell in (arm.cell, arm.held_out)]
    data = suite.preflight([*tuned, *without], reasons)
    for cell in without:
        keep_unfit(cell, store.folder, options.line, reasons[cell.hash], data.get(cell.hash))
    executor = None if alone else _executor(options, cells, whole.timeout_minutes)
    plan_ = whole.speed or SpeedConfig()
    found, failed = _tuned(arms, search, plan_, data, store, executor, options)
    if found:
        _print(found, search.trials)
        path = options.out or store.folder / "tuned" / file_name(options.suite, choice)
        of_arm: dict[str, Sequence[OperatorConfig]] = {t.arm.cell.hash: t.operators for t in found}
        write(path, options.suite, choice, [(c, of_arm.get(c.hash, ())) for c in firsts.values()])
        tell_next(options, path)
    if failed or not found:
        sys.exit(1)


def _executor(options: argparse.Namespace, cells: Sequence[Cell], minutes: float) -> Executor:
    """Return what runs the trials."""
    from bench.cli.suites import executor_of

    if options.executor == "slurm" and options.workers is None:
        options.workers = 1  # a sampler learns from trials that have ended, not from those queued
    return executor_of(options, cells, minutes)


def _tuned(
    arms: Mapping[str, Arm],
    search: Search,
    plan: SpeedConfig,
    data: dict[str, Data],
    store: Store,
    executor: Executor | None,
    options: argparse.Namespace,
) -> tuple[list[Tuned], int]:
    """Tune arms and show how far they are; return what was found, and how many failed."""
    from bench.cli.progress import Bar, console
    from bench.run.tune import tune
    from bench.store import StoreError

    found, failed = [], 0
    for title, arm in arms.items():
        console.print(title)
        with Bar("trials", search.trials) as bar:

            def told(done: int, words: str, bar: Bar = bar) -> None:
                bar.print(words)
                bar.step(done)

            try:
                found.append(
                    tune(
                        arm,
                        store,
                        search,
                        plan=plan,
                        data=data[arm.cell.hash],
                        command=options.line,
                        executor=executor,
                        before=bar.before,
                        told=told,
                    )
                )
            except StoreError:  # the others would be kept in it too
                raise
            except Failure as error:  # the others have their own studies
                bar.print(str(error))
                failed += 1
    return found, failed


def _print(found: Sequence[Tuned], trials: int) -> None:
    """Print what was found of each arm on the held-out split, with what it cost.

    Args:
        found: what the studies gave.
        trials: that each arm was to have.
    """
    from rich.table import Table

    from bench.cli.progress import console

    table = Table("task", "host", "operator", "recipe", "tuned", "trials", "epochs", box=None)
    for tuned in found:
        cell, study = tuned.arm.cell, tuned.study
        default = [trial for trial in study.trials if trial.default and trial.values]
        best = [trial for trial in study.trials if trial.best and not trial.default]
        table.add_row(
            cell.task,
            cell.host,
            cell.operator,
            _values(default[0].values) if default else "failed",
            " or ".join(_values(trial.values) for trial in best) or "the recipe stands",
            str(len(study.trials)),
            str(sum(trial.epochs for trial in study.trials)),
        )
    console.print(f"{found[0].study.objectives[0].name} on the held-out split:")
    console.print(table)
    more = [
        f"{tuned.arm.title} ({ended})" for tuned in found if (ended := _ended(tuned.study)) > trials
    ]
    if more:
        words = f"The budgets differ; more than {trials} trials, from earlier: {'; '.join(more)}."
        console.print(words, markup=False, soft_wrap=True)


def _ended(study: Study) -> int:
    """Return how many trials of a study did not fail."""
    return sum(trial.state != "failed" for trial in study.trials)


def _values(values: Sequence[float]) -> str:
    """Return a score, with the time ratio where there is one.

    Example:
        >>> _values([0.5]), _values([0.5, 1.25])
        ('0.5000', '0.5000 at 1.25×')
    """
    score, *ratio = values
    return f"{score:.4f}" + (f" at {ratio[0]:.2f}×" if ratio else "")
