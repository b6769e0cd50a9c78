"""What the papers' recipes need: schedules, layer-wise rates, frozen norms, timm's RandAugment."""

import random

import numpy as np
import pytest
import timm
import torch
from torch import nn

from bench.backbones import build, swap
from bench.errors import UserError
from bench.operators import Operator
from tasks import Classification, ClassificationData
from tasks.classification.augment import TimmAugment, augmentation
from tasks.layer_decay import layers_of, rates_of
from tasks.optimisation import make_optimizer, parameter_groups
from tasks.schedule import Schedule
from tasks.seeds import seeded


def test_a_straight_line_falls_by_equal_steps():
    line = Schedule("linear", warmup_epochs=1)
    factors = np.array([line.factor(step, 100, 10) for step in range(101)])
    assert factors[10] == 1
    np.testing.assert_allclose(np.diff(factors[10:]), -1 / 90)


def test_steps_fall_by_ten_at_each_milestone():
    steps = Schedule("steps", 0.5, milestones=(2, 3.5))
    factors = [steps.factor(step, 40, 4) for step in range(40)]
    assert factors[5:20] == [1.0] * 15
    assert factors[20:35] == pytest.approx([0.1] * 15)
    assert factors[35:] == pytest.approx([0.01] * 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": "poly"}, r"`schedule` \(='poly'\)"),
        ({"schedule": "steps"}, r"`milestones` \(=\(\)\) must be rising"),
        ({"schedule": "steps", "milestones": [3, 2]}, r"`milestones` \(=\(3, 2\)\)"),
        ({"milestones": [2]}, r"`milestones` \(=\(2,\)\)"),
        ({"final_lr": 1.0}, r"`final_lr` \(=1.0\)"),
        ({"layer_decay": 1.5}, r"`layer_decay` \(=1.5\) must be in \(0, 1\)"),
        ({"sizes": []}, r"`sizes` \(=\[\]\)"),
    ],
)
def test_a_wrong_recipe_is_named(arguments, message):
    with pytest.raises(UserError, match=message):
        Classification(timm.create_model("test_convnext"), 3, **arguments)


@pytest.mark.parametrize(
    ("host", "blocks"),
    [("unireplknet_s", 36), ("convnext_tiny", 18), ("resnet50", 16), ("mobilenetv2_100", 17)],
)
@pytest.mark.parametrize("features_only", [False, True])
def test_three_blocks_make_a_layer_in_every_kind_of_host(host, blocks, features_only):
    with torch.device("meta"):
        model = build(host, features_only=features_only)
    names = [name for name, _ in model.named_parameters()]
    layers = layers_of(names)
    assert layers == sorted(layers)
    assert layers[0] == 0
    inner = -(-blocks // 3)
    behind = set(layers) - {*range(inner + 1)}
    assert {*range(inner + 1)} <= set(layers)
    assert behind <= {inner + 1}


def test_a_layer_learns_slower_than_the_one_behind_it():
    task = nn.ModuleDict({"backbone": timm.create_model("convnext_tiny"), "head": nn.Linear(2, 2)})
    rates = rates_of(task["backbone"], 0.5)
    groups = parameter_groups(task, 0.05, 0.1, rates)
    optimizer = make_optimizer("adamw", groups, lr=0.1, momentum=0.9, fused=False)
    lr = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(lr) == len(list(task.parameters()))
    assert lr[task["head"].weight] == 0.1
    assert lr[task["backbone"].head.fc.weight] == 0.1
    assert lr[task["backbone"].stages[3].blocks[0].gamma] == pytest.approx(0.1 * 0.5)
    assert lr[task["backbone"].stages[3].downsample[1].weight] == pytest.approx(0.1 * 0.5)
    assert lr[task["backbone"].stem[0].weight] == pytest.approx(0.1 * 0.5**7)


def test_a_host_without_blocks_has_no_layers():
    with pytest.raises(UserError, match="tell no blocks"):
        rates_of(nn.Sequential(nn.Conv2d(3, 4, 3)), 0.9)


def test_frozen_norms_keep_their_statistics_but_those_of_operators_learn():
    host = swap(timm.create_model("test_resnet"), "acb", where={"stages": [3]}, input_size=(64, 64))
    task = Classification(host, 3, frozen_norm=True)
    task.on_train_epoch_start()
    before = {name: value.clone() for name, value in host.named_buffers()}
    task.loss((torch.rand(2, 3, 64, 64), torch.tensor([0, 1])))
    inside = [n for n, m in host.named_modules() if isinstance(m, Operator)]
    moved = {n for n, value in host.named_buffers() if not torch.equal(value, before[n])}
    assert moved
    assert all(name.startswith(tuple(inside)) for name in moved)


def test_timms_randaugment_is_a_function_of_the_seed_alone():
    augment = TimmAugment("rand-m9-mstd0.5-inc1", 64)
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    drawn = random.random(), np.random.rand()  # noqa: NPY002
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    results = []
    for key in (1, 1, *range(2, 9)):
        with seeded(key):
            results.append(augment(image))
    assert torch.equal(results[0], results[1])
    assert len({bytes(result.numpy().tobytes()) for result in results}) > 3
    others = random.random(), np.random.rand()  # noqa: NPY002
    assert others == drawn


def test_one_augmentation_of_a_kind():
    with pytest.raises(UserError, match=r"`auto_augment`.*None where `randaugment`"):
        augmentation(32, randaugment=9, auto_augment="rand-m9")
    with pytest.raises(UserError, match="timm's words"):
        ClassificationData(auto_augment="strong")


def test_scoring_may_be_bicubic():
    image = torch.randint(0, 256, (3, 90, 120), dtype=torch.uint8)
    plain, sharp = (
        ClassificationData(image_size=32, interpolation=mode).as_scored(image)
        for mode in (None, "bicubic")
    )
    assert torch.equal(
        plain, ClassificationData(image_size=32, interpolation="bilinear").as_scored(image)
    )
    assert not torch.equal(plain, sharp)


def test_batches_of_many_sizes_are_a_function_of_the_step():
    seen = []
    host = timm.create_model("test_convnext")
    host.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[-1]))
    task = Classification(host, 3, sizes=[32, 48, 64])
    batch = torch.rand(2, 3, 64, 64), torch.tensor([0, 1])
    for step in (1, 2, 3, 4, 1, 2, 3, 4):
        torch.manual_seed(step)
        task.loss(batch)
    assert seen[:4] == seen[4:]
    assert 1 < len({*seen}) <= 3
    task.eval()
    task.loss(batch)
    assert seen[-1] == 64
