"""Segmentation: every head trains and predicts; inference and scores equal mmsegmentation's."""

from __future__ import annotations

import warnings

import lightning as L
import numpy as np
import pytest
import timm
import torch
import yaml
from torch import nn

import tasks
from bench.backbones import build, fuse
from tasks.feature_maps import feature_maps
from tasks.openmm import configs, models, packages, segmentors
from tasks.segmentation.heads import HEADS, NEEDS_COMPILED, NOT_FITTED, fit_config, last_maps
from tasks.segmentation.inference import Inference, augmented, slide
from tasks.segmentation.scores import confusion, sampling_error, scores

pytestmark = [
    # torch about Lightning, and Lightning about one process that loads.
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]


def host(name="test_convnext", **options):
    return timm.create_model(name, features_only=True, **options)


def batch(count=2, size=(64, 64), classes=5):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, *size, generator=generator)
    masks = torch.randint(0, classes, (count, *size), generator=generator)
    masks[:, :4] = 255
    return images, masks


def randomise(module):
    """Give every norm statistics and weights that a wrong fusion would show."""
    generator = torch.Generator().manual_seed(1)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.2, generator=generator)
            m.running_var.uniform_(0.5, 2, generator=generator)
            m.weight.data.uniform_(0.5, 1.5, generator=generator)
            m.bias.data.normal_(0, 0.2, generator=generator)


def small(backbone=None, head="upernet", **options):
    options = {"num_classes": 5, "head_channels": 32, **options}
    return tasks.Segmentation(host() if backbone is None else backbone, head=head, **options)


@pytest.mark.parametrize("head", HEADS)
def test_head_trains_and_predicts_on_a_swapped_backbone(head):
    swapped = build(
        "test_convnext",
        operator="dwconv",
        options={"kernel_size": 5},
        where={"kernel_size": 7},
        input_size=(64, 64),
        features_only=True,
    )
    light = {"decode_head": {"num_queries": 8}} if head == "mask2former" else None
    task = small(swapped, head, head_options=light)
    losses = task.loss(batch())
    assert losses
    assert all("loss" in name for name in losses)
    assert all(torch.isfinite(value) and value.ndim == 0 for value in losses.values())
    sum(losses.values()).backward()
    silent = [
        name
        for name, p in swapped.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)
    ]
    # Heads that take the coarsest map train all stages; a layer scale of 1e-6 leaves nothing at 0.
    assert not silent
    labels = task.predict(torch.rand(2, 3, 50, 70))
    assert labels.shape == (2, 50, 70)
    assert labels.dtype == torch.int64
    assert 0 <= labels.min() <= labels.max() < 5
    assert task.training


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv2_050"])
def test_the_last_four_maps_of_any_host_are_wired(name):
    backbone = host(name)
    task = small(backbone, "fpn")
    assert task.segmentor.model.backbone.indices == (1, 2, 3, 4)
    assert task.predict(batch()[0]).shape == (2, 64, 64)


def test_a_backbone_with_fewer_maps_gets_a_smaller_pyramid():
    backbone = host("test_convnext", out_indices=(1, 2, 3))
    for head in ("upernet", "fpn", "pspnet", "deeplabv3plus", "segformer"):
        task = small(backbone, head)
        assert torch.isfinite(sum(task.loss(batch()).values()))
        assert task.predict(batch()[0]).shape == (2, 64, 64)


def test_dilations_of_deeplab_shrink_with_the_stride():
    model = configs.shipped_config("mmseg", HEADS["deeplabv3plus"])
    maps = last_maps(feature_maps(host()))
    assert fit_config(model, maps, 5)["decode_head"]["dilations"] == [1, 3, 6, 9]
    assert model["decode_head"]["dilations"] == (1, 12, 24, 36)


def test_ignored_pixels_do_not_move_the_weights():
    task = small(auxiliary=False).eval()
    images, masks = batch()
    masks[:] = 255
    loss = sum(task.loss((images, masks)).values())
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or not p.grad.any() for p in task.parameters())


