"""The detection task: losses, predictions, training, checkpoints, outcomes, inference."""

import copy

import lightning as L
import numpy as np
import pytest
import timm
import torch

from bench.backbones import fuse, swap
from tasks import Detection, DetectionData
from tasks.detection.heads import HEADS, choose_maps, maps_taken, wire
from tasks.feature_maps import FeatureMap

LIGHT = {"neck_channels": 16, "head_convs": 1, "anchor_scale": 4.0}


def host(name="test_convnext"):
    return timm.create_model(name, features_only=True)


UNUSED = {"faster_rcnn": "head_convs", "rtmdet": "anchor_scale", "yolox": "anchor_scale"}
"""Head → which of these it has no use for."""


def make(head="fcos", backbone=None, **options):
    light = {name: value for name, value in LIGHT.items() if name != UNUSED.get(head)}
    options = {"strides": (4, 8, 16), "extra_levels": 0, **light, **options}
    return Detection(backbone or host(), 3, head=head, **options)


def targets(count=2, masks=False):
    boxes = torch.tensor([[5.0, 5, 30, 30], [20, 10, 60, 50]])
    one = {"boxes": boxes, "labels": torch.tensor([0, 2])}
    if masks:
        one["masks"] = torch.zeros(2, 64, 64, dtype=torch.bool)
        one["masks"][0, 5:30, 5:30] = one["masks"][1, 10:50, 20:60] = True
    return [one] * count


@pytest.mark.parametrize("head", sorted(HEADS))
def test_own_loop(head):
    task = make(head, swap(host(), "dwconv", input_size=(64, 64)))
    images = torch.rand(2, 3, 64, 64)
    empty = {key: value[:0] for key, value in targets(masks=True)[0].items()}
    optimizer = torch.optim.AdamW(task.parameters(), 1e-3)
    losses = task.loss((images, [targets(masks=True)[0], empty]))
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    optimizer.step()
    assert torch.isfinite(total)
    assert all(loss.ndim == 0 for loss in losses.values())
    assert task.backbone.stem_0.weight.grad.abs().sum() > 0
    task.train()
    found = task.predict(images)
    assert task.training
    assert len(found) == 2
    keys = {"boxes", "labels", "scores"} | ({"masks"} if HEADS[head].masks else set())
    assert all(set(each) == keys for each in found)


@pytest.mark.parametrize("size", [(64, 64), (50, 70), (37, 129)])
def test_any_size_of_images(size):
    task = make("retinanet")
    one = {"boxes": torch.tensor([[2.0, 3, 30, 30]]), "labels": torch.tensor([1])}
    assert torch.isfinite(sum(task.loss((torch.rand(1, 3, *size), [one])).values()))
    for found in task.predict(torch.rand(1, 3, *size)):
        if len(found["boxes"]):
            assert found["boxes"][:, 2].max() <= size[1]
            assert found["boxes"][:, 3].max() <= size[0]


def test_padding_does_not_blow_gradients_up():
    """Layer norms divide by the spread over channels, which constant padding would make 0."""
    norms = {}
    for size in ((64, 64), (58, 50)):
        torch.manual_seed(0)
        task = make("fcos", strides=(8, 16, 32))
        one = {"boxes": torch.tensor([[2.0, 3, 30, 30]]), "labels": torch.tensor([1])}
        torch.stack(list(task.loss((torch.rand(1, 3, *size), [one])).values())).sum().backward()
        norms[size] = sum(float(p.grad.square().sum()) for p in task.backbone.parameters()) ** 0.5
    assert norms[58, 50] < 10 * norms[64, 64]


@pytest.mark.parametrize("head", ["atss", "retinanet"])
def test_regions_to_ignore_are_not_trained_on(head):
    torch.manual_seed(0)
    task = make(head)
    images = torch.rand(1, 3, 64, 64)
    boxes = torch.tensor([[4.0, 4, 24, 24], [32, 32, 62, 62]])
    both = {"boxes": boxes, "labels": torch.tensor([0, 2])}
    one = {key: value[:1] for key, value in both.items()}
    crowd = both | {"iscrowd": torch.tensor([0, 1])}
    loss = {name: task.loss((images, [t])) for name, t in
            {"both": both, "one": one, "crowd": crowd}.items()}  # fmt: skip
    assert loss["crowd"]["loss_bbox"] == loss["one"]["loss_bbox"] != loss["both"]["loss_bbox"]
    # of the anchors in the region, which are background otherwise, none is
    assert loss["crowd"]["loss_cls"] < loss["one"]["loss_cls"]


