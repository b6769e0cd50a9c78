"""The card of a board: what it says, case by case, and how often that is wrong."""

import math
import random
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from leaderboard import draws
from leaderboard.board import boards
from leaderboard.fitted import fitted
from leaderboard.standing import standing

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py"))))


def timed(label, relative, *, noise="stable", spread=0.0005, **changes):
    """A time of the backbone in five processes, so steady that a per cent can be told."""
    draw = random.Random(label)
    record = make.speed(make.entry(label, form="fused", task="backbone"), relative, **changes)
    times = [[4 * relative * math.exp(draw.gauss(0, spread))] * 20 for _ in range(5)]
    update = {"samples_ms": times, "baseline_samples_ms": [[4.0] * 20] * 5, "noise": noise}
    return record.model_copy(update={"speed": record.speed.model_copy(update=update)})


def scores(values, **changes):
    """Records of arms with a score a seed; None is a seed that was not run."""
    return [
        make.accuracy(make.entry(label), seed, value, **changes)
        for label, by_seed in values.items()
        for seed, value in enumerate(by_seed)
        if value is not None
    ]


def text(*records):
    (board,) = boards(records)
    return standing(board).card.text


CLEAR = {
    "dw7": (0.840, 0.850, 0.842),
    "acb": (0.890, 0.901, 0.891),
    "shift": (0.889, 0.899, 0.893),
    "conv3": (0.800, 0.812, 0.803),
}
NEAR = {"dw7": (0.84, 0.86), "acb": (0.85, 0.84), "shift": (0.83, 0.85)}


def test_a_clear_board():
    times = [timed("dw7", 1.0), timed("acb", 1.0004), timed("shift", 1.904), timed("conv3", 0.9)]
    assert text(*scores(CLEAR), *times) == (
        "acb: +5.00 points over dw7 [4.81, 5.19] at the same speed. "
        "Nothing is surely better than acb; shift (1.9× the time of dw7) can't be told from it. "
        "conv3 is surely worse than acb."
    )


def test_of_two_that_may_be_as_good_the_answer_is_about_the_one_that_is_much_faster():
    turned = {**CLEAR, "shift": CLEAR["acb"], "acb": CLEAR["shift"]}
    times = [timed("dw7", 1.0), timed("acb", 1.0004), timed("conv3", 0.9)]
    assert text(*scores(turned), *times, timed("shift", 1.904)) == (
        "acb: +4.97 points over dw7 [4.78, 5.16] at the same speed. Nothing is surely better than "
        "acb; shift (the best mean, 1.9× the time of dw7) can't be told from it. "
        "conv3 is surely worse than acb."
    )
    little = text(*scores(turned), *times, timed("shift", 1.08))
    assert little.startswith("shift: +5.00 points over dw7 [4.81, 5.19] at 1.08× its time. ")
    unsteady = text(*scores(turned), *times, timed("shift", 1.904, noise="unstable"))
    assert unsteady.startswith("shift: +5.00 points over dw7")


def test_nothing_surely_better_than_the_baseline():
    said = text(*scores(NEAR), timed("dw7", 1.0), timed("acb", 0.8), timed("shift", 1.904))
    assert said == (
        "Nothing is surely better than dw7, the baseline, with 85.00 %. "
        "acb (0.80× the time of dw7) and shift (1.9×) can't be told from dw7."
    )
    better = {**NEAR, "acb": (0.856, 0.862)}
    said = text(*scores(better), timed("dw7", 1.0), timed("acb", 0.8), timed("shift", 1.904))
    assert said.startswith(
        "Nothing is surely better than dw7, the baseline. acb has the best mean at 0.80× dw7's "
        "time: +0.9 points against dw7 [−1.6, 3.4], which may be chance. "
    )


def test_a_baseline_that_shares_the_best_mean_leads():
    equal = {"dw7": (0.84, 0.86), "acb": (0.86, 0.84)}
    said = text(*scores(equal), timed("dw7", 1.0), timed("acb", 1.2))
    assert said == (
        "Nothing is surely better than dw7, the baseline, with 85.00 %. "
        "acb (1.2× the time of dw7) can't be told from dw7."
    )


def test_without_times():
    said = text(*scores(CLEAR))
    assert said.startswith("acb: +5.00 points over dw7 [4.81, 5.19]. Nothing is surely")
    assert said.endswith("Nothing was timed.")
    assert text(*scores(CLEAR), timed("dw7", 1.0), timed("acb", 1.3)).endswith(
        "shift and conv3 were not timed."
    )


def test_unstable_times_are_not_judged():
    times = [timed("dw7", 1.0), timed("acb", 0.5, noise="unstable"), timed("shift", 1.9)]
    (board,) = boards([*scores(CLEAR), *times])
    card = standing(board).card
    assert "[4.81, 5.19] at a speed that is not clear." in card.text
    names = {row.key: row.label for row in board.rows}
    assert {(names[c.of], c.relation) for c in card.claims if c.relation != "better"} == {
        ("shift", "slower")
    }