def test_the_loss_is_cross_entropy_at_the_size_of_the_mask():
    task = small(head="segformer").eval()
    images, masks = batch()
    with torch.no_grad():
        found = task.loss((images, masks))["decode.loss_ce"]
        logits = task.segmentor.logits(images)
    wanted = nn.functional.cross_entropy(logits, masks, ignore_index=255, reduction="sum")
    # mmsegmentation divides by all pixels, the ignored ones included.
    torch.testing.assert_close(found, wanted / masks.numel())


def test_class_weights_weigh_the_cross_entropy():
    weights = [0.1, 1.0, 2.0, 0.0, 1.0]
    task = small(head="upernet", class_weights=weights).eval()
    images, masks = batch()
    with torch.no_grad():
        found = task.loss((images, masks))["decode.loss_ce"]
        logits = task.segmentor.logits(images)
    wanted = nn.functional.cross_entropy(logits, masks, torch.tensor(weights), ignore_index=255)
    torch.testing.assert_close(found, wanted)
    masks[:] = 255
    assert task.loss((images, masks))["aux.loss_ce"] == 0
    names = [name for name in task.state_dict() if "weights" in name]
    assert not names


def test_class_weights_of_a_config_work_with_ignored_pixels():
    own = {"decode_head": {"loss_decode": {"class_weight": [0.5, 1.0, 1.0, 1.0, 1.0]}}}
    task = small(head="segformer", head_options=own)
    assert torch.isfinite(sum(task.loss(batch()).values()))


def test_head_starts_alike_whatever_the_operator():
    torch.manual_seed(0)
    one = small(host())
    torch.manual_seed(1)
    other = small(build("test_convnext", operator="conv", features_only=True, input_size=(64, 64)))
    for (name, p), q in zip(
        one.segmentor.named_parameters(), other.segmentor.parameters(), strict=True
    ):
        assert torch.equal(p, q), name
    third = small(seed=1)
    assert not torch.equal(next(one.segmentor.parameters()), next(third.segmentor.parameters()))


def test_state_dict_holds_the_backbone_once():
    task = small()
    names = list(task.state_dict())
    assert sum(name.endswith("stem_0.weight") for name in names) == 1


def test_a_batch_of_one_needs_group_norm():
    for head in ("upernet", "pspnet"):
        with pytest.raises(ValueError, match=r"at least 2 images.*head_norm='group'"):
            small(head=head).loss(batch(1))
        task = small(head=head, head_norm="group")
        losses = task.loss(batch(1))
        assert torch.isfinite(sum(losses.values()))
        assert not any(isinstance(m, nn.BatchNorm2d) for m in task.segmentor.modules())


def test_inference_module_equals_predict_with_fused_operators():
    backbone = build("test_resnet", operator="acb", input_size=(64, 64), features_only=True)
    task = small(backbone, "fpn")
    randomise(task)
    task.eval()
    module = fuse(task.inference_module())
    images = batch(size=(64, 96))[0]
    with torch.no_grad():
        torch.testing.assert_close(
            module.logits(images), task.segmentor.logits(images), rtol=1e-3, atol=1e-4
        )
        same = (module(images) == task.predict(images)).float().mean()
    assert same > 0.999
    assert sum(p.numel() for p in module.model.backbone.parameters()) < sum(
        p.numel() for p in backbone.parameters()
    )


