"""OKS AP and what each figure was worth equal pycocotools'."""

import contextlib
import copy
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tasks.pose.scores import NAMES, Scored, as_coco, evaluate, match

SIGMAS = [0.03, 0.08, 0.05, 0.1]


def image(rng, figures, predictions, size=200):
    """An image whose predictions lie about its figures, with crowds and figures without points."""
    middles = rng.uniform(0, size, (figures, 1, 2))
    extent = rng.choice([8, 30, 90], (figures, 1, 1))
    places = middles + rng.uniform(-0.5, 0.5, (figures, 4, 2)) * extent
    visible = rng.choice([0, 1, 2, 2], (figures, 4, 1))
    visible[rng.random(figures) < 0.2] = 0
    low, high = places.min(axis=1), places.max(axis=1)
    guesses = rng.uniform(0, size, (predictions, 4, 2))
    for index in range(predictions):
        if figures and rng.random() < 0.8:
            near = rng.integers(figures)
            guesses[index] = places[near] + rng.normal(0, 0.03, (4, 2)) * extent[near]
    return Scored(
        np.concatenate([places * (visible > 0), visible], axis=-1).astype(float),
        np.concatenate([low, high], axis=1),
        (high - low).prod(axis=1) * 0.7,
        rng.random(figures) < 0.15,
        np.concatenate([guesses, rng.random((predictions, 4, 1))], axis=-1),
        # rounded, so that some are equal
        rng.random(predictions).round(1),
    )


def images(seed):
    rng = np.random.default_rng(seed)
    counts = [(rng.integers(0, 6), rng.integers(0, 9)) for _ in range(25)]
    return [image(rng, *pair) for pair in [*counts, (3, 30), (0, 4), (4, 0)]]


def reference(scored, sigmas):
    content, results = copy.deepcopy(as_coco(scored))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_pycocotools(seed):
    scored = images(seed)
    expected = reference(scored, SIGMAS).stats[: len(NAMES)]
    found = evaluate(scored, SIGMAS)
    assert 0.05 < found["AP"] < 0.9
    for name, value in zip(NAMES, expected, strict=True):
        assert found.get(name, -1) == pytest.approx(value, abs=1e-12), name


def test_scores_of_nothing():
    rng = np.random.default_rng(0)
    without = [image(rng, 3, 0)]
    without[0].keypoints[..., 2] = 2
    without[0].crowd[:] = False
    assert evaluate(without, SIGMAS)["AP"] == 0
    crowds = [image(rng, 3, 4)]
    crowds[0].crowd[:] = True
    assert evaluate(crowds, SIGMAS) == {}


@pytest.mark.parametrize("seed", range(4))
def test_verdicts_are_pycocotools_own_at_a_half(seed):
    scored = images(seed)
    evaluation = reference(scored, SIGMAS)
    whole = [None] * len(scored)
    for row in evaluation.evalImgs:
        if row is not None and row["aRng"] == evaluation.params.areaRng[0]:
            whole[row["image_id"] - 1] = row
    for one, row in zip(scored, whole, strict=True):
        verdicts, found = match(one, SIGMAS)
        assert found.shape == one.keypoints.shape[:2]
        assert np.isnan(found[one.ignored]).all()
        if row is None:
            assert not len(verdicts)
            continue
        order = np.argsort(-one.scores, kind="stable")[:20]
        assert row["dtScores"] == one.scores[order].tolist()
        expected = np.where(row["dtIgnore"][0], -1, row["dtMatches"][0] > 0)
        assert verdicts[order].tolist() == expected.tolist()
        matched = sum(row["gtMatches"][0][np.array(row["gtIgnore"]) == 0] > 0)
        assert int((verdicts == 1).sum()) == matched


def test_key_points_are_found_within_their_own_distance():
    points = np.array([[[10.0, 10, 2], [50, 10, 2], [10, 50, 0], [50, 50, 1]]])
    guess = points.copy()
    guess[0, :, 2] = 1
    area = 2500.0
    reach = np.sqrt(2 * area * np.log(2)) * 2 * np.array(SIGMAS)  # where the similarity is a half
    guess[0, 0, 0] += 1.01 * reach[0]
    guess[0, 1, 1] -= 0.99 * reach[1]
    guess[0, 2, 0] += 500
    one = Scored(
        points, np.array([[0.0, 0, 60, 60]]), np.array([area]), np.array([False]), guess, np.ones(1)
    )
    verdicts, found = match(one, SIGMAS)
    assert verdicts.tolist() == [1]
    np.testing.assert_array_equal(found, [[0, 1, np.nan, 1]])