def test_one_arm_alone():
    assert text(*scores({"acb": (0.88, 0.89)})) == (
        "acb alone has a score, 88.50 %: there is nothing to compare it with."
    )


def test_without_a_baseline_there_are_no_contrasts():
    rest = {label: CLEAR[label] for label in ("acb", "shift", "conv3")}
    assert text(*scores(rest), timed("acb", 1.0)) == (
        "acb has the best mean, 89.40 %. Nothing is surely better than acb; shift can't be told "
        "from it. conv3 is surely worse than acb. There is no time of a baseline to "
        "compare times with."
    )


def test_too_few_seeds():
    one = {label: values[:1] for label, values in CLEAR.items()}
    assert text(*scores(one)) == (
        "The seeds are too few to tell any two operators apart. acb has the best mean: +5.0 points "
        "against dw7, which may be chance. Nothing was timed."
    )
    one["dw7"] = (0.95,)
    assert text(*scores(one)).startswith(
        "The seeds are too few to tell any two operators apart. dw7, the baseline, has the best"
    )


def test_failed_unfit_unlinked_and_stale_arms_are_told():
    lost = make.failure(make.entry("huge"), 0, status="oom")
    unfit = make.failure(make.entry("odd"), 0, status="unsupported")
    far = make.accuracy(make.entry("far"), 9, 0.99)
    code = make.entry("shift", form="fused", task="backbone", operator_sha256="new")
    newer = make.speed(code, 1.9, provenance=make.provenance("2026-11-23T00:00:00"))
    said = text(*scores(CLEAR), lost, unfit, far, newer)
    assert "huge failed. odd does not fit the host. far shares no seeds with the others." in said
    assert said.endswith("shift rests on older code.")
    assert text(lost, unfit) == "huge failed. odd does not fit the host."


def test_of_many_arms_only_the_number_is_told():
    many = {f"a{i}": (0.85 + i / 1000, 0.86, 0.85) for i in range(6)}
    said = text(*scores({"dw7": (0.85, 0.86, 0.851), **many}))
    assert any(f"{count} other operators can't be told from" in said for count in ("Six", "Five"))


def test_four_others_are_told_with_their_times():
    few = {f"a{i}": (0.85 + i / 1000, 0.86, 0.85) for i in range(5)}
    times = [timed(label, 1.5) for label in few]
    said = text(*scores({"dw7": (0.85, 0.86, 0.851), **few}), timed("dw7", 1.0), *times)
    assert "a4 has the best mean at 1.5× dw7's time" in said
    assert "(1.5× the time of dw7)" in said
    assert said.count("1.5×") == 5


def test_the_best_mean_is_that_of_the_first_row():
    # of the arms that are surely better, acb has the best mean; few has a better one of one seed
    values = {**CLEAR, "few": (0.897, None, None)}
    (board,) = boards(scores(values))
    first = board.rows[0].label
    times = [timed("dw7", 1.0), timed("acb", 1.0), timed("few", 1.0), timed("shift", 1.9)]
    said = text(*scores(values), *times)
    assert first == "few"
    assert "few (the best mean" in said or said.startswith("few:")
    assert "acb (the best mean" not in said


def test_an_interval_without_zero_may_be_chance_once_all_pairs_are_compared():
    near = {
        "dw7": (0.8528, 0.8558, 0.8680),
        "acb": (0.8588, 0.8646, 0.8775),
        "a0": (0.8515, 0.8585, 0.8671),
        "a1": (0.8516, 0.8640, 0.8691),
        "a2": (0.8500, 0.8659, 0.8693),
        "a3": (0.8495, 0.8682, 0.8664),
        "a4": (0.8534, 0.8550, 0.8692),
    }
    said = text(*scores(near))
    assert "points against dw7 [0." in said
    assert "acb has the best mean" in said
    assert "which may be chance once all pairs are compared." in said


def test_less_is_better_in_some_metrics():
    metric = make.SCORED.accuracy.metrics["top1"]
    worse = {"unit": "px", "higher_is_better": False}

    def turned(record):
        metrics = {**record.accuracy.metrics}
        metrics["top1"] = metric.model_copy(
            update={"value": 10 * (1 - record.accuracy.metrics["top1"].value), **worse}
        )
        return record.model_copy(
            update={"accuracy": record.accuracy.model_copy(update={"metrics": metrics})}
        )

    assert text(*map(turned, scores(CLEAR))).startswith(
        "acb: −0.500 px against dw7 [−0.519, −0.481] (lower is better). Nothing is surely better"
    )


