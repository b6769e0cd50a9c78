"""When a board is decided: the rule case by case, and how often it is wrong, by simulation."""

import numpy as np
import pytest
from scipy import stats as reference

from bench.statistics.boundary import levels
from bench.statistics.decide import Plan, decide, seeds_to_settle

SEEDS = tuple(range(6))
CLEAR = {
    "a": (0.900, 0.911, 0.902, 0.905, 0.904, 0.900),
    "b": (0.901, 0.909, 0.903, 0.904, 0.905, 0.902),
    "c": (0.600, 0.612, 0.601, 0.605, 0.603, 0.601),
}


def plan(arms="abc", margin=0.01, seeds=SEEDS, **changes):
    return Plan(tuple(arms), tuple(seeds), margin, **changes)


def run(count, scores=CLEAR):
    """The first scores of every arm."""
    return {arm: dict(enumerate(values[:count])) for arm, values in scores.items()}


def test_rounds_are_of_whole_seeds_over_the_arms_in_play():
    first = decide({}, plan())
    assert (first.ended, first.best, first.rounds) == (None, None, 0)
    assert first.wanted == tuple((arm, seed) for seed in (0, 1) for arm in "abc")
    part = run(2)
    del part["b"][1]
    assert decide(part, plan()).wanted == (("b", 1),)


def test_an_arm_that_is_surely_worse_by_the_margin_runs_no_more():
    later = decide(run(2), plan(margin=0.0001))
    assert (later.stopped["c"].reason, later.stopped["c"].seeds) == ("worse", 2)
    assert 0.2 < later.stopped["c"].least < 0.3
    assert later.wanted == (("a", 2), ("b", 2))
    # it goes on without the arm, whose later scores are not looked at
    without = run(3)
    without["c"] = {0: 0.6, 1: 0.612}
    assert decide(without, plan(margin=0.0001)) == decide(run(3), plan(margin=0.0001))


def test_arms_within_the_margin_are_the_same():
    decision = decide(run(6), plan(margin=0.05))
    assert decision.ended == "same"
    assert {decision.best, *decision.same} == {"a", "b"}
    assert decision.wanted == ()


def test_one_that_is_surely_the_best_ends_it():
    scores = {**CLEAR, "b": tuple(value - 0.05 for value in CLEAR["b"])}
    decision = decide(run(6, scores), plan())
    assert (decision.ended, decision.best, decision.open) == ("best", "a", ())
    lower = decide(run(6, scores), plan(higher_is_better=False))
    assert (lower.ended, lower.best) == ("best", "c")


def test_what_stays_open_is_told_with_the_seeds_that_would_settle_it():
    draw = np.random.default_rng(0)
    scores = {arm: tuple(0.5 + draw.normal(scale=0.02, size=6)) for arm in "abc"}
    decision = decide(run(6, scores), plan(margin=0.001))
    assert (decision.ended, decision.rounds) == ("seeds", 6)
    assert decision.open
    more = seeds_to_settle(run(6, scores), plan(margin=0.001), decision)
    assert more is None or more > 6
    assert seeds_to_settle(run(6), plan(), decide(run(6), plan())) is None


def test_an_arm_that_is_beaten_on_both_axes_runs_no_more():
    scores = {**CLEAR, "b": tuple(value - 0.02 for value in CLEAR["b"])}
    wide = plan(margin=0.1)
    assert "b" not in decide(run(2, scores), wide).stopped
    beaten = decide(run(2, scores), wide, faster={("a", "b")})
    assert (beaten.stopped["b"].reason, beaten.stopped["b"].by) == ("beaten", "a")
    assert "b" not in decide(run(2, scores), wide, faster={("b", "a")}).stopped


def test_an_arm_that_fails_stops_nobody_else():
    decision = decide(run(2), plan(margin=0.0001), failed={"c"})
    assert decision.stopped["c"].reason == "failed"
    assert {arm for arm, _ in decision.wanted} == {"a", "b"}
    alone = decide(run(2), plan(), failed={"b", "c"})
    assert (alone.ended, alone.best, alone.wanted) == ("seeds", None, ())