def test_a_config_that_says_how_regions_are_ignored_is_left_alone():
    from tasks.openmm.configs import shipped_config

    config = shipped_config("mmdet", HEADS["retinanet"].config)
    assigner = config["train_cfg"]["assigner"]
    assert wire(config, MAPS, 5)["train_cfg"]["assigner"]["ignore_iof_thr"] == 0.5
    assigner["ignore_iof_thr"] = 0.8
    assert wire(config, MAPS, 5)["train_cfg"]["assigner"]["ignore_iof_thr"] == 0.8


def test_normalisation_is_inside():
    images = torch.rand(1, 3, 64, 64)
    plain, shifted = make(mean=(0, 0, 0), std=(1, 1, 1)), make(mean=(0.5,) * 3, std=(0.5,) * 3)
    shifted.load_state_dict(plain.state_dict())
    plain.eval(), shifted.eval()
    maps = plain.detector.model.extract_feat((images - 0.5) / 0.5)
    for mine, wanted in zip(
        shifted.detector.model.extract_feat(shifted.detector.prepared(images)), maps, strict=True
    ):
        torch.testing.assert_close(mine, wanted)


def test_initialisation_of_the_head_does_not_depend_on_the_backbone_s_draws():
    torch.manual_seed(0)
    one = make(seed=3).detector.state_dict()
    torch.manual_seed(1)
    other = make(seed=3).detector.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    changed = make(seed=4).detector.state_dict()
    assert not all(torch.equal(value, changed[key]) for key, value in one.items())


def test_weights_are_in_the_checkpoint_once():
    task = make()
    own = {id(p) for p in task.parameters()}
    assert len(own) == len(list(task.state_dict(keep_vars=True).values())) - len(
        list(task.buffers())
    ) + sum(1 for name, _ in task.named_buffers() if name not in task.state_dict())
    assert {id(p) for p in task.backbone.parameters()} < own
    assert not any("backbone" in key for key in task.detector.state_dict())


def test_a_copy_uses_its_own_backbone():
    task = make().eval()
    twin = copy.deepcopy(task)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = task.detector.model(images)[0][0]
        for parameter in twin.backbone.parameters():
            parameter.zero_()
        assert torch.equal(task.detector.model(images)[0][0], before)
        assert not torch.equal(twin.detector.model(images)[0][0], before)


def randomise(module):
    """Give norms and scales values that fusing must not lose."""
    generator = torch.Generator().manual_seed(0)
    for m in module.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.3, generator=generator)
            m.running_var.uniform_(0.5, 2, generator=generator)
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.data.uniform_(0.3, 1.5, generator=generator)


@pytest.mark.parametrize("head", ["faster_rcnn", "fcos", "mask_rcnn"])
def test_inference_module_finds_the_same(head):
    torch.manual_seed(0)
    backbone = swap(host("test_resnet"), "acb", input_size=(64, 64))
    randomise(backbone)
    task = make(
        head, backbone, head_options={"test_cfg": {"score_thr": 0.0}} if head == "fcos" else None
    )
    images = torch.rand(2, 3, 64, 64)
    timed = fuse(task.inference_module())
    assert not timed.training
    assert timed.model.backbone.module is not task.backbone
    assert task.detector.model.backbone.module is task.backbone
    for mine, wanted in zip(timed(images), task.predict(images), strict=True):
        assert len(wanted["boxes"]) > 0
        torch.testing.assert_close(mine["scores"], wanted["scores"], rtol=1e-3, atol=1e-4)
        assert (mine["labels"] == wanted["labels"]).float().mean() > 0.9


def test_head_options_reach_mmdet():
    options = {
        "bbox_head": {"loss_cls": {"type": "QualityFocalLoss"}},
        "test_cfg": {"max_per_img": 5},
    }
    task = make("retinanet", head_options=options)
    assert type(task.detector.model.bbox_head.loss_cls).__name__ == "QualityFocalLoss"
    assert task.detector.model.test_cfg.max_per_img == 5
    with pytest.raises(ValueError, match="is not registered"):
        make(head_options={"neck": {"type": "os.system"}})


