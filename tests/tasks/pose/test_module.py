"""The pose task: losses, predictions, mirror images, training, checkpoints."""

import lightning as L
import numpy as np
import pytest
import timm
import torch
from torch import nn

import tasks
from bench.backbones import build, fuse
from bench.errors import UserError
from tasks.data.figures import NAMES, SKELETON
from tasks.pose.names import mirrored


def host(name="test_convnext", **options):
    return timm.create_model(name, features_only=True, **options)


def small(backbone=None, **options):
    options = {"num_classes": 7, "head_channels": 16} | options
    return tasks.Pose(host() if backbone is None else backbone, **options)


def batch(count=2, size=(64, 96), figures=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, *size, generator=g)
    targets = []
    for _ in range(count):
        places = torch.rand(figures, 7, 2, generator=g) * torch.tensor([size[1] - 1, size[0] - 1])
        points = torch.cat([places, torch.full((figures, 7, 1), 2.0)], dim=-1)
        targets.append({"keypoints": points})
    return images, targets


def original(target, size):
    """A target as the data give it where they do not augment."""
    points = target["keypoints"]
    low, high = points[..., :2].amin(1), points[..., :2].amax(1)
    whole = {
        "keypoints": points,
        "boxes": torch.cat([low, high], dim=1),
        "area": (high - low).prod(dim=1),
        "iscrowd": torch.zeros(len(points)),
        "size": torch.tensor(size),
    }
    return target | {"size": torch.tensor(size), "original": whole}


@pytest.mark.parametrize("name", ["test_convnext", "test_resnet", "mobilenetv2_050"])
def test_any_host_trains_and_predicts(name):
    operator = {"operator": "dwconv", "where": {"kernel_size": 7}} if "convnext" in name else {}
    swapped = build(name, **operator, input_size=(64, 96), features_only=True)
    task = small(swapped)
    losses = task.loss(batch())
    assert sorted(losses) == ["heatmap", "pull", "push"]
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in task.estimator.parameters())
    assert all(p.grad is not None for p in swapped.parameters())
    first = next(swapped.parameters())
    assert first.grad.any()
    found = task.predict(torch.rand(2, 3, 50, 70))
    assert len(found) == 2
    assert found[0]["keypoints"].shape[1:] == (7, 3)
    assert task.training


@pytest.mark.parametrize("upsamplings", [0, 1, 2])
def test_heatmaps_halve_their_stride(upsamplings):
    task = small(upsamplings=upsamplings)
    assert task.estimator.head.strides == [4, 2, 1][: upsamplings + 1]
    with task.evaluating():
        heat, tags = task.estimator.compared(task.backbone, torch.rand(1, 3, 50, 70))
    stride = 4 // 2**upsamplings
    assert heat.shape == (1, 7, -(-50 // stride), -(-70 // stride))
    assert tags.shape == (*heat.shape, 1)
    assert torch.isfinite(sum(task.loss(batch()).values()))


def test_what_is_ignored_does_not_move_the_weights():
    task = small().eval()
    images, targets = batch()
    for target in targets:
        target["keypoints"] = target["keypoints"][:0]
        target["ignored"] = torch.ones(64, 96, dtype=torch.bool)
    loss = sum(task.loss((images, targets)).values())
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or not p.grad.any() for p in task.parameters())


@pytest.mark.parametrize("size", [(64, 96), (50, 70)])
def test_a_mirror_image_has_the_mirrored_figures_under_the_flip_test(size):
    task = small(flip_test=True, peak_threshold=1e-5)
    for last in (task.estimator.head.first, *task.estimator.head.finer):
        nn.init.normal_(last.weight, std=0.2)
    mirror = mirrored(NAMES)
    task.estimator.note(mirror, SKELETON)
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(3))
    with task.evaluating():
        one, tags = task.estimator.compared(task.backbone, images)
        if size == (64, 96):  # a multiple of the stride: the mirror image has the same padding
            other, other_tags = task.estimator.compared(task.backbone, images.flip(-1))
            back = other.flip(-1)[:, list(mirror)]
            torch.testing.assert_close(one, back, atol=1e-5, rtol=1e-4)
            swapped = other_tags.flip(-2)[:, list(mirror)].flip(-1)
            torch.testing.assert_close(tags, swapped, atol=1e-5, rtol=1e-4)
        task.estimator.flip = False
        alone, _ = task.estimator.compared(task.backbone, images)
    assert tags.shape == (*one.shape, 2)
    assert one.shape == alone.shape
    assert not torch.allclose(one, alone)


def test_what_data_say_of_key_points_is_in_the_weights():
    task = small()
    task.estimator.note(mirrored(NAMES), SKELETON)
    other = small()
    other.load_state_dict(task.state_dict())
    assert other.skeleton == sorted(SKELETON)
    assert other.estimator.mirror.tolist() == list(mirrored(NAMES))