def test_decisions_follow_from_the_scores_alone():
    states = [decide(run(count), plan(margin=0.0001)) for count in range(1, 7)]
    rounds = [state.rounds for state in states]
    assert rounds == sorted(rounds)
    ended = [state for state in states if state.ended]
    assert all(state == ended[0] for state in ended)


@pytest.mark.parametrize("wrong", [{"arms": "a"}, {"seeds": (0,)}, {"margin": 0.0}])
def test_what_cannot_be_decided_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        plan(**wrong)


# Levels, and the whole rule, by simulation.


@pytest.mark.parametrize("arms", [2, 3, 7])
def test_the_level_of_a_single_look_is_dunnetts(arms):
    (level,) = levels(arms, 2, rivals=arms - 1)
    freedom = arms - 1
    shape = 0.5 + 0.5 * np.eye(arms - 1)  # differences to one arm share its noise
    sure = reference.t.isf(level, freedom)
    none_ahead = reference.multivariate_t(shape=shape, df=freedom, seed=0)
    assert none_ahead.cdf(np.full(arms - 1, sure)) == pytest.approx(0.95, abs=0.005)


def test_levels_fall_with_rivals_and_looks():
    assert levels(7, 4)[-1] > levels(7, 8)[-1] > levels(7, 8, rivals=6)[-1]
    assert sum(levels(2, 8)) > 0.05  # looks are correlated: less is lost than by shares
    with pytest.raises(ValueError, match="at least 2"):
        levels(1, 4)
    with pytest.raises(ValueError, match="`rivals`"):
        levels(3, 4, rivals=3)


def simulated(draw, means, seeds, sd, blocks=2.0):
    y = np.asarray(means)[:, None] + draw.normal(scale=blocks, size=seeds)
    y = y + draw.normal(scale=sd, size=(len(means), seeds))
    return {str(arm): dict(enumerate(row.tolist())) for arm, row in enumerate(y)}


def wrong_and_cells(means, *, boards, seeds=10, sd=1.0, margin=1.0, draw=0):
    """How often a wrong winner, or a wrong tie, is named; how often any is; cells; last rounds.

    A winner is wrong where another arm is truly better. A tie is wrong where an arm that is truly
    better than all of it by more than the margin is not in it, or where two arms in it differ
    truly by the margin or more from the one that leads.
    """
    means = np.asarray(means, dtype=float)
    design = Plan(tuple(map(str, range(len(means)))), tuple(range(seeds)), margin)
    rng = np.random.default_rng(draw)
    wrong = decided = cells = rounds = 0
    for _ in range(boards):
        scores = simulated(rng, means, seeds, sd)
        decision = decide(scores, design)
        decided += decision.ended in ("best", "same")
        rounds += decision.rounds
        cells += sum(
            decision.stopped[arm].seeds if arm in decision.stopped else decision.rounds
            for arm in design.arms
        )
        if decision.ended in ("best", "same"):
            best = means[int(decision.best)]
            if decision.ended == "best":
                wrong += bool(best < means.max())
            else:
                same = [abs(means[int(arm)] - best) >= margin for arm in decision.same]
                kept = {decision.best, *decision.same}
                lost = [m > best for a, m in enumerate(means) if str(a) not in kept]
                wrong += any(same) or any(lost)
    return wrong / boards, decided / boards, cells / boards, rounds / boards


TRUTHS = {
    "near ties": [0, 0, 0, 0.2, -0.2, 0.1, 0.3],
    "one best": [2.5, 0, 0, -1, -2, 1, 0.5],
    "spread": [0, -1, -2, -3, -4, 1, 2],
}


@pytest.mark.parametrize("truth", TRUTHS)
def test_the_winner_named_is_wrong_at_most_five_percent_of_the_time(truth):
    boards = 40
    wrong, *_ = wrong_and_cells(TRUTHS[truth], boards=boards, seeds=6, draw=3)
    assert wrong <= 0.05 + 2.6 * (0.05 * 0.95 / boards) ** 0.5