def test_own_config(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "_base_: retinanet/retinanet_r50_fpn_1x_coco.py\n"
        "model: {bbox_head: {anchor_generator: {octave_base_scale: 2}}}\n"
    )
    task = Detection(host(), 7, head=str(file), neck_channels=16)
    head = task.detector.model.bbox_head
    assert head.num_classes == 7
    assert head.prior_generator.octave_base_scale == 2
    # The config's neck starts at the second of four maps, of stride 8.
    assert head.prior_generator.strides == [(s, s) for s in (8, 16, 32, 64, 128)]
    assert torch.isfinite(sum(task.loss((torch.rand(2, 3, 64, 64), targets())).values()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"head": "fcoz"}, "neither a config file nor a head; did you mean 'fcos'"),
        ({"head": "none.yaml"}, "is no file"),
        ({"strides": (8, 4)}, r"`strides` \(=\(8, 4\)\) must be rising"),
        ({"strides": (2, 4)}, r"which are \(4, 8, 16, 32\)"),
        ({"extra_levels": -1}, r"`extra_levels` \(=-1\)"),
        ({"neck_channels": 0}, r"`neck_channels` \(=0\)"),
        ({"anchor_scale": 0}, r"`anchor_scale` \(=0\)"),
        ({"head": "rtmdet", "anchor_scale": 4}, r"`anchor_scale` \(=4\) must be None .*RTMDet"),
        ({"head": "yolox", "extra_levels": 1}, r"`extra_levels` \(=1\) must be None .*YOLOX"),
        ({"head": "faster_rcnn", "head_convs": 2}, r"`head_convs` \(=2\) must be None .*Faster"),
        ({"std": (1, 1)}, r"`std` \(=\(1, 1\)\)"),
        ({"num_classes": 0}, r"`num_classes` \(=0\)"),
        ({"backbone": torch.nn.Identity()}, "`features_only=True`"),
        ({"lr": 0}, r"`lr` \(=0\)"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        Detection(**{"backbone": host(), "num_classes": 3, "head": "fcos", **arguments})


def test_targets_that_do_not_fit():
    images = torch.rand(2, 3, 64, 64)
    with pytest.raises(ValueError, match="one for each image"):
        make().loss((images, targets(1)))
    with pytest.raises(ValueError, match="need `masks`"):
        make("mask_rcnn").loss((images, targets()))
    with pytest.raises(
        ValueError, match=r"`labels` \(up to 3\) must be below `num_classes` \(=3\)"
    ):
        make().loss((images, [{"boxes": torch.ones(1, 4), "labels": torch.tensor([3])}] * 2))


MAPS = [FeatureMap(i, 10 * (i + 1), 4 * 2**i) for i in range(4)]


def test_choice_of_maps():
    assert [m.stride for m in choose_maps(MAPS, None, (8, 16, 32))] == [8, 16, 32]
    assert [m.stride for m in choose_maps(MAPS[:2], None, (8, 16, 32))] == [8]
    assert [m.index for m in choose_maps(MAPS, (4, 16), ())] == [0, 2]
    twice = [*MAPS, FeatureMap(4, 9, 32)]
    assert choose_maps(twice, None, (32,))[0].index == 4
    with pytest.raises(ValueError, match="choose them by `strides`"):
        choose_maps(MAPS, None, (64,))
    assert maps_taken({"neck": [{"in_channels": [1, 2]}, {}]}, MAPS) == MAPS[2:]
    assert maps_taken({"neck": {"in_channels": 9}}, MAPS) == MAPS[3:]
    with pytest.raises(ValueError, match="has 1 feature maps and the config takes 2"):
        maps_taken({"neck": {"in_channels": [1, 2]}}, MAPS[:1])


def test_wiring_of_an_r_cnn():
    from tasks.openmm.configs import shipped_config

    config = wire(
        shipped_config("mmdet", HEADS["mask_rcnn"].config), MAPS[:3], 5,
        extra=1, neck_channels=24, head_convs=2, anchor_scale=3,
    )  # fmt: skip
    assert config["neck"]["in_channels"] == [10, 20, 30]
    assert config["neck"]["num_outs"] == 4
    anchors = config["rpn_head"]["anchor_generator"]
    assert (anchors["strides"], anchors["scales"]) == ([4, 8, 16, 32], [3])
    roi = config["roi_head"]
    for extractor in (roi["bbox_roi_extractor"], roi["mask_roi_extractor"]):
        assert (extractor["featmap_strides"], extractor["out_channels"]) == ([4, 8, 16], 24)
    assert roi["bbox_head"]["fc_out_channels"] == 96
    assert roi["mask_head"]["num_convs"] == 2
    assert roi["bbox_head"]["num_classes"] == roi["mask_head"]["num_classes"] == 5


def test_fcos_levels_take_sizes_without_a_gap():
    from tasks.openmm.configs import shipped_config

    # The config's neck starts at the second of its maps.
    config = wire(shipped_config("mmdet", HEADS["fcos"].config), MAPS, 5)
    ranges = config["bbox_head"]["regress_ranges"]
    # FCOS's own, section 3.2.
    assert ranges == ((-1, 64), (64, 128), (128, 256), (256, 512), (512, 1e8))


@pytest.fixture
def scenes(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVBOARD_CACHE", str(tmp_path / "cache"))
    return DetectionData(
        "scenes", batch_size=4, eval_batch_size=5, options={"train": 12, "val": 7, "classes": 3}
    )


def fit(task, data, tmp_path, epochs=1, **options):
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, default_root_dir=tmp_path,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        enable_checkpointing=False, log_every_n_steps=1, **options,
    )  # fmt: skip
    trainer.fit(task, data)
    return trainer


lightning_s = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*isinstance.treespec, LeafSpec"
)


