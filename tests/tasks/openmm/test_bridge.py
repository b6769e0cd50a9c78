"""The bridge to mmdet and mmseg: versions, configs, and models around a ConvBoard backbone."""

import subprocess
import sys
import textwrap

import pytest
import timm
import torch

from bench.errors import ConfigError
from tasks.detection.heads import HEADS, choose_maps, maps_taken, wire
from tasks.feature_maps import feature_maps
from tasks.openmm import configs, detectors, extension, models

BOXES = torch.tensor([[5.0, 5, 30, 30], [20, 10, 60, 50]])


def run_alone(code):
    """Run code in a process of its own: what is imported once cannot be imported otherwise."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True, text=True
    )


def test_imports_without_a_warning():
    done = run_alone("import tasks.openmm")
    assert done.returncode == 0, done.stderr


def test_versions_that_fit_pass():
    extension.check_versions()


def test_one_message_names_all_versions_that_are_refused(monkeypatch):
    known = {"mmengine": "0.10.7", "mmcv": "2.2.0", "mmdet": "3.2.0"}

    def version(name):
        if name not in known:
            raise extension.PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(extension, "version", version)
    with pytest.raises(ImportError) as error:
        extension.check_versions()
    message = str(error.value)
    assert "mmcv 2.2.0 is not at least 2.0.0rc4 and below 2.2.0" in message
    assert "mmdet 3.2.0 is not at least 3.3.0" in message
    assert "mmseg is not installed (`pip install mmsegmentation`)" in message
    assert "mmengine 0" not in message


@pytest.mark.parametrize("loads", [True, False])
def test_a_compiled_mmcv_is_used_where_there_is_one(tmp_path, loads):
    """A stand-in for mmcv's compiled part, found on mmcv's path."""
    body = "def __getattr__(name): return lambda *a, **k: 'compiled'" if loads else "import no_such"
    (tmp_path / "_ext.py").write_text(body)
    done = run_alone(
        f"""
        import warnings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mmcv
            mmcv.__path__.append({str(tmp_path)!r})
            from tasks.openmm import packages
        import sys
        print(packages.WITHOUT_COMPILED, sys.modules["mmcv.ops.nms"].ext_module.nms())
        """
    )
    if loads:
        assert done.stdout.split() == ["False", "compiled"], done.stderr
    else:
        assert "does not load with torch" in done.stderr
        assert "install mmcv-lite" in done.stderr


def test_unknown_shipped_config():
    with pytest.raises(ConfigError, match="no config of mmdet; did you mean"):
        configs.shipped_config("mmdet", "faster_rcnn/faster-rcnn_r50_fpn_1x_coc.py")
    with pytest.raises(ConfigError, match="no config"):
        configs.shipped_config("mmdet", "../../__init__.py")


def write(path, text):
    path.write_text(textwrap.dedent(text), encoding="utf-8", errors="surrogateescape")
    return path


def test_yaml_on_top_of_a_shipped_config(tmp_path):
    file = write(
        tmp_path / "mine.yaml",
        """
        _base_: faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py
        model:
          neck: {out_channels: 32}
          roi_head: {bbox_head: {loss_bbox: {type: SmoothL1Loss, beta: 0.5}}}
        """,
    )
    config = configs.read_config("mmdet", file)
    assert config["neck"] == {
        "type": "FPN",
        "in_channels": [256, 512, 1024, 2048],
        "out_channels": 32,
        "num_outs": 5,
    }
    assert config["roi_head"]["bbox_head"]["loss_bbox"] == {"type": "SmoothL1Loss", "beta": 0.5}
    assert config["roi_head"]["bbox_head"]["fc_out_channels"] == 1024


def test_a_python_config_runs_only_where_trusted(tmp_path):
    mark = tmp_path / "ran"
    text = f"open({str(mark)!r}, 'w').close()\nmodel = dict(type='FCOS')\n"
    file = write(tmp_path / "mine.py", text)
    with pytest.raises(ConfigError, match="trust_config=True"):
        configs.read_config("mmdet", file)
    assert not mark.exists()
    assert configs.read_config("mmdet", file, trust=True) == {"type": "FCOS"}
    assert mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        "model: {type: os.system, command: 'true'}",
        "model: {type: FCOS, test_cfg: {nms: {type: '__import__(\"os\").getcwd()'}}}",
        "model: {type: FCOS, neck: [{type: subprocess}]}",
        "model: {type: FCOS, neck: {type: [1]}}",
    ],
)
def test_a_yaml_config_cannot_run_code(tmp_path, text):
    with pytest.raises(ConfigError, match="is not registered"):
        configs.read_config("mmdet", write(tmp_path / "bad.yaml", text))


@pytest.mark.parametrize(
    "text",
    [
        "model: {type: KnowledgeDistillationSingleStageDetector, teacher_config: TEACHER}",
        "model: {type: mmdet.LAD, teacher_ckpt: TEACHER}",
        "model: {type: FCOS, neck: {type: CameraMotionCompensation, warp_mode: '1 + 1'}}",
        "model: {type: FCOS, neck: {type: BertModel, name: somebody/bert}}",
        "_base_: ld/ld_r18-gflv1-r101_fpn_1x_coco.py\nmodel: {teacher_config: TEACHER}",
    ],
)
def test_what_runs_or_fetches_what_a_string_names_is_not_built(tmp_path, text):
    mark = tmp_path / "ran"
    teacher = write(tmp_path / "teacher.py", f"open({str(mark)!r}, 'w').close()\n")
    own = write(tmp_path / "own.yaml", text.replace("TEACHER", str(teacher)))
    with pytest.raises(ConfigError, match="would run or fetch what a config names"):
        configs.read_config("mmdet", own)
    assert not mark.exists()


def test_weights_of_others_are_left_out_of_every_part():
    config = configs.shipped_config("mmseg", "fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py")
    normal = {"type": "Normal", "std": 0.5, "layer": "Conv2d"}
    download = {"type": "Pretrained", "checkpoint": "torchvision://resnet18"}
    host = timm.create_model("test_resnet", features_only=True, out_indices=(1,))
    head = {"in_channels": host.feature_info.channels()[0], "in_index": 0, "channels": 8}
    config["decode_head"] |= {**head, "init_cfg": [download, normal]}
    config["auxiliary_head"] = None
    model = models.build("mmseg", config, host)
    assert model.decode_head.init_cfg == [normal]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "model: !!python/object/apply:os.getcwd []", "cannot be parsed"),
        ("a.yaml", "{", "cannot be parsed"),
        ("a.yaml", "neck: {type: FPN}", "has no `model`"),
        ("a.yaml", "[1]", "must hold a mapping"),
        ("a.json", "{", "cannot be parsed"),
        ("a.yaml", "model: {type: \udce9}", "cannot be parsed"),
        ("a.yaml", "a: 2024-13-45", "cannot be parsed"),
        ("a.txt", "", "must be a .yaml, .yml, .json or .py file"),
        ("a.yaml", "model: {type: FCOZ}", "did you mean 'FCOS'"),
    ],
)
def test_configs_that_cannot_be_read(tmp_path, name, text, message):
    with pytest.raises(ConfigError, match=message):
        configs.read_config("mmdet", write(tmp_path / name, text))
    with pytest.raises(ConfigError, match="is no file"):
        configs.read_config("mmdet", tmp_path / "none.yaml")


def test_every_part_of_the_shipped_heads_may_be_named():
    for name in (head.config for head in HEADS.values()):
        configs.check_types(configs.shipped_config("mmdet", name), name)


def test_a_part_of_another_type_is_replaced_whole():
    old = {"loss": {"type": "FocalLoss", "gamma": 2.0}, "neck": {"type": "FPN", "num_outs": 5}}
    new = configs.merged(old, {"loss": {"type": "L1Loss"}, "neck": {"num_outs": 3}})
    assert new == {"loss": {"type": "L1Loss"}, "neck": {"type": "FPN", "num_outs": 3}}
    assert old["neck"]["num_outs"] == 5


def test_a_lent_backbone_is_not_among_the_weights():
    host = timm.create_model("test_resnet", features_only=True)
    config = wire(configs.shipped_config("mmdet", HEADS["fcos"].config), feature_maps(host)[-3:], 2)
    own = models.build("mmdet", config, host, indices=[2, 3, 4])
    lent = models.build("mmdet", config, host, indices=[2, 3, 4], owned=False)
    assert own.backbone.module is host is lent.backbone.module
    weights = {f"backbone._owned.{name}" for name in host.state_dict()}
    assert set(own.state_dict()) - set(lent.state_dict()) == weights
    images = torch.randn(1, 3, 64, 64)
    assert [m.shape for m in lent.backbone(images)] == [m.shape for m in host(images)[2:]]


def train_and_predict(config, host, maps, masks=False):
    """One training step and a prediction; returns the losses."""
    torch.manual_seed(0)
    model = models.build("mmdet", config, host, indices=[m.index for m in maps]).train()
    images = torch.randn(2, 3, 64, 64)
    full = {"boxes": BOXES, "labels": torch.tensor([0, 2]), "iscrowd": torch.tensor([0, 0])}
    # The second image has one object and one region to ignore.
    targets = [full, full | {"iscrowd": torch.tensor([0, 1])}]
    if masks:
        shape = torch.zeros(2, 64, 64, dtype=torch.bool)
        shape[0, 5:30, 5:30] = shape[1, 10:50, 20:60] = True
        targets = [target | {"masks": shape} for target in targets]
    losses = detectors.detector_losses(model, images, targets)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert torch.isfinite(total)
    reached = [p.grad is not None and torch.isfinite(p.grad).all() for p in host.parameters()]
    assert all(reached)
    assert any(p.grad.abs().sum() > 0 for p in host.parameters())
    model.eval()
    for found in detectors.detector_results(
        model, images, [(64, 64), (50, 64)], [(128, 128), (50, 64)]
    ):
        count = len(found["scores"])
        assert found["boxes"].shape == (count, 4)
        assert found["labels"].shape == (count,)
        assert (
            found["labels"].numel() == 0 or 0 <= found["labels"].min() <= found["labels"].max() < 3
        )
        assert (found["scores"].diff() <= 0).all()
        assert ("masks" in found) == masks
    if masks:
        assert found["masks"].shape == (count, 50, 64)
        assert found["masks"].dtype == torch.bool
    return losses


def truncated(host, maps):
    """Leave out the layers behind the last map that is used: they get no gradient."""
    return timm.create_model(host, features_only=True, out_indices=[m.index for m in maps])


@pytest.mark.parametrize("head", sorted(HEADS))
def test_shipped_detectors_train_and_predict(head):
    known = HEADS[head]
    host = truncated("test_resnet", choose_maps(
        feature_maps(timm.create_model("test_resnet", features_only=True)), None, known.strides
    ))  # fmt: skip
    maps = feature_maps(host)
    config = configs.shipped_config("mmdet", known.config)
    light = {} if head == "faster_rcnn" else {"head_convs": 1}
    if head not in ("rtmdet", "yolox"):
        light["anchor_scale"] = 2
    openmm_config = wire(config, maps, 3, extra=known.extra, neck_channels=32, **light)
    train_and_predict(openmm_config, host, maps, known.masks)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *(head.config for head in HEADS.values()),
        "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py",
        "dino/dino-4scale_r50_8xb2-12e_coco.py",
        "vfnet/vfnet_r50_fpn_1x_coco.py",
        "gfl/gfl_r50_fpn_1x_coco.py",
        "tood/tood_r50_fpn_1x_coco.py",
    ],
)
def test_shipped_configs_at_full_width(name):
    config = configs.shipped_config("mmdet", name)
    known = feature_maps(timm.create_model("test_convnext", features_only=True))
    host = truncated("test_convnext", maps_taken(config, known))
    maps = feature_maps(host)
    if "num_queries" in config:
        # Images of 64 pixels have fewer places than the config has queries.
        config["num_queries"] = config["test_cfg"]["max_per_img"] = 20
    masks = "mask_head" in config.get("roi_head", {})
    train_and_predict(wire(config, maps, 3), host, maps, masks)


@pytest.mark.slow
def test_two_losses_of_one_seed_are_equal():
    losses = []
    for _ in range(2):
        torch.manual_seed(1)
        host = timm.create_model("test_resnet", features_only=True, out_indices=(2, 3, 4))
        maps = feature_maps(host)
        config = configs.shipped_config("mmdet", HEADS["retinanet"].config)
        losses.append(train_and_predict(wire(config, maps, 3, neck_channels=32), host, maps))
    for name, value in losses[0].items():
        torch.testing.assert_close(value, losses[1][name], rtol=0, atol=0)
