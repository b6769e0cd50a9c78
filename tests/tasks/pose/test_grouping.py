"""Grouping equals a slow search over all assignments, and finds what was drawn."""

from itertools import permutations

import numpy as np
import pytest
import torch

from bench.errors import UserError
from tasks.pose.grouping import Grouping, filled, grouped, peaks, refined
from tasks.pose.losses import heatmaps


def slow_groups(places, heights, tags, threshold, apart):
    """The same steps, with every assignment of peaks to figures tried."""
    figures = []
    for k in range(len(places)):
        found = [i for i in range(len(places[k])) if heights[k][i] > threshold]
        means = []
        for figure in figures:
            own = list(figure.values())
            means.append(sum(tag for _, _, tag in own) / len(own))
        distance = {
            (i, g): float(np.sqrt(((tags[k][i] - mean) ** 2).sum()))
            for i in found
            for g, mean in enumerate(means)
        }
        cost = {
            key: round(d) * 100 - heights[k][key[0]] + d * d / 1000 for key, d in distance.items()
        }
        few, many = (found, range(len(means))) if len(found) <= len(means) else (means, found)
        best = None
        for chosen in permutations(many, len(few)):
            if few is found:
                pairs = list(zip(found, chosen, strict=True))
            else:
                pairs = [(i, g) for g, i in enumerate(chosen)]
            total = sum(cost[pair] for pair in pairs)
            if best is None or total < best[0] - 1e-9:
                best = total, pairs
        taken = {i: g for i, g in best[1] if distance[i, g] < apart} if means and found else {}
        for i in found:
            entry = (places[k][i], heights[k][i], tags[k][i])
            if i in taken:
                figures[taken[i]][k] = entry
            else:
                figures.append({k: entry})
    return figures


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("dimensions", [1, 2])
def test_groups_are_those_of_a_search_over_all_assignments(seed, dimensions):
    rng = np.random.default_rng(seed)
    count, most = 5, 4
    places = rng.integers(0, 20, (count, most, 2)).astype(float)
    heights = -np.sort(-rng.uniform(0, 1, (count, most)), axis=1)
    tags = rng.choice([0.0, 0.9, 2.1, 3.3], (count, most, dimensions))
    tags += rng.normal(0, 0.2, tags.shape)
    expected = slow_groups(places, heights, tags, 0.3, 1.0)
    found = grouped(places, heights, tags, threshold=0.3, apart=1.0)
    assert len(found) == len(expected)
    for figure, entries in zip(found, expected, strict=True):
        for k in range(count):
            wanted = np.zeros(3 + dimensions)
            if k in entries:
                place, height, tag = entries[k]
                wanted = np.array([*place, height, *tag])
            np.testing.assert_allclose(figure[k], wanted)


def slow_peaks(heat, most):
    listed = []
    for one in heat.tolist():
        rows = []
        for y, row in enumerate(one):
            for x, value in enumerate(row):
                around = [r[max(0, x - 2) : x + 3] for r in one[max(0, y - 2) : y + 3]]
                if value == max(map(max, around)) and value > 0:
                    rows.append((value, x, y))
        listed.append(sorted(rows, reverse=True)[:most])
    return listed


def test_peaks_are_the_largest_of_their_surroundings():
    g = torch.Generator().manual_seed(0)
    heat = torch.rand(3, 12, 17, generator=g)
    tags = torch.randn(3, 12, 17, 2, generator=g)
    places, heights, at = peaks(heat, tags, 6)
    assert places.shape == (3, 6, 2)
    for k, rows in enumerate(slow_peaks(heat, 6)):
        for i, (value, x, y) in enumerate(rows):
            assert heights[k, i] == pytest.approx(value)
            assert places[k, i].tolist() == [x, y]
            np.testing.assert_allclose(at[k, i], tags[k, y, x].numpy(), rtol=1e-6)
        assert (heights[k, len(rows) :] == 0).all()
    assert peaks(heat[:, :2, :2], tags[:, :2, :2], 30)[1].shape == (3, 4)


def test_missing_key_points_are_taken_where_tag_and_heatmap_agree():
    heat, tags = np.zeros((2, 3, 4)), np.zeros((2, 3, 4, 1))
    heat[1, 0, 1], heat[1, 2, 3] = 0.09, 0.05
    tags[1, 0, 1] = 5.0  # the higher one is of another figure
    figure = np.array([[1.0, 1, 0.8, 0.2], [0, 0, 0, 0]])
    assert filled(figure, heat, tags).tolist() == [[1, 1, 0.8], [3, 2, 0.05]]
    assert filled(figure, heat * 0, tags)[1].tolist() == [0, 0, 0]


def test_refined_is_exact_on_gaussians_and_stays_at_the_border():
    figure = torch.tensor([[[20.3, 11.8, 2], [9.6, 14.1, 2], [0.0, 23.0, 2]]])
    heat = heatmaps([figure], (12, 16), 2, 1.5)[0]
    coarse = np.array([[[10.0, 6, 1], [5, 7, 1], [0, 11, 1]]])
    found = (refined(coarse, heat.double().numpy())[0, :, :2] + 0.5) * 2 - 0.5
    np.testing.assert_allclose(found[:2], figure[0, :2, :2].numpy(), atol=1e-3)
    assert found[2].tolist() == [0.5, 22.5]


def test_figures_that_were_drawn_are_read_off():
    wanted = torch.tensor(
        [
            [[4.0, 4, 2], [10, 6, 2], [7, 14, 2]],
            [[30, 5, 2], [24, 9, 2], [28, 16, 0]],
        ]
    )
    heat = heatmaps([wanted], (20, 36), 1, 1.5)[0]
    tags = torch.full((3, 20, 36, 1), 9.0)
    tags[:, :, :18], tags[:, :, 18:] = 0.0, 3.0
    points, scores = Grouping()(heat, tags)
    np.testing.assert_allclose(points[0], [[4, 4, 1], [10, 6, 1], [7, 14, 1]], atol=1e-3)
    np.testing.assert_allclose(points[1][:2], [[30, 5, 1], [24, 9, 1]], atol=1e-3)
    assert scores.tolist() == pytest.approx([1, 2 / 3], abs=0.01)
    none, no_scores = Grouping()(heat * 0, tags)
    assert none.shape == (0, 3, 3)
    assert no_scores.shape == (0,)
    assert len(Grouping(most=1)(heat, tags)[0]) == 1


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"most": 0}, r"`most_figures` \(=0\) must be >= 1"),
        ({"threshold": 1.0}, r"`peak_threshold` \(=1.0\) must be in \(0, 1\)"),
        ({"apart": 0.0}, r"`tag_threshold` \(=0.0\) must be > 0"),
    ],
)
def test_ranges(change, rule):
    with pytest.raises(UserError, match=rule):
        Grouping(**change)
