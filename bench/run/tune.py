"""The verb tune: a study over one cell, on a split held out of the training set, and its suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.config import files
from bench.config.cell import Cell
from bench.config.plan import Choice, board_of, one, plan
from bench.config.schema import BoardConfig, Tuning, load_host, load_operator, load_suite
from bench.errors import UserError
from bench.hashing import digest
from bench.run.executor import Executor
from bench.run.ranks import ranks_of
from bench.run.spaces import drawn, dump, put, space
from bench.run.study import WAIT_S, Share, carry_out
from bench.run.suite import hush, preflight
from bench.store import Store
from bench.whole_files import write_whole

HOLDOUT = 0.2
"""Share of the training set that trials are scored on."""


@dataclass(frozen=True)
class Tuned:
    """What a study gave: the suite that runs its best trial, and how it was found."""

    path: Path
    best: float
    complete: int


def tune(
    name: str,
    choice: Choice,
    folder: Path,
    *,
    trials: int,
    out: Path | None,
    executor: Executor | None = None,
    before: Callable[[int], object] = lambda done: None,
    ended: Callable[[int, str], object] = lambda done, words: None,
) -> Tuned:
    """Search one cell of a suite, and write the best trial as a suite.

    Searched are the learning rate (log-uniform, from a tenth to ten times the recipe's), the
    weight decay (log-uniform, 1e-4 … 0.3), and the operator's own options as its overlay's `tune`
    gives them. The sampler is TPE with the cell's seed; a trial that is below the median of the
    others at an epoch is pruned. The score is the headline on a fifth of the training set that
    is held out; the published split is never seen. Study and trials are kept in `folder`, so the
    same command goes on where it was cut off, up to `trials` in all.

    Args:
        name: of the suite, or its path.
        choice: what narrows it to one cell.
        folder: the runs folder; see `bench.store.Store`.
        trials: in the study, in all.
        out: the suite to write; None for one in `folder`.
        executor: runs the trials, several at a time; None runs them here, one after the other.
        before: called with how many trials had ended before.
        ended: called after each trial with how many have ended, and what became of it.

    Raises:
        UserError: more than one cell is chosen, `trials` < 1, or a trial takes several devices.
    """
    if trials < 1:
        raise UserError(f"`--trials` (={trials}) must be at least 1.")
    hush()
    cell = one(plan(name, choice))
    if ranks_of(cell.config["trainer"]) > 1:
        raise UserError("`devices` must be 1 in a study: a trial runs on one device.")
    scored = {"check_val_every_n_epoch": 1}  # what a trial is pruned by
    held_out = files.merge(
        cell.config, {"data": {"init_args": {"holdout": HOLDOUT}}, "trainer": scored}
    )
    preflight([cell.model_copy(update={"config": held_out})])
    spaces = space(cell)
    store = Store(folder, wait_s=WAIT_S)
    store.require_writable()
    store.require_active([f"{cell.suite}-tune"])
    title = f"{cell.task}/{cell.host}/{cell.operator}/{digest([held_out, dump(spaces)])[:12]}"
    share = Share(cell, held_out, spaces, title, store.folder, trials)
    outcome = carry_out(share, store, executor, before, ended)
    path = out or store.folder / "tuned" / f"{cell.task}-{cell.host}-{cell.operator}.yaml"
    board = board_of(name, choice, cell)
    seeds = choice.seeds or board.seeds or load_suite(name).seeds
    tuning = Tuning(study=title, trials=outcome.trials)
    write(path, board, cell, outcome.params, tuning, seeds)
    store.keep(outcome.run_id, path)
    store.end(outcome.run_id)
    return Tuned(path, outcome.best, outcome.complete)


def write(
    path: Path,
    board: BoardConfig,
    cell: Cell,
    params: Mapping[str, Any],
    tuning: Tuning,
    seeds: Sequence[int],
) -> None:
    """Write a suite of one board: the tuned operator beside the default one and the baseline.

    All have the same seeds, and the cells of the last two are those of the original suite, so that
    `convboard run` runs the tuned ones alone where the others are done.

    Args:
        path: the file to write.
        board: on which the cell stands, with what the command line laid over it.
        cell: what was tuned.
        params: of the best trial.
        tuning: its study.
        seeds: of the original suite.
    """
    settings: dict[str, Any] = {}
    options = dict(cell.operator_config.options)
    for name, value in drawn(space(cell), params).items():
        if ".options." in name:
            options[name.rpartition(".")[2]] = value
        else:
            put(settings, name, value)
    tuned = cell.operator_config.model_copy(
        update={
            "label": f"{cell.operator}-tuned",
            "options": options,
            "tune": {},
            "set": settings,
            "tuned": tuning,
        }
    )
    by_label = {load_operator(operator).label: operator for operator in board.operators}
    default = by_label.get(cell.operator, cell.operator_config)
    others = [default] if cell.baseline else [by_label[board.baseline], default]
    hosts = [load_host(host) for host in board.hosts]
    host = next((h for h in hosts if h.label == cell.host), None) or load_host(cell.host)
    changes = {"hosts": [host], "operators": [*others, tuned], "seeds": None}
    suite = {
        "name": path.stem,
        "description": f"{cell.operator} tuned on {cell.task} in {cell.host}",
        "seeds": list(seeds),
        "boards": [board.model_copy(update=changes).model_dump(mode="json", exclude_defaults=True)],
    }
    write_whole(path, yaml.safe_dump(suite, sort_keys=False))
