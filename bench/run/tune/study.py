"""How a study searches: its sampler and pruner by name, its budget, its best trials."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from bench.errors import UserError, near

STARTUP = 5
"""Trials drawn at random before a sampler learns from those that there are."""
DEFAULT = "default"
"""Attribute of the trial that runs the recipe as it is."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
"""States of the trials that count."""
Direction = Literal["maximize", "minimize"]
OBJECTIVES = ("accuracy", "time")
_SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=STARTUP, constant_liar=True
    ),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP),
    "cmaes": lambda seed: optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=STARTUP),
    "nsgaii": lambda seed: optuna.samplers.NSGAIISampler(seed=seed),
}
_PRUNERS: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
    "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
    "percentile": lambda: optuna.pruners.PercentilePruner(
        25.0, n_startup_trials=4, n_warmup_steps=1
    ),
    "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(),
    "hyperband": lambda: optuna.pruners.HyperbandPruner(),
    "none": lambda: optuna.pruners.NopPruner(),
}


@dataclass(frozen=True)
class Search:
    """How every arm is searched: the same for all that are compared.

    Attributes:
        trials: in each study, in all; those that were pruned count.
        sampler: tpe, random, gp, cmaes or nsgaii, as Optuna has them.
        pruner: median, percentile, halving, hyperband or none; None for median, or for none where
            there are two objectives, which Optuna does not prune.
        objectives: "accuracy", and "time" beside it.

    Raises:
        UserError: a value that is none of these.

    Example:
        >>> Search(sampler="tpa")
        Traceback (most recent call last):
            ...
        bench.errors.UserError: `--sampler` (='tpa') is not known; did you mean 'tpe'?
    """

    trials: int = 20
    sampler: str = "tpe"
    pruner: str | None = None
    objectives: tuple[str, ...] = ("accuracy",)

    def __post_init__(self) -> None:
        """Check the values, before anything is started."""
        if self.trials < 1:
            raise UserError(f"`--trials` (={self.trials}) must be at least 1.")
        given = ",".join(self.objectives)
        for name in self.objectives:
            _require_known("--objectives", name, OBJECTIVES)
        if self.objectives not in (("accuracy",), OBJECTIVES):
            raise UserError(f"`--objectives` (={given!r}) must be accuracy, or accuracy,time.")
        _require_known("--sampler", self.sampler, _SAMPLERS)
        if self.pruner is not None:
            _require_known("--pruner", self.pruner, _PRUNERS)
        if len(self.objectives) > 1:
            if self.pruner not in (None, "none"):
                raise UserError(
                    f"`--pruner` (={self.pruner!r}) must be none with `--objectives {given}`: "
                    "Optuna prunes by one objective."
                )
            if self.sampler == "cmaes":
                raise UserError(
                    f"`--sampler` (='cmaes') must be another with `--objectives {given}`: CMA-ES "
                    "has one objective."
                )
        if self.sampler == "cmaes" and find_spec("cmaes") is None:
            raise UserError("`--sampler` (='cmaes') needs a package: pip install cmaes.")

    @property
    def prunes(self) -> str:
        """Name of the pruner."""
        return self.pruner or ("median" if len(self.objectives) == 1 else "none")


def _require_known(flag: str, value: str, known: Any) -> None:
    if value not in known:
        raise UserError(f"`{flag}` (={value!r}) is not known; {near(value, known)}")


def sampler_of(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Return a sampler by its name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return _SAMPLERS[name](seed)


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count: those that are complete, and those that were pruned."""
    return study.get_trials(deepcopy=False, states=ENDED)


def failed(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that failed; those that were cut off did not."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    return [trial for trial in trials if "error" in trial.user_attrs]


def pruner_of(name: str) -> optuna.pruners.BasePruner:
    """Return a pruner by its name."""
    return _PRUNERS[name]()


def best(study: optuna.Study) -> list[FrozenTrial]:
    """Return the best trial, or those that none beats in both objectives, of equals one.

    Of equals it is the default, and else the first.
    """
    trials = sorted(study.best_trials, key=lambda t: (not t.user_attrs.get(DEFAULT), t.number))
    if len(study.directions) == 1:
        return trials[:1]
    unlike: dict[tuple[float, ...], FrozenTrial] = {}
    for trial in trials:
        unlike.setdefault(tuple(trial.values), trial)
    return list(unlike.values())
