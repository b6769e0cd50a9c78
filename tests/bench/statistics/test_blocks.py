"""The block design against textbook formulas, statsmodels and values by hand."""

import math
import warnings

import numpy as np
import pytest
from scipy import stats as reference

from bench.statistics.blocks import Blocks, design

HOLES = {
    "a": {0: 0.81, 1: 0.84, 2: 0.80},
    "b": {0: 0.79, 2: 0.82},
    "c": {1: 0.77},
    "d": {0: 0.85, 1: 0.83, 2: 0.9},
    "e": {2: 0.71, 3: 0.74},
}


def test_two_arms_in_the_block_design_are_the_paired_t_test():
    a, b = [0.81, 0.84, 0.80, 0.86], [0.80, 0.81, 0.79, 0.80]
    difference = Blocks({"a": dict(enumerate(a)), "b": dict(enumerate(b))}).difference("a", "b")
    expected = reference.ttest_rel(a, b)
    bounds = expected.confidence_interval()
    assert difference.p == pytest.approx(expected.pvalue)
    assert (difference.interval.low, difference.interval.high) == pytest.approx(
        (bounds.low, bounds.high)
    )


def test_balanced_block_design_against_the_textbook_sums_of_squares():
    y = np.random.default_rng(0).normal(size=(5, 3)) + np.arange(5)[:, None]
    blocks = Blocks({str(a): dict(enumerate(row)) for a, row in enumerate(y)})
    residual = y - y.mean(1, keepdims=True) - y.mean(0, keepdims=True) + y.mean()
    mean_square = (residual**2).sum() / (4 * 2)
    assert blocks.freedom == 8
    assert blocks.sd == pytest.approx(math.sqrt(mean_square))
    difference = blocks.difference("3", "1")
    half = reference.t.ppf(0.975, 8) * math.sqrt(2 * mean_square / 3)
    assert difference.value == pytest.approx(y[3].mean() - y[1].mean())
    assert difference.interval.high - difference.value == pytest.approx(half)


def test_missing_seed_takes_the_seed_effect_out():
    # seed 1 is worth 0.1; the arm that lacks it is not worse for that
    scores = {"a": {0: 0.5, 1: 0.6}, "b": {0: 0.5}, "c": {0: 0.4, 1: 0.5}}
    blocks = Blocks(scores)
    assert blocks.difference("b", "a").value == pytest.approx(0.0)
    assert blocks.difference("b", "c").value == pytest.approx(0.1)


def test_arms_without_a_chain_of_shared_seeds_have_no_difference():
    blocks = Blocks({"a": {0: 0.5}, "b": {1: 0.6}, "c": {0: 0.4}})
    assert blocks.difference("a", "b") is None
    assert blocks.difference("a", "c").value == pytest.approx(0.1)


def test_no_residual_at_all_is_certainty():
    scores = {"a": {0: 0.5, 1: 0.6}, "b": {0: 0.5, 1: 0.6}, "c": {0: 0.3, 1: 0.4}}
    blocks = Blocks(scores)
    assert blocks.difference("a", "b").p == 1.0
    assert blocks.difference("a", "c").p == 0.0


def test_arms_without_scores_do_not_count():
    assert Blocks({"a": {}, "b": {0: 1.0, 1: 1.1}}).arms == ["b"]
    assert Blocks({}).detectable() is None
    assert Blocks({}).groups() == []


def test_fitted_means_take_a_hard_seed_out():
    # by the plain means, 0.7 and 0.6, the better arm would be the worse
    blocks = Blocks({"a": {0: 0.9, 1: 0.5}, "b": {1: 0.6}})
    assert blocks.mean("a") == pytest.approx(0.7)
    assert blocks.mean("b") == pytest.approx(0.8)


