"""Targets and losses equal their formulas, written as loops."""

import math

import pytest
import torch

from tasks.pose.losses import heatmap_loss, heatmaps, on_map, tag_losses


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def figures(count, points=4, size=(24, 40), seed=0):
    """Key points anywhere in an image, a third of them not labelled."""
    g = generator(seed)
    places = torch.rand(count, points, 2, generator=g) * torch.tensor([size[1], size[0]]) - 0.5
    visible = torch.randint(0, 3, (count, points, 1), generator=g).float()
    return torch.cat([places, visible], dim=-1)


def slow_heatmaps(keypoints, size, stride, sigma):
    maps = torch.zeros(len(keypoints), keypoints[0].shape[1], *size)
    for n, image in enumerate(keypoints):
        for figure in image.tolist():
            for k, (x, y, v) in enumerate(figure):
                for row in range(size[0]):
                    for column in range(size[1]):
                        # the middle of the stride × stride pixels below one of the map
                        across = (column + 0.5) * stride - 0.5 - x
                        down = (row + 0.5) * stride - 0.5 - y
                        squared = (across**2 + down**2) / stride**2
                        peak = math.exp(-squared / (2 * sigma**2)) if v > 0 else 0.0
                        maps[n, k, row, column] = max(maps[n, k, row, column].item(), peak)
    return maps


@pytest.mark.parametrize(("stride", "sigma"), [(1, 2.0), (4, 1.0), (2, 1.5)])
def test_heatmaps_are_gaussians_of_the_nearest_figure(stride, sigma):
    keypoints = [figures(3), figures(1, seed=1), figures(0)]
    size = (24 // stride, 40 // stride)
    expected = slow_heatmaps(keypoints, size, stride, sigma)
    torch.testing.assert_close(heatmaps(keypoints, size, stride, sigma), expected)
    assert (expected[2] == 0).all()


def test_what_is_not_learnt_costs_nothing():
    g = generator()
    predicted, wanted = (torch.rand(2, 3, 4, 5, generator=g) for _ in range(2))
    learnt = torch.rand(2, 4, 5, generator=g) > 0.5
    total = 0.0
    for n in range(2):
        for k in range(3):
            for y in range(4):
                for x in range(5):
                    if learnt[n, y, x]:
                        total += float(predicted[n, k, y, x] - wanted[n, k, y, x]) ** 2
    found = heatmap_loss(predicted, wanted, learnt)
    assert float(found) == pytest.approx(total / (2 * 3 * 4 * 5))
    moved = torch.where(learnt[:, None], predicted, predicted + 7)
    assert torch.equal(heatmap_loss(moved, wanted, learnt), found)


def slow_tag_losses(tags, keypoints, stride):
    pulls, pushes = [], []
    for tag, image in zip(tags.double(), keypoints, strict=True):
        groups = []
        for figure in image.tolist():
            values = []
            for k, (x, y, v) in enumerate(figure):
                if v > 0:
                    u = round((x + 0.5) / stride - 0.5)
                    w = round((y + 0.5) / stride - 0.5)
                    u = min(max(u, 0), tag.shape[2] - 1)
                    w = min(max(w, 0), tag.shape[1] - 1)
                    values.append(tag[k, w, u].item())
            if values:
                groups.append(values)
        means = [sum(values) / len(values) for values in groups]
        pull = push = 0.0
        for values, mean in zip(groups, means, strict=True):
            pull += sum((t - mean) ** 2 for t in values) / len(values) / len(groups)
        for i, one in enumerate(means):
            for j, other in enumerate(means):
                if i != j:
                    push += math.exp(-((one - other) ** 2)) / (len(means) * (len(means) - 1)) / 2
        pulls.append(pull)
        pushes.append(push)
    return sum(pulls) / len(pulls), sum(pushes) / len(pushes)


@pytest.mark.parametrize("stride", [1, 4])
def test_pull_and_push_are_their_formulas(stride):
    keypoints = [figures(4), figures(1, seed=1), figures(0), figures(2, seed=3)]
    keypoints[3][1, :, 2] = 0  # a figure without a labelled key point is none
    tags = torch.randn(4, 4, 24 // stride, 40 // stride, generator=generator())
    pull, push = tag_losses(tags, keypoints, stride)
    assert (float(pull), float(push)) == pytest.approx(slow_tag_losses(tags, keypoints, stride))


def test_nothing_to_tag_has_gradients_of_zero():
    tags = torch.randn(2, 4, 6, 6, requires_grad=True)
    pull, push = tag_losses(tags, [figures(0), figures(0)], 4)
    (pull + push).backward()
    assert (pull.item(), push.item()) == (0, 0)
    assert (tags.grad == 0).all()


def test_gradients_pull_together_and_push_apart():
    tags = torch.zeros(1, 2, 1, 4, requires_grad=True)
    with torch.no_grad():
        tags[0, 0, 0] = torch.tensor([0.0, 0, 0, 0.2])
        tags[0, 1, 0] = torch.tensor([0.4, 0, 0, 0.2])
    one = torch.tensor([[[0.0, 0, 2], [0, 0, 2]], [[3, 0, 2], [3, 0, 2]]])
    pull, _ = tag_losses(tags, [one], 1)
    (of_pull,) = torch.autograd.grad(pull, tags)
    assert of_pull[0, 0, 0, 0] < 0 < of_pull[0, 1, 0, 0]  # 0 and 0.4 meet at 0.2
    with torch.no_grad():
        tags[0, :, 0, 3] = 0.5
    _, push = tag_losses(tags, [one], 1)
    (of_push,) = torch.autograd.grad(push, tags)
    assert (of_push[0, :, 0, 3] < 0).all()
    assert (of_push[0, :, 0, 0] > 0).all()


def test_a_point_lies_on_the_map_where_its_pixel_does():
    # pixels 4…7 of the image are pixel 1 of a map of stride 4: their middle is its middle
    assert float(on_map(torch.tensor(5.5), 4)) == 1.0
