"""Ranks, letters and Holm's adjustment, by hand and against statsmodels."""

import itertools
import warnings

import numpy as np
import pytest

from bench.statistics.blocks import Blocks
from bench.statistics.letters import letters
from bench.statistics.ranks import compared, holm, ranks


def scored(draw, means, seeds, noise):
    blocks = draw.normal(scale=0.02, size=seeds)
    return {
        str(arm): {s: mean + blocks[s] + draw.normal(scale=noise) for s in range(seeds)}
        for arm, mean in enumerate(means)
    }


def ranked(scores, higher=True, arms=None):
    blocks = Blocks(scores)
    return ranks(blocks, higher, compared(blocks, higher, arms))


@pytest.mark.parametrize("higher", [True, False])
def test_places_are_by_the_means_and_letters_by_the_tests(higher):
    sign = 1 if higher else -1
    values = {"a": 0.9, "b": 0.899, "c": 0.7, "d": 0.5, "e": 0.501}
    noise = dict(zip(values, [0.001, -0.001, 0.0005, -0.0005, 0.0], strict=True))
    scores = {
        arm: {s: sign * (value + (noise[arm] if s else -noise[arm])) for s in (0, 1)}
        for arm, value in values.items()
    }
    places = ranked(scores, higher)
    assert {arm: (r.place, r.best, r.worst, r.letters) for arm, r in places.items()} == {
        "a": (1, 1, 2, "a"),
        "b": (2, 1, 2, "a"),
        "c": (3, 3, 3, "b"),
        "e": (4, 4, 5, "c"),
        "d": (5, 4, 5, "c"),
    }
    assert [arm for arm, rank in places.items() if not rank.tied] == ["c"]


def test_equal_means_share_a_place():
    places = ranked({arm: {0: 0.5, 1: 0.7} for arm in "ab"} | {"c": {0: 0.1, 1: 0.2}})
    assert [rank.place for rank in places.values()] == [1, 1, 3]


def test_ranks_do_not_depend_on_the_order_of_arms():
    scores = scored(np.random.default_rng(5), [0.8, 0.81, 0.7], 3, 0.01)
    expected = ranked(scores)
    for order in itertools.permutations(scores):
        assert ranked({arm: scores[arm] for arm in order}) == expected


def test_the_order_is_that_of_the_fitted_means():
    # b is better by 0.1 on the one seed that both have; its plain mean is lower
    assert list(ranked({"a": {0: 0.9, 1: 0.5}, "b": {1: 0.6}})) == ["b", "a"]


def test_one_seed_is_one_tie():
    places = ranked({"a": {0: 0.9}, "b": {0: 0.1}})
    assert {(r.best, r.worst, r.letters) for r in places.values()} == {(1, 2, "a")}
    assert ranked({}) == {}


def test_only_linked_arms_are_ranked():
    scores = {"a": {0: 0.5, 1: 0.52}, "b": {0: 0.4, 1: 0.43}, "c": {7: 0.9, 8: 0.9}}
    assert set(ranked(scores)) == {"a", "b"}
    assert set(ranked(scores, arms=["c"])) == {"c"}


@pytest.mark.parametrize("count", [2, 5, 9, 30])
def test_arms_share_a_letter_exactly_where_they_are_not_apart(count):
    draw = np.random.default_rng(count)
    order = [str(arm) for arm in range(count)]
    # arms far apart in the order are apart, near ones rarely
    apart = {
        (order[i], order[j])
        for i, j in itertools.combinations(range(count), 2)
        if j - i > 1 + draw.integers(0, max(2, count // 3))
    }
    shown = letters(order, apart)
    for pair in itertools.combinations(order, 2):
        assert bool(set(shown[pair[0]]) & set(shown[pair[1]])) == (pair not in apart)
    assert shown == letters(order, sorted(apart, reverse=True))
    assert shown["0"].startswith("a")


def test_more_groups_than_letters_have_numbers():
    order = [f"{arm:03}" for arm in range(60)]
    shown = letters(order, set(itertools.combinations(order, 2)))
    assert (shown["000"], shown["051"], shown["052"]) == ("a", "Z", "a1")


def test_holm_by_hand():
    # ×4, ×3, ×2, ×1 in the order of p, never falling, at most 1
    assert holm([0.005, 0.04, 0.03, 0.5]) == pytest.approx([0.02, 0.09, 0.09, 0.5])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_equals_statsmodels():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # statsmodels' own, while it is imported
        from statsmodels.stats.multitest import multipletests

    for count in (1, 2, 7, 40):
        p = np.random.default_rng(count).uniform(size=count) ** 3
        expected = multipletests(p, method="holm")[1]
        assert holm(p.tolist()) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("arms", [2, 3, 9, 40])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_detectable_difference_is_finite_for_any_board(arms, seeds):
    blocks = Blocks(scored(np.random.default_rng(4), [0.8] * arms, seeds, 0.01))
    assert 0 < blocks.detectable() < blocks.detectable(0.001) < 30
    assert blocks.detectable(seeds=seeds) == pytest.approx(blocks.detectable())
    assert blocks.detectable(seeds=seeds + 1) < blocks.detectable()


def test_drawn_means_have_the_distribution_of_the_tests():
    holes = {"a": {0: 0.81, 1: 0.84, 2: 0.80}, "b": {0: 0.79, 2: 0.82}, "c": {1: 0.77, 2: 0.76}}
    blocks = Blocks(holes)
    drawn = blocks.draw(100_000, np.random.default_rng(0))
    for of, to in itertools.permutations(range(3), 2):
        difference = blocks.difference(blocks.arms[of], blocks.arms[to])
        low, high = np.quantile(drawn[:, of] - drawn[:, to], [0.025, 0.975])
        width = difference.interval.high - difference.interval.low
        assert low == pytest.approx(difference.interval.low, abs=0.03 * width)
        assert high == pytest.approx(difference.interval.high, abs=0.03 * width)
