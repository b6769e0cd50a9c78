"""The statistics against scipy, hand-computed values and simulation."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats as reference

from leaderboard.stats import Blocks, holm, mean_interval, paired_interval, ranks


def test_mean_interval_is_students_t():
    values = [0.812, 0.845, 0.829, 0.801]
    found = mean_interval(values)
    low, high = reference.t.interval(0.95, 3, loc=np.mean(values), scale=reference.sem(values))
    assert found.value == pytest.approx(np.mean(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.method == "t over 4 seeds"


def test_mean_interval_of_two_by_hand():
    # t(0.975, 1) = 12.7062; s = 0.02 / √2; half = t · s / √2
    found = mean_interval([0.80, 0.82])
    assert found.high - found.value == pytest.approx(12.7062 * 0.01, rel=1e-5)


@pytest.mark.parametrize("values", [[], [0.5]])
def test_no_interval_from_fewer_than_two(values):
    assert mean_interval(values) is None


def test_paired_interval_is_the_paired_t_interval_over_shared_seeds():
    of, to = {0: 0.81, 1: 0.84, 2: 0.80, 7: 0.1}, {2: 0.79, 1: 0.81, 0: 0.80, 5: 0.9}
    found = paired_interval(of, to)
    expected = reference.ttest_rel([0.81, 0.84, 0.80], [0.80, 0.81, 0.79]).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_two_arms_in_the_block_design_are_the_paired_t_test():
    a, b = [0.81, 0.84, 0.80, 0.86], [0.80, 0.81, 0.79, 0.80]
    found = Blocks({"a": dict(enumerate(a)), "b": dict(enumerate(b))}).difference("a", "b")
    expected = reference.ttest_rel(a, b)
    bounds = expected.confidence_interval()
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.interval.low, found.interval.high) == pytest.approx((bounds.low, bounds.high))


def test_balanced_block_design_against_the_textbook_sums_of_squares():
    y = np.random.default_rng(0).normal(size=(5, 3)) + np.arange(5)[:, None]
    fit = Blocks({str(a): dict(enumerate(row)) for a, row in enumerate(y)})
    residual = y - y.mean(1, keepdims=True) - y.mean(0, keepdims=True) + y.mean()
    mean_square = (residual**2).sum() / (4 * 2)
    assert fit.freedom == 8
    assert fit.sd == pytest.approx(math.sqrt(mean_square))
    found = fit.difference("3", "1")
    half = reference.t.ppf(0.975, 8) * math.sqrt(2 * mean_square / 3)
    assert found.value == pytest.approx(y[3].mean() - y[1].mean())
    assert found.interval.high - found.value == pytest.approx(half)


def test_missing_seed_takes_the_seed_effect_out():
    # seed 1 is worth 0.1; the arm that lacks it is not worse for that
    scores = {"a": {0: 0.5, 1: 0.6}, "b": {0: 0.5}, "c": {0: 0.4, 1: 0.5}}
    fit = Blocks(scores)
    assert fit.difference("b", "a").value == pytest.approx(0.0)
    assert fit.difference("b", "c").value == pytest.approx(0.1)


def test_arms_without_a_chain_of_shared_seeds_have_no_difference():
    fit = Blocks({"a": {0: 0.5}, "b": {1: 0.6}, "c": {0: 0.4}})
    assert fit.difference("a", "b") is None
    assert fit.difference("a", "c").value == pytest.approx(0.1)


def test_one_seed_gives_values_without_intervals_and_one_tie():
    scores = {"a": {0: 0.9}, "b": {0: 0.1}}
    fit = Blocks(scores)
    assert fit.difference("a", "b").interval is None
    assert fit.detectable() is None
    found = ranks(scores, {"a": 0.9, "b": 0.1}, True)
    assert {(rank.place, rank.tied) for rank in found.values()} == {(1, True)}


def test_arms_without_scores_do_not_count():
    assert Blocks({"a": {}, "b": {0: 1.0, 1: 1.1}}).arms == ["b"]
    assert Blocks({}).detectable() is None
    assert ranks({}, {}, True) == {}


def test_no_residual_at_all_is_certainty():
    scores = {"a": {0: 0.5, 1: 0.6}, "b": {0: 0.5, 1: 0.6}, "c": {0: 0.3, 1: 0.4}}
    fit = Blocks(scores)
    assert fit.difference("a", "b").p == 1.0
    assert fit.difference("a", "c").p == 0.0


def test_holm_by_hand():
    # ×4, ×3, ×2, ×1 in the order of p, never falling, at most 1
    assert holm([0.005, 0.04, 0.03, 0.5]) == pytest.approx([0.02, 0.09, 0.09, 0.5])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def scored(draw, means, seeds, noise):
    blocks = draw.normal(scale=0.02, size=seeds)
    return {
        str(arm): {s: mean + blocks[s] + draw.normal(scale=noise) for s in range(seeds)}
        for arm, mean in enumerate(means)
    }


def means_of(scores):
    return {arm: float(np.mean(list(by_seed.values()))) for arm, by_seed in scores.items()}


def test_equal_arms_are_separated_in_at_most_five_percent():
    draw = np.random.default_rng(1)
    wrong = 0
    for _ in range(300):
        scores = scored(draw, [0.8] * 5, 3, 0.01)
        wrong += any(r.place > 1 for r in ranks(scores, means_of(scores), True).values())
    assert wrong / 300 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


def test_contrast_covers_the_truth_with_two_seeds():
    draw = np.random.default_rng(2)
    covered = 0
    for _ in range(600):
        fit = Blocks(scored(draw, [0.8, 0.83, 0.7, 0.75], 2, 0.01))
        interval = fit.difference("1", "0").interval
        covered += interval.low <= 0.03 <= interval.high
    assert covered / 600 == pytest.approx(0.95, abs=3 * math.sqrt(0.05 * 0.95 / 600))


def test_detectable_difference_is_found_four_times_out_of_five():
    draw = np.random.default_rng(3)
    sd, seeds, arms = 0.01, 3, 4
    freedom = (arms - 1) * (seeds - 1)
    fit = Blocks(scored(draw, [0.8] * arms, seeds, sd))
    truth = fit.detectable() / fit.sd * sd
    found = 0
    for _ in range(600):
        trial = Blocks(scored(draw, [0.8 + truth, *[0.8] * (arms - 1)], seeds, sd))
        assert trial.freedom == freedom
        found += trial.difference("0", "1").p < 0.05
    assert found / 600 == pytest.approx(0.8, abs=3 * math.sqrt(0.16 / 600))


@pytest.mark.parametrize("freedom_arms", [2, 3, 9, 40])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_detectable_difference_is_finite_for_any_board(freedom_arms, seeds):
    fit = Blocks(scored(np.random.default_rng(4), [0.8] * freedom_arms, seeds, 0.01))
    assert 0 < fit.detectable() < 1


@pytest.mark.parametrize("higher", [True, False])
def test_ranks_group_and_bound_places(higher):
    sign = 1 if higher else -1
    values = {"a": 0.9, "b": 0.899, "c": 0.7, "d": 0.5, "e": 0.501}
    noise = dict(zip(values, [0.001, -0.001, 0.0005, -0.0005, 0.0], strict=True))
    scores = {
        arm: {s: sign * (value + (noise[arm] if s else -noise[arm])) for s in (0, 1)}
        for arm, value in values.items()
    }
    found = ranks(scores, means_of(scores), higher)
    assert {arm: (r.place, r.tied) for arm, r in found.items()} == {
        "a": (1, True),
        "b": (1, True),
        "c": (3, False),
        "d": (4, True),
        "e": (4, True),
    }
    assert (found["a"].best, found["a"].worst) == (1, 2)
    assert (found["c"].best, found["c"].worst) == (3, 3)
    assert all(r.best <= r.place <= r.worst for r in found.values())


def test_ranks_do_not_depend_on_the_order_of_arms():
    scores = scored(np.random.default_rng(5), [0.8, 0.81, 0.7], 3, 0.01)
    means = means_of(scores)
    expected = ranks(scores, means, True)
    for order in itertools.permutations(scores):
        assert ranks({arm: scores[arm] for arm in order}, means, True) == expected