@lightning_s
def test_training_logs_scores_and_outcomes(scenes, tmp_path):
    task = make("retinanet", head_options={"test_cfg": {"score_thr": 0.0}}, lr=1e-3, ema_decay=0.9)
    trainer = fit(task, scenes, tmp_path)
    logged = trainer.callback_metrics
    assert {"train/loss", "train/loss_cls", "val/mAP", "val/mAP50"} <= set(logged)
    assert set(task.scores()) <= set(task.metrics_info)
    assert task.headline in task.metrics_info
    assert set(task.per_class()) == {"0", "1", "2"}
    outcomes = task.outcomes()
    assert outcomes["objects"].shape == (7, 3)
    assert set(np.unique(outcomes["image"])) <= set(range(7))
    assert len(outcomes["image"]) == len(outcomes["score"]) == len(outcomes["matched"])
    assert outcomes["objects"].sum() == sum(len(i.boxes) for i in scenes.val_set.images.images)
    # The best a detection can do is to match each object once.
    assert (outcomes["matched"] == 1).sum() <= outcomes["objects"].sum()


@lightning_s
def test_equal_seeds_give_equal_weights(scenes, tmp_path):
    weights = []
    for draws in range(2):
        torch.manual_seed(0)
        task = make("faster_rcnn")
        torch.manual_seed(draws)
        fit(task, scenes, tmp_path, limit_val_batches=0)
        weights.append(task.state_dict())
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


@lightning_s
def test_checkpoints_load_as_weights_only(scenes, tmp_path):
    task = make()
    trainer = fit(task, scenes, tmp_path)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    again = make(seed=5)
    again.load_state_dict(saved["state_dict"])
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        one, other = (t.eval().detector.model(images) for t in (task, again))
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@lightning_s
def test_classes_must_be_those_of_the_data(scenes, tmp_path):
    task = Detection(host(), 4, head="fcos", **LIGHT)
    with pytest.raises(ValueError, match=r"`num_classes` \(=4\) of the model must be the data's 3"):
        fit(task, scenes, tmp_path)
    with pytest.raises(ValueError, match=r"`masks` \(=False\) must be True"):
        fit(make("mask_rcnn"), scenes, tmp_path)


class Oracle(Detection):
    """Finds what is there, in the pixels of the network's images."""

    def _detect(self, images, sizes, originals):
        found = []
        for target, size, original in zip(self.now, sizes, originals, strict=True):
            scale = torch.tensor([original[1] / size[1], original[0] / size[0]]).repeat(2)
            boxes = target["boxes"] * scale
            found.append(
                {"boxes": boxes, "labels": target["labels"], "scores": torch.ones(len(boxes))}
            )
        return found


def test_scores_are_in_the_pixels_of_the_file(tmp_path):
    """Boxes of the resized image, scaled back, are those of the file: a perfect score."""
    data = DetectionData(
        "scenes", str(tmp_path), image_size=(40, 80), batch_size=2,
        options={"train": 4, "val": 6, "classes": 2, "size": 64},
    )  # fmt: skip
    data.setup("fit")
    task = Oracle(host(), 2, head="fcos", **LIGHT)
    for images, batch in data.val_dataloader():
        assert images.shape[-2:] == (40, 80)
        task.now = batch
        task.score((images, batch))
    assert task.scores()["mAP"] == 1
    assert (task.outcomes()["matched"] == 1).all()


@pytest.mark.slow
@lightning_s
def test_digits_are_learnt(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVBOARD_CACHE", str(tmp_path / "cache"))
    knobs = {"train": 600, "val": 60, "classes": 3, "contrast": 0.8, "objects": (1, 2)}
    data = DetectionData("scenes", batch_size=16, flip=0.0, options=knobs)
    task = make("fcos", neck_channels=32, lr=3e-3, warmup_epochs=0.5)
    fit(task, data, tmp_path, epochs=4, check_val_every_n_epoch=4)
    assert task.scores()["mAP50"] > 0.3
