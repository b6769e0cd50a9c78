"""Tuning: an Optuna study for an arm of a board, on a split held out of the training set."""

from bench.run.tune.arm import Arm, Tuned, arm_of, tune
from bench.run.tune.study import Search

__all__ = ["Arm", "Search", "Tuned", "arm_of", "tune"]
