"""What is exported computes what was trained; a file of a network is data."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from bench.errors import Failure, UserError
from bench.run import export_model
from bench.run.network_file import KEY, load
from bench.run.trained import Alone
from tasks import Classification, Detection, Segmentation

BACKBONE = {"host": "test_convnext", "operator": "acb", "input_size": [64, 64]}
MAPS = {"features_only": True}
TASKS = {
    "classification": (Classification, {}, {}),
    "detection": (Detection, {"head": "fcos", "neck_channels": 16, "head_convs": 1}, MAPS),
    "segmentation": (Segmentation, {"head": "fpn", "head_channels": 16}, MAPS),
}


def network(task, seed=0):
    """A network of a task without data, as a finished cell's."""
    from bench.config import lightning
    from bench.speed.gate import randomise

    cls, head, maps = TASKS[task]
    backbone = {"class_path": "bench.backbones.build", "init_args": BACKBONE | maps}
    model = {"class_path": f"tasks.{cls.__name__}", "init_args": {**head, "backbone": backbone}}
    torch.manual_seed(seed)
    module = randomise(lightning.build_module(model, 3)).eval()
    return Alone(module, None, ("a", "b", "ü"), {"model": model})


@pytest.fixture
def exported(monkeypatch, tmp_path):
    def export(task, *formats):
        monkeypatch.setattr(export_model, "alone", lambda store, run: network(task))
        return export_model.export_cell(None, SimpleNamespace(), formats, tmp_path, "mine")

    return export


@pytest.mark.parametrize("task", TASKS)
def test_both_forms_are_read_again_and_are_of_equal_value(task, exported):
    trained, fused = exported(task, "safetensors")
    assert trained.error == 0
    assert fused.error < 1e-3
    again, about = load(fused.path)
    assert about.class_names == ["a", "b", "ü"]
    assert about.fused
    assert not again.training
    assert fused.words.startswith(str(fused.path))


@pytest.mark.parametrize("form", ["onnx", "torch_export"])
def test_a_program_is_what_was_trained(form, exported):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    (made,) = exported("classification", form)
    assert made.error < 1e-3
    assert made.path.stat().st_size > 1000
    assert not made.maps


def test_a_folder_that_cannot_be_written_is_not_the_formats_fault(exported, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.export, "save", full)
    with pytest.raises(OSError, match="No space left"):
        exported("classification", "torch_export")


def test_an_error_without_words_is_told_by_its_kind(exported, monkeypatch):
    def refuse(*_, **others):
        raise NotImplementedError

    monkeypatch.setattr(torch.export, "export", refuse)
    with pytest.raises(UserError, match="cannot be exported so: NotImplementedError"):
        exported("classification", "torch_export")


@pytest.mark.parametrize("step", ["loaded", "compared"])
def test_a_file_that_is_not_proved_is_not_left_behind(step, exported, monkeypatch, tmp_path):
    def refuse(*_, **others):
        raise ValueError("no such operator")

    def loaded(*_):
        return refuse if step == "compared" else refuse()

    monkeypatch.setattr(export_model.exported, "preload", lambda *_: None)
    monkeypatch.setattr(export_model.exported, "onnx_file", lambda *_: b"a network")
    monkeypatch.setattr(export_model.exported, "loaded", loaded)
    with pytest.raises(ValueError, match="no such operator"):
        exported("classification", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_compute_the_same_is_a_failure(exported, monkeypatch, tmp_path):
    monkeypatch.setattr(export_model, "load", lambda path: (network("classification", 1).module, 0))
    with pytest.raises(Failure, match="does not compute what was trained"):
        exported("classification", "safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_data(tmp_path):
    path = tmp_path / "bad.safetensors"
    with pytest.raises(UserError, match="must be a file"):
        load(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(UserError, match="is not safetensors"):
        load(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="without the recipe"):
        load(path)
    backbone = {"class_path": "bench.backbones.build", "init_args": {"host": "os:abort"}}
    model = {"class_path": "tasks.Classification", "init_args": {"backbone": backbone}}
    about = {"model": model, "class_names": ["a", "b"], "input_size": [64, 64], "fused": False}
    save_file({"x": torch.zeros(1)}, path, metadata={KEY: json.dumps(about)})
    with pytest.raises(UserError, match="would run code"):
        load(path)