def test_wrong_arguments_are_named():
    cases = {
        r"`head` \(='upernett'\).*upernet": {"head": "upernett"},
        r"`head` \(='missing.yaml'\)": {"head": "missing.yaml"},
        r"`num_classes` \(=1\) must be in 2…255": {"num_classes": 1},
        r"`num_classes` \(=256\)": {"num_classes": 256},
        r"`head_channels` \(=12\) must be a multiple of 8": {"head_channels": 12},
        r"`head_norm` \(='layer'\)": {"head_norm": "layer"},
        r"`window_stride` \(=\(8, 8\)\) needs": {"window_stride": (8, 8)},
        r"`window_stride` \(=\(8, 80\)\)": {"window": (64, 64), "window_stride": (8, 80)},
        r"`scales` \(=\(0.0,\)\)": {"scales": (0.0,)},
        r"`lr` \(=-1\)": {"lr": -1},
        r"`class_weights` \(=\[1.0\]\) must be 5 numbers": {"class_weights": [1.0]},
        r"`class_weights`.*'mask2former'": {"head": "mask2former", "class_weights": [1.0] * 5},
    }
    for message, options in cases.items():
        with pytest.raises(ValueError, match=message):
            small(**options)
    with pytest.raises(ValueError, match="features_only=True"):
        small(timm.create_model("test_convnext"))
    with pytest.raises(ValueError, match=r"`masks` \(of shape \(2, 32, 64\)\)"):
        small().loss((batch()[0], batch(size=(32, 64))[1]))


# Own configs, and what cannot be used.


def test_own_yaml_config_changes_a_shipped_one(tmp_path):
    path = tmp_path / "own.yaml"
    model = {"type": "EncoderDecoder", "decode_head": {"pool_scales": [1, 2], "channels": 16}}
    path.write_text(yaml.safe_dump({"_base_": HEADS["upernet"], "model": model}))
    task = small(head=str(path), head_channels=None)
    assert task.segmentor.model.decode_head.channels == 16
    assert len(task.segmentor.model.decode_head.psp_modules) == 2
    assert torch.isfinite(sum(task.loss(batch()).values()))


def test_cascades_and_sliding_windows_of_a_config_are_kept(tmp_path):
    path = tmp_path / "own.yaml"
    base = "ocrnet/ocrnet_hr18_4xb2-160k_cityscapes-512x1024.py"
    slide_cfg = {"mode": "slide", "crop_size": [32, 32], "stride": [16, 16]}
    path.write_text(yaml.safe_dump({"_base_": base, "model": {
        "type": "CascadeEncoderDecoder", "test_cfg": slide_cfg,
    }}))  # fmt: skip
    task = small(head=str(path))
    assert task.segmentor.inference == Inference((32, 32), (16, 16), threshold=0.3)
    assert {"decode_0.loss_ce", "decode_1.loss_ce"} <= set(task.loss(batch()))
    assert task.predict(batch()[0]).shape == (2, 64, 64)


def test_python_configs_run_only_when_trusted(tmp_path):
    ran = tmp_path / "ran"
    path = tmp_path / "own.py"
    model = configs.shipped_config("mmseg", HEADS["pspnet"])
    path.write_text(f"open({str(ran)!r}, 'w').close()\nmodel = {model!r}\n")
    with pytest.raises(ValueError, match="trust_config"):
        small(head=str(path))
    assert not ran.exists()
    assert small(head=str(path), trust_config=True).predict(batch()[0]).shape == (2, 64, 64)


@pytest.mark.parametrize("part", NOT_FITTED)
def test_parts_that_cannot_be_fitted_say_why(part):
    model = {"type": "EncoderDecoder", "decode_head": [{"type": part}]}
    with pytest.raises(ValueError, match=part):
        fit_config(model, last_maps(feature_maps(host())), 5)


@pytest.mark.skipif(not packages.WITHOUT_COMPILED, reason="a compiled mmcv is installed")
def test_parts_that_need_a_compiled_mmcv_do(tmp_path):
    assert set(NEEDS_COMPILED) == {"PSAHead"}
    base = next(name for name in configs.shipped("mmseg") if name.startswith("psanet"))
    path = tmp_path / "psanet.yaml"
    path.write_text(yaml.safe_dump({"_base_": base, "model": {"type": "EncoderDecoder"}}))
    with pytest.raises(ValueError, match="needs a compiled mmcv; PSAHead"):
        small(head=str(path))
    maps = last_maps(feature_maps(host()))
    config = fit_config(configs.shipped_config("mmseg", base), maps, 5, head_channels=32)
    model = models.build("mmseg", config, host())
    with pytest.raises(NotImplementedError, match="psamask"):
        segmentors.segmentor_logits(model, batch()[0])