def test_inference_is_a_copy_of_equal_value():
    task = small(peak_threshold=1e-4).eval()
    for last in (task.estimator.head.first, *task.estimator.head.finer):
        nn.init.normal_(last.weight, std=0.2)
    images = torch.rand(2, 3, 64, 96)
    whole = task.inference_module()
    for found, wanted in zip(whole(images), task.predict(images), strict=True):
        torch.testing.assert_close(found["keypoints"], wanted["keypoints"])
    with torch.no_grad():
        for one, other in zip(fuse(whole).compared(images), whole.compared(images), strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    assert whole.backbone is not task.backbone


def test_figures_that_are_found_score_one_and_shifted_ones_less():
    _, targets = batch(3)
    size = (64, 96)
    task = small()
    images = torch.rand(3, 3, *size)

    def scores(shift):
        exact = [
            {"keypoints": t["keypoints"] + torch.tensor([shift, 0, 0]), "scores": torch.ones(2)}
            for t in targets
        ]
        task.predict = lambda _: [{k: v.clone() for k, v in found.items()} for found in exact]
        task.reset_scores()
        task.score((images, [original(t, size) for t in targets]))
        return task.scores()

    assert scores(0.0)["AP"] == 1
    assert task.per_class() == {str(k): 1.0 for k in range(7)}
    rows = task.outcomes()
    assert rows["matched"].tolist() == [1] * 6
    assert rows["image"].tolist() == [0, 0, 1, 1, 2, 2]
    assert rows["objects"].tolist() == [2, 2, 2]
    assert 0 < scores(4.0)["AP"] < 1
    assert scores(300.0)["AP"] == 0
    assert task.outcomes()["matched"].tolist() == [0] * 6


def test_predictions_are_scored_in_the_pixels_of_the_files():
    _, (target,) = batch(1)
    task = small()
    whole = original(target, (64, 96))
    whole["size"] = torch.tensor([32, 48])
    half = (target["keypoints"][..., :2] + 0.5) / 2 - 0.5
    found = {"keypoints": torch.cat([half, target["keypoints"][..., 2:]], -1)}
    task.predict = lambda _: [found | {"scores": torch.ones(2)}]
    task.score((torch.rand(1, 3, 32, 48), [whole]))
    np.testing.assert_allclose(
        task._scored[0].predicted[..., :2], target["keypoints"][..., :2].numpy(), atol=1e-4
    )


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"num_classes": 0}, r"`num_classes` \(=0\) must be >= 1"),
        ({"head_channels": 0}, r"`head_channels` \(=0\) must be >= 1"),
        ({"upsamplings": 3}, r"`upsamplings` \(=3\) must be >= 0, and halve the stride 4"),
        ({"sigma": 0.0}, r"`sigma` \(=0.0\) must be > 0"),
        ({"tag_weight": 0.0}, r"`tag_weight` \(=0.0\) must be > 0"),
        ({"peak_threshold": 0.0}, r"`peak_threshold` \(=0.0\) must be in \(0, 1\)"),
    ],
)
def test_arguments_out_of_range_are_named(change, rule):
    with pytest.raises(UserError, match=rule):
        small(**change)


def test_targets_that_do_not_fit_are_named():
    task = small()
    images, targets = batch()
    with pytest.raises(UserError, match=r"`targets` \(=1 of them\) must be one for each image"):
        task.loss((images, targets[:1]))
    with pytest.raises(
        UserError, match=r"`keypoints` \(of shape \(2, 6, 3\)\) must be \(n, 7, 3\)"
    ):
        task.loss((images, [{"keypoints": t["keypoints"][:, :6]} for t in targets]))
    with pytest.raises(UserError, match=r"`ignored` \(of shape \(3, 3\)\) must be \(H, W\)"):
        task.loss((images, [t | {"ignored": torch.zeros(3, 3)} for t in targets]))
    with pytest.raises(UserError, match="must have `original`"):
        task.score((images, targets))


def trainer(folder, **changes):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    usual = {"accelerator": "cpu", "devices": 1, "num_sanity_val_steps": 0}
    return L.Trainer(**(quiet | usual | {"default_root_dir": folder, "max_epochs": 1} | changes))


def test_a_fit_keeps_what_the_set_says_and_scores_it(tmp_path):
    data = tasks.PoseData(
        image_size=32, batch_size=4, options={"train": 8, "val": 5, "largest": 0.9}
    )
    task = small(ema_decay=0.9, flip_test=True)
    run = trainer(tmp_path, enable_checkpointing=False)
    run.fit(task, data)
    assert {"val/AP", "train/heatmap", "train/pull", "train/push"} <= set(run.callback_metrics)
    assert task.class_names == NAMES
    assert task.estimator.mirror.tolist() == list(mirrored(NAMES))
    assert task.skeleton == sorted(SKELETON)
    assert len(task.outcomes()["objects"]) == 5
    wrong = small(num_classes=5)
    with pytest.raises(ValueError, match=r"`num_classes` \(=5\) of the model must be the data's 7"):
        trainer(tmp_path, enable_checkpointing=False).fit(wrong, data)


@pytest.mark.slow
def test_figures_are_learnt(tmp_path):
    """One large figure an image, few images: what a head, losses or grouping gone wrong can't."""
    L.seed_everything(0)
    knobs = {"train": 96, "val": 24, "figures": (1, 1), "ratio": 1.0, "contrast": 1.0}
    data = tasks.PoseData(image_size=48, batch_size=12, options=knobs | {"largest": 0.85})
    backbone = build("test_convnext", features_only=True, host_options={"ls_init_value": 1.0})
    task = small(backbone, head_channels=32, sigma=1.5, tag_weight=0.01, lr=0.01)
    run = trainer(tmp_path, max_epochs=20, check_val_every_n_epoch=20, enable_checkpointing=False)
    run.fit(task, data)
    assert float(run.callback_metrics["val/AP50"]) > 0.3