def test_without_holes_fitted_means_are_plain_ones_with_the_pooled_interval():
    y = np.random.default_rng(0).normal(size=(5, 3))
    blocks = Blocks({str(arm): dict(enumerate(row)) for arm, row in enumerate(y)})
    for arm, row in enumerate(y):
        interval = blocks.mean_interval(str(arm))
        assert interval.value == pytest.approx(row.mean())
        half = reference.t.ppf(0.975, 8) * blocks.sd / math.sqrt(3)
        assert interval.high - interval.value == pytest.approx(half)
        assert "residual of the board with 8 degrees of freedom" in interval.method


def test_the_interval_of_an_arm_is_cut_at_the_metrics_range():
    scores = {"a": {0: 0.99, 1: 0.98}, "b": {0: 0.5, 1: 0.9}, "c": {0: 0.01, 1: 0.02}}
    blocks = Blocks(scores)
    high, low = blocks.mean_interval("a", (0, 1)), blocks.mean_interval("c", (0, 1))
    assert (high.high, low.low) == (1, 0)
    assert 0 < high.low < high.value
    assert "cut at the metric's range" in high.method
    assert blocks.mean_interval("a").high > 1


def test_one_seed_gives_means_without_intervals():
    blocks = Blocks({"a": {0: 0.9}, "b": {0: 0.1}})
    assert blocks.difference("a", "b").interval is None
    assert blocks.mean_interval("a") is None
    assert blocks.detectable() is None


def test_groups_are_what_shared_seeds_link():
    scores = {"a": {0: 1, 1: 1}, "b": {1: 1, 2: 1}, "c": {2: 1}, "d": {7: 1, 8: 1}, "e": {8: 1}}
    blocks = Blocks(scores)
    assert blocks.groups() == [["a", "b", "c"], ["d", "e"]]
    assert blocks.freedom == 8 - (5 + 5 - 2)


def test_boards_of_one_shape_share_a_design():
    first = Blocks({"x": {0: 0.1, 1: 0.2}, "y": {0: 0.3}})
    second = Blocks({"p": {0: 0.5, 1: 0.9}, "q": {0: 0.8}})
    assert first.design is second.design
    assert design.cache_info().hits


def statsmodels_fit(scores):
    """The same model by ordinary least squares with dummies, the first arm and seed left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # statsmodels' own, while it is imported
        import statsmodels.api as sm

    arms = sorted(scores)
    seeds = sorted({seed for by_seed in scores.values() for seed in by_seed})
    cells = [(arm, seed) for arm in arms for seed in scores[arm]]

    def row(arm, seed):
        return [1.0, *(float(arm == a) for a in arms[1:]), *(float(seed == s) for s in seeds[1:])]

    fit = sm.OLS([scores[a][s] for a, s in cells], [row(*cell) for cell in cells]).fit()
    means = {arm: np.mean([row(arm, seed) for seed in seeds], axis=0) for arm in arms}
    return fit, means


@pytest.mark.parametrize("whole", [True, False])
def test_means_contrasts_and_their_intervals_equal_statsmodels(whole):
    y = np.random.default_rng(3).normal(0.8, 0.02, size=(6, 3))
    balanced = {f"arm{a}": dict(enumerate(map(float, row))) for a, row in enumerate(y)}
    scores = balanced if whole else HOLES
    blocks = Blocks(scores)
    fit, means = statsmodels_fit(scores)
    assert blocks.freedom == fit.df_resid
    assert blocks.sd == pytest.approx(math.sqrt(fit.mse_resid), abs=1e-9)
    for arm, combination in means.items():
        test = fit.t_test(combination)
        interval = blocks.mean_interval(arm)
        assert interval.value == pytest.approx(test.effect.item(), abs=1e-9)
        assert [interval.low, interval.high] == pytest.approx(test.conf_int().ravel(), abs=1e-9)
        for other in means.keys() - {arm}:
            test = fit.t_test(combination - means[other])
            difference = blocks.difference(arm, other)
            interval = difference.interval
            assert difference.value == pytest.approx(test.effect.item(), abs=1e-9)
            assert difference.p == pytest.approx(test.pvalue.item(), abs=1e-9)
            assert [interval.low, interval.high] == pytest.approx(test.conf_int().ravel(), abs=1e-9)