# Inference.


def test_sliding_windows_equal_mmsegmentation():
    task = small(head="segformer").eval()
    images = torch.rand(2, 3, 70, 90)
    with torch.no_grad():
        ours = slide(task.segmentor.logits, images, (48, 40), (30, 24))
        # mmsegmentation's own loop, around the same network.
        model = task.segmentor.model
        model.test_cfg = _AsAttributes(stride=(30, 24), crop_size=(48, 40))
        normalised = task.normalize(images)
        theirs = model.slide_inference(normalised, [{"img_shape": (70, 90)} for _ in range(2)])
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


class _AsAttributes(dict):
    __getattr__ = dict.__getitem__


def test_windows_of_the_whole_image_change_nothing():
    images = batch()[0]
    backbone = host()
    whole = small(backbone, "segformer")
    slid = small(backbone, "segformer", window=(64, 64))
    assert torch.equal(whole.predict(images), slid.predict(images))
    assert slid.predict(images, (32, 40)).shape == (2, 32, 40)


def test_augmented_inference_averages_probabilities():
    task = small(head="fpn", scales=(0.5, 1.0, 1.5), flip=True).eval()
    images = torch.rand(1, 3, 64, 96)
    views = []
    with torch.no_grad():
        for height, width in ((32, 48), (64, 96), (96, 144)):
            scaled = nn.functional.interpolate(
                images, (height, width), mode="bilinear", antialias=height < 64
            )
            for mirrored in (False, True):
                logits = task.segmentor.logits(scaled.flip(3) if mirrored else scaled)
                logits = logits.flip(3) if mirrored else logits
                logits = nn.functional.interpolate(logits, (64, 96), mode="bilinear")
                views.append(logits.softmax(1))
        found = augmented(task.segmentor.logits, images, (0.5, 1.0, 1.5), flip=True)
    torch.testing.assert_close(found, torch.stack(views).mean(0))
    assert torch.equal(task.predict(images), found.argmax(1))


def test_mirrored_inference_is_symmetric():
    task = small(head="fpn", flip=True)
    images = batch()[0]
    agree = (task.predict(images.flip(3)).flip(2) == task.predict(images)).float().mean()
    assert agree > 0.999


def test_one_channel_is_cut_at_its_threshold():
    logits = torch.tensor([[[[-1.0, 0.0, 1.0]]]])
    labels = Inference(threshold=0.4)(lambda images: logits, torch.zeros(1, 3, 1, 3), (1, 3))
    assert labels.tolist() == [[[0, 1, 1]]]


# Scores.


@pytest.mark.parametrize("absent", [False, True])
def test_scores_equal_mmsegmentation(absent):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmseg.evaluation import IoUMetric
    generator = torch.Generator().manual_seed(0)
    classes, rows, areas = 7, [], []
    for _ in range(6):
        labels = torch.randint(0, classes, (40, 50), generator=generator)
        guesses = torch.randint(0, classes, (40, 50), generator=generator)
        predicted = torch.where(torch.rand(40, 50, generator=generator) < 0.6, labels, guesses)
        if absent:
            # Class 5 is nowhere, class 6 is predicted but never labelled.
            labels[labels >= 5] = 4
            predicted[predicted == 5] = 3
        labels[torch.rand(40, 50, generator=generator) < 0.1] = 255
        rows.append(confusion(predicted, labels, classes))
        areas.append(IoUMetric.intersect_and_union(predicted, labels, classes, 255))
    theirs = IoUMetric.total_area_to_metrics(*(sum(area) for area in zip(*areas, strict=True)))
    ours = scores(torch.stack(rows).sum(0))
    np.testing.assert_allclose(ours["IoU"].numpy(), theirs["IoU"], atol=1e-6)
    np.testing.assert_allclose(ours["Acc"].numpy(), theirs["Acc"], atol=1e-6)
    assert abs(ours["mIoU"].item() - np.nanmean(theirs["IoU"])) < 1e-6
    assert abs(ours["mAcc"].item() - np.nanmean(theirs["Acc"])) < 1e-6
    assert abs(ours["aAcc"].item() - float(theirs["aAcc"])) < 1e-6
    assert bool(torch.isnan(ours["IoU"]).any()) is absent


