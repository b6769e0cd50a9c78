"""The statistics of the speed run against simulations whose truth is known."""

import math

import numpy as np
import pytest
from scipy import stats as reference

from bench.intervals import t_interval
from bench.speed import Settings, stats
from bench.speed.protocol import drawn
from bench.speed.result import ArmResult
from bench.statistics import ratios


def simulate(rng, ratio, *, processes=5, rounds=20, effect=0.01, noise=0.02, drift=0.03):
    """Samples of an interleaved run: drift of the machine, an effect of each process, noise."""
    arm, baseline = [], []
    for process in range(processes):
        when = (process * rounds + np.arange(rounds)) / (processes * rounds)
        machine = (1 + drift * when) * np.exp(rng.normal(0, effect))
        own = np.exp(rng.normal(0, effect))
        arm.append(list(ratio * own * machine * np.exp(rng.normal(0, noise, rounds))))
        baseline.append(list(machine * np.exp(rng.normal(0, noise, rounds))))
    return arm, baseline


def test_intervals_over_processes_cover_the_truth_and_those_within_one_do_not():
    rng = np.random.default_rng(0)
    truth, runs = math.log(1.25), 600
    over = within = 0
    for _ in range(runs):
        arm, baseline = simulate(rng, 1.25)
        _, low, high = t_interval(ratios.log_ratios(arm, baseline))
        over += low <= truth <= high
        pairs = list(np.log(arm[0]) - np.log(baseline[0]))
        _, low, high = t_interval(pairs)
        within += low <= truth <= high
    assert 0.93 <= over / runs <= 0.97
    assert within / runs < 0.80


def test_taking_turns_removes_the_bias_of_drift():
    rng = np.random.default_rng(1)
    arm, baseline = simulate(rng, 1.0, processes=200, effect=0, noise=0.005, drift=0.03)
    assert abs(np.mean(ratios.log_ratios(arm, baseline))) < 0.001
    one_after_the_other = np.median(arm[100:]) / np.median(baseline[:100])
    assert one_after_the_other > 1.01


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_t_interval_is_students(n, level):
    values = list(np.random.default_rng(n).normal(3, 2, n))
    mean, low, high = t_interval(values, level)
    expected = reference.t.interval(level, n - 1, np.mean(values), reference.sem(values))
    assert mean == pytest.approx(np.mean(values))
    assert (low, high) == pytest.approx(expected)


def test_one_process_has_no_interval_and_no_verdict():
    assert t_interval([0.5]) is None
    assert ratios.verdict([-0.5]) is None


def test_ratios_are_paired_within_rounds():
    """A wave that both arms ride does not widen the ratio."""
    wave = np.exp(np.sin(np.arange(20)))
    assert ratios.log_ratios([list(1.1 * wave)], [list(wave)]) == [pytest.approx(math.log(1.1))]


def shares(ratio, effect, runs=400):
    rng = np.random.default_rng(2)
    said = [
        ratios.verdict(ratios.log_ratios(*simulate(rng, ratio, effect=effect, noise=0.005)))
        for _ in range(runs)
    ]
    return {word: said.count(word) / runs for word in ("same", "faster", "slower", "unclear")}


def test_equal_arms_are_the_same_where_the_run_is_quiet_and_unclear_where_it_is_not():
    quiet, loud = shares(1.0, 0.002), shares(1.0, 0.05)
    assert quiet["same"] > 0.9
    assert loud["unclear"] > 0.85
    assert loud["same"] < 0.05
    assert loud["faster"] + loud["slower"] < 0.09


def test_at_the_margin_same_is_said_in_at_most_one_case_of_twenty():
    assert shares(1.01, 0.004)["same"] < 0.08


def test_real_differences_are_found_with_their_sign():
    assert shares(0.9, 0.01)["faster"] > 0.99
    assert shares(1.1, 0.01)["slower"] > 0.99


def test_a_significant_difference_below_one_per_cent_counts_as_the_same():
    assert ratios.verdict([0.0050, 0.0051, 0.0049, 0.0050]) == "same"


@pytest.mark.parametrize("drift", [-5.0, 0.0, 3.0])
def test_drift_is_recovered_in_spite_of_outliers(drift):
    rng = np.random.default_rng(3)
    times = (1 + drift / 100 * np.linspace(-0.5, 0.5, 100)) * np.exp(rng.normal(0, 0.002, 100))
    times[::17] *= 4
    found = stats.drift_pct(times.reshape(5, 20).tolist())
    assert found == pytest.approx(drift, abs=0.4)


