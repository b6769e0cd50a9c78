"""Intervals over seeds against scipy and hand-computed values."""

import math

import numpy as np
import pytest
from scipy import stats as reference

from bench.record import Metric
from leaderboard.stats import bounds_of, mean_interval, paired_interval


def test_mean_interval_is_students_t():
    values = [0.812, 0.845, 0.829, 0.801]
    interval = mean_interval(values)
    low, high = reference.t.interval(0.95, 3, loc=np.mean(values), scale=reference.sem(values))
    assert interval.value == pytest.approx(np.mean(values))
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert interval.method == "t over 4 seeds"


def test_mean_interval_of_two_by_hand():
    # t(0.975, 1) = 12.7062; s = 0.02 / √2; half = t · s / √2
    interval = mean_interval([0.80, 0.82])
    assert interval.high - interval.value == pytest.approx(12.7062 * 0.01, rel=1e-5)


@pytest.mark.parametrize("values", [[], [0.5]])
def test_no_interval_from_fewer_than_two(values):
    assert mean_interval(values) is None


def test_paired_interval_is_the_paired_t_interval_over_shared_seeds():
    of, to = {0: 0.81, 1: 0.84, 2: 0.80, 7: 0.1}, {2: 0.79, 1: 0.81, 0: 0.80, 5: 0.9}
    interval = paired_interval(of, to)
    expected = reference.ttest_rel([0.81, 0.84, 0.80], [0.80, 0.81, 0.79]).confidence_interval()
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_fractions_have_bounds_and_other_units_have_none():
    assert bounds_of(Metric(value=0, unit="fraction", higher_is_better=False)) == (0, 1)
    assert bounds_of(Metric(value=0, unit="px", higher_is_better=False)) == (-math.inf, math.inf)
    assert bounds_of(None) == (-math.inf, math.inf)