def test_task_scores_are_those_of_its_predictions():
    task = small(head="fpn")
    images, masks = batch(5)
    task.score((images[:2], masks[:2]))
    # Images and masks of several sizes come as lists.
    task.score((list(images[2:]), [m[::2, ::2] for m in masks[2:]]))
    rows = task.outcomes()["confusion"]
    assert rows.shape == (5, 5, 5)
    assert rows.sum(axis=(1, 2)).tolist() == [60 * 64] * 2 + [30 * 32] * 3
    wanted = [confusion(task.predict(images[:1])[0], masks[0], 5)]
    wanted += [confusion(task.predict(images[4:], (32, 32))[0], masks[4, ::2, ::2], 5)]
    assert np.array_equal(rows[[0, 4]], torch.stack(wanted).numpy())
    assert task.scores()["mIoU"] == pytest.approx(
        scores(torch.from_numpy(rows).sum(0))["mIoU"].item()
    )
    assert set(task.per_class()) <= set("01234")
    assert task.sampling_error() > 0
    task.reset_scores()
    assert task.outcomes()["confusion"].shape == (0, 5, 5)


def test_sampling_error_shrinks_with_the_number_of_images():
    generator = torch.Generator().manual_seed(0)
    draw = torch.randint(0, 30, (400, 3, 3), generator=generator) + 40 * torch.eye(3).long()
    few, many = sampling_error(draw[:100]), sampling_error(draw)
    assert 1.5 < few / many < 2.7
    means = [scores(part.sum(0))["mIoU"] for part in draw.split(20)]
    # The spread of sets of 20 images, seen directly.
    assert sampling_error(draw[:20]) == pytest.approx(float(torch.stack(means).std()), rel=0.5)
    assert np.isnan(sampling_error(draw[:1]))


def test_a_small_network_learns_two_colours(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("training", 32), ("validation", 8)):
        for i in range(count):
            left = rng.integers(8, 24)
            mask = np.full((32, 32), 1, np.uint8)
            mask[:, left:] = 2
            mask[0] = 0
            image = np.where(mask[..., None] == 2, (200, 40, 40), (40, 40, 200)).astype(np.uint8)
            for kind, array, end in (("images", image, "png"), ("annotations", mask, "png")):
                folder = tmp_path / kind / split
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(folder / f"{i}.{end}")
    (tmp_path / "objectInfo.txt").write_text("Idx\tName\n1\tblue\n2\tred\n")
    data = tasks.SegmentationData(
        "ade20k", str(tmp_path), image_size=32, batch_size=8, scale=(1.0, 1.0), largest_share=1.0
    )
    task = small(head="segformer", num_classes=2, lr=3e-3)
    trainer = _trainer(max_epochs=8)
    trainer.fit(task, datamodule=data)
    assert trainer.callback_metrics["val/mIoU"] > 0.8
    assert set(task.per_class()) == {"blue", "red"}
    assert len(task.outcomes()["confusion"]) == 8
    wrong = small(head="segformer", num_classes=3)
    with pytest.raises(ValueError, match=r"`num_classes` \(=3\)"):
        _trainer(max_epochs=1).fit(wrong, datamodule=data)


def _trainer(**options):
    return L.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        **options,
    )