def test_unlike_numbers_of_seeds():
    holes = {**CLEAR, "conv3": (0.800, None, None), "shift": (0.889, 0.899, None)}
    said = text(*scores(holes), timed("dw7", 1.0), timed("acb", 1.0004))
    assert said.startswith("acb: +5.00 points over dw7 [")
    assert "conv3 is surely worse than acb." in said


def test_arms_of_one_label_are_told_apart():
    twins = [
        make.accuracy(make.entry("acb", operator_options={"k": k}), s, v + k / 1e4)
        for k in (1, 2)
        for s, v in enumerate((0.890, 0.901, 0.891))
    ]
    said = text(*scores({"dw7": CLEAR["dw7"]}), *twins)
    assert "acb (1): +" in said
    assert "acb (2)" in said


# What a card claims, by simulation.


def simulated(board, draw, means, ratios, sd, noise, mask):
    """The board with other scores and times: seeds are blocks, processes differ by `noise`."""
    blocks = draw.normal(scale=0.02, size=mask.shape[1])
    rows = []
    for index, row in enumerate(sorted(board.rows, key=lambda row: row.key)):
        run = np.flatnonzero(mask[index])
        values = means[index] + blocks + draw.normal(scale=sd, size=mask.shape[1])
        times = 4 * ratios[index] * np.exp(draw.normal(scale=noise, size=(5, 1)))
        speeds = tuple(
            record.model_copy(
                update={
                    "speed": record.speed.model_copy(
                        update={
                            "samples_ms": times.tolist(),
                            "baseline_samples_ms": [[4.0]] * 5,
                            "noise": "stable",
                        }
                    )
                }
            )
            for record in row.speeds[:1]
        )
        scored = {int(s): float(values[s]) for s in run}
        rows.append(replace(row, scores=scored, speeds=speeds))
    return fitted(replace(board, rows=tuple(rows)))


def wrong(claim, means, ratios, higher):
    """Whether a claim is not so."""
    if claim.relation == "better":
        apart = means[claim.of] - means[claim.to]
        return apart <= 0 if higher else apart >= 0
    ratio = ratios[claim.of]
    if claim.relation == "same":
        return abs(ratio - 1) > 0.01
    return ratio >= 1 if claim.relation == "faster" else ratio <= 1


CASES = {
    "equal in everything": ([0.8] * 7, [1.0] * 7),
    "equal, times just not the same": ([0.8] * 7, [1.01001] * 7),
    "near ties": ([0.8, 0.802, 0.804, 0.8, 0.798, 0.8, 0.79], [1, 1.005, 0.995, 1.02, 1, 1.9, 1]),
    "spread": ([0.8, 0.82, 0.84, 0.86, 0.78, 0.76, 0.74], [1, 1.5, 1.01001, 0.99, 1.2, 0.8, 1]),
}


def share_wrong(case, size, *, seeds=3, higher=True, holes=False, sd=0.01, noise=0.002):
    """How often a card claims anything that is not so."""
    records = [r for r in make.suite(seeds=(0, 1)) if not (r.speed and r.speed.batch > 1)]
    (board,) = boards(records)
    if not higher:
        turned = board.metric.model_copy(update={"higher_is_better": False})
        board = replace(board, metric=turned)
    draw = np.random.default_rng([sorted(CASES).index(case), seeds, higher, holes])
    keys = sorted(row.key for row in board.rows)
    base = keys.index(board.baseline.key)
    means, ratios = (list(values) for values in CASES[case])
    means[0], means[base] = means[base], means[0]
    ratios[0], ratios[base] = ratios[base], 1.0
    truth = dict(zip(keys, means, strict=True)), dict(zip(keys, ratios, strict=True))
    count = 0
    for _ in range(size):
        mask = np.ones((7, seeds), dtype=bool)
        if holes:
            mask[draw.integers(0, 7, 3), -1] = False
        drawn = simulated(board, draw, means, ratios, sd, noise, mask)
        claims = standing(drawn).card.claims
        count += any(wrong(claim, *truth, higher) for claim in claims)
    return count / size


@pytest.mark.parametrize("case", CASES)
def test_what_a_card_claims_is_wrong_for_at_most_five_percent(case, monkeypatch):
    monkeypatch.setattr(draws, "DRAWS", 2)  # the card has no need of them
    size = 100
    holes = case == "near ties"
    higher = case != "spread"
    limit = 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / size)
    assert share_wrong(case, size, higher=higher, holes=holes) <= limit


def test_where_nothing_was_learnt_nothing_leads():
    (board,) = boards(scores({"dw7": (0.0, 0.0), "acb": (0.0, 0.0)}))
    card = standing(board).card
    assert card.text.startswith("Nothing was learnt: every score is 0.00 %. Longer training may")
    assert card.lead is None
    assert card.claims == ()
