"""Ranks with ties, and Holm's adjustment, by hand and against statsmodels."""

import itertools
import warnings

import numpy as np
import pytest

from leaderboard.blocks import Blocks
from leaderboard.ranks import ranks
from leaderboard.stats import holm


def scored(draw, means, seeds, noise):
    blocks = draw.normal(scale=0.02, size=seeds)
    return {
        str(arm): {s: mean + blocks[s] + draw.normal(scale=noise) for s in range(seeds)}
        for arm, mean in enumerate(means)
    }


@pytest.mark.parametrize("higher", [True, False])
def test_ranks_group_and_bound_places(higher):
    sign = 1 if higher else -1
    values = {"a": 0.9, "b": 0.899, "c": 0.7, "d": 0.5, "e": 0.501}
    noise = dict(zip(values, [0.001, -0.001, 0.0005, -0.0005, 0.0], strict=True))
    scores = {
        arm: {s: sign * (value + (noise[arm] if s else -noise[arm])) for s in (0, 1)}
        for arm, value in values.items()
    }
    places = ranks(Blocks(scores), higher)
    assert {arm: (r.place, r.tied) for arm, r in places.items()} == {
        "a": (1, True),
        "b": (1, True),
        "c": (3, False),
        "d": (4, True),
        "e": (4, True),
    }
    assert (places["a"].best, places["a"].worst) == (1, 2)
    assert (places["c"].best, places["c"].worst) == (3, 3)
    assert all(r.best <= r.place <= r.worst for r in places.values())


def test_ranks_do_not_depend_on_the_order_of_arms():
    scores = scored(np.random.default_rng(5), [0.8, 0.81, 0.7], 3, 0.01)
    expected = ranks(Blocks(scores), True)
    for order in itertools.permutations(scores):
        assert ranks(Blocks({arm: scores[arm] for arm in order}), True) == expected


def test_the_order_is_that_of_the_fitted_means():
    # b is better by 0.1 on the one seed that both have; its plain mean is lower
    places = ranks(Blocks({"a": {0: 0.9, 1: 0.5}, "b": {1: 0.6}}), higher_is_better=True)
    assert list(places) == ["b", "a"]


def test_one_seed_is_one_tie():
    places = ranks(Blocks({"a": {0: 0.9}, "b": {0: 0.1}}), True)
    assert {(rank.place, rank.tied) for rank in places.values()} == {(1, True)}
    assert ranks(Blocks({}), True) == {}


def test_only_linked_arms_are_ranked():
    scores = {"a": {0: 0.5, 1: 0.52}, "b": {0: 0.4, 1: 0.43}, "c": {7: 0.9, 8: 0.9}}
    assert set(ranks(Blocks(scores), True)) == {"a", "b"}
    assert set(ranks(Blocks(scores), True, ["c"])) == {"c"}


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
    assert 0 < blocks.detectable() < 1