def test_drift_needs_three_samples():
    assert stats.drift_pct([[1.0], [1.1]]) is None


def test_outliers_are_counted_in_each_process_and_change_nothing():
    quiet = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98]
    samples = [[*quiet, 9.0], [2 * q for q in quiet], [*quiet, 0.1, 7.0]]
    assert stats.outliers(samples) == 3
    assert samples[0][-1] == 9.0
    assert stats.outliers([[1.0] * 6]) == 0


@pytest.mark.parametrize(
    ("noise", "effect", "drift", "expected"),
    [
        (0.005, 0.001, 0.5, "stable"),
        (0.04, 0.001, 0.5, "noisy"),
        (0.005, 0.001, -6.0, "noisy"),
        (0.2, 0.001, 0.5, "unstable"),
        (0.005, 0.1, 0.5, "unstable"),
        (0.005, 0.001, 20.0, "unstable"),
    ],
)
def test_noise_class_looks_within_between_and_along(noise, effect, drift, expected):
    rng = np.random.default_rng(4)
    shift = effect * np.array([-1.0, -0.5, 0.0, 0.5, 1.0])[:, None]
    samples = np.exp(shift + rng.normal(0, noise, (5, 40))).tolist()
    assert stats.noise_class(samples, drift) == expected


def test_an_unstable_row_has_no_verdict_but_unclear():
    """A ratio that lies far from 1, and scatters."""
    settings = Settings(baseline="b", input_size=(8, 8))
    baseline = [[1.0 + 0.001 * (r % 3) for r in range(20)] for _ in range(5)]
    scattered = [[t * (1 + 0.3 * (r % 2)) for r, t in enumerate(samples)] for samples in baseline]
    verdicts = {}
    for name, like in (("stable", baseline), ("unstable", scattered)):
        arm = [[1.4 * t for t in samples] for samples in like]
        result = ArmResult("a", 1, settings, "run", samples_ms=arm, baseline_samples_ms=baseline)
        assert result.noise == name
        assert result.ratio_to_baseline.low > 1.3
        verdicts[name] = result.verdict
        assert result.speed().verdict == result.verdict
    assert verdicts == {"stable": "slower", "unstable": "unclear"}


def test_a_machine_whose_speed_comes_and_goes_makes_times_unstable_and_not_ratios():
    """Every process of a shared machine runs at a speed of its own, for all arms alike."""
    settings = Settings(baseline="b", input_size=(8, 8))
    quiet = [[1.0 + 0.001 * (r % 3) for r in range(20)] for _ in range(5)]
    baseline = [[t * (1 + 0.3 * process) for t in samples] for process, samples in enumerate(quiet)]
    arm = [[1.2 * t for t in samples] for samples in baseline]
    result = ArmResult("a", 1, settings, "run", samples_ms=arm, baseline_samples_ms=baseline)
    assert (result.noise, result.verdict) == ("stable", "slower")
    assert result.latency_median_ms.high > 2 * result.latency_median_ms.low
    own = ArmResult("b", 1, settings, "run", samples_ms=baseline, baseline_samples_ms=baseline)
    assert (own.noise, own.verdict) == ("unstable", "baseline")


@pytest.mark.parametrize(("anew", "least", "most"), [(True, 0.92, 0.98), (False, 0.0, 0.85)])
def test_an_advantage_of_place_is_a_bias_only_where_the_order_is_the_same(anew, least, most):
    """Two equal arms of which the one that is built second is 1 % faster.

    Of the intervals over five processes, 95 % hold the truth where the order is drawn anew.
    """
    rng = np.random.default_rng(5)
    runs, held = 400, 0
    for run in range(runs):
        samples = {"a": [], "b": []}
        for process in range(5):
            order = drawn("ab", run, process, "build") if anew else ["a", "b"]
            for place, label in enumerate(order):
                noise = rng.normal(0, 0.01) + rng.normal(0, 0.004, 20)
                samples[label].append(list(np.exp(noise - 0.01 * place)))
        _, low, high = t_interval(ratios.log_ratios(samples["b"], samples["a"]))
        held += low <= 0 <= high
    assert least <= held / runs <= most
