"""Exported forms: ONNX Runtime for real, OpenVINO by a module that stands for it."""

import json
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from bench.backbones import build, fuse
from bench.speed import Settings
from bench.speed.campaign import Campaign
from bench.speed.crew import Crew
from bench.speed.exported import ENGINES, iteration
from bench.speed.gate import snapshot
from bench.speed.result import ArmResult


class OpenVINO(SimpleNamespace):
    """What is asked of OpenVINO, done by ONNX Runtime; remembers how it was asked."""

    def __init__(self):
        super().__init__(asked=[], Core=lambda: self, Tensor=self.tensor)

    def tensor(self, array, shared_memory):
        assert shared_memory
        return array

    def read_model(self, model):
        return model

    def compile_model(self, model, device, config):
        import onnxruntime

        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.asked.append((device, config))
        return self

    def create_infer_request(self):
        return Request(self.session)


class Request:
    def __init__(self, session):
        self.session, self.outputs = session, {}

    def set_input_tensor(self, array):
        self.input = array

    def set_output_tensor(self, index, array):
        self.outputs[index] = array

    def infer(self, share_outputs):
        assert share_outputs
        results = self.session.run(None, {self.session.get_inputs()[0].name: self.input})
        for index, values in enumerate(results):
            self.outputs[index][...] = values


@pytest.fixture
def openvino(monkeypatch):
    module = OpenVINO()
    monkeypatch.setitem(sys.modules, "openvino", module)
    return module


@pytest.mark.parametrize("engine", ENGINES)
def test_the_exported_form_returns_what_the_form_returns(engine, make, openvino):
    torch.manual_seed(0)
    model, x = make.Block().eval().requires_grad_(False), torch.randn(2, 3, 8, 8)
    wanted = snapshot(model(x))
    step = iteration(model, x, engine, 1)
    for _ in range(2):
        got = snapshot(step())
        assert got.keys() == wanted.keys()
        for place, values in got.items():
            torch.testing.assert_close(values, wanted[place], rtol=1e-5, atol=1e-6)
    x.zero_()  # the input is bound, not copied
    torch.testing.assert_close(snapshot(step()), snapshot(model(x)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_exported_forms_are_gated_and_timed(engine, make, openvino, run_here):
    arms = {"right": make.Block, "wrong": partial(make.Block, right=False)}
    cells = run_here(arms, baseline="right", engine=engine, threads=1, batches=(2,))
    statuses = {label: cell["status"] for (label, _), cell in cells.items()}
    assert statuses == {"right": "ok", "wrong": "invalid"}
    good = cells["right", 2]
    assert 0 < good["gate_error"] < 1e-5
    assert len(good["samples_ms"]) == 3
    assert good["first_call_ms"] > 0
    if engine == "openvino":
        device, config = openvino.asked[0]
        assert (device, config["INFERENCE_NUM_THREADS"]) == ("CPU", 1)
        assert config["INFERENCE_PRECISION_HINT"] == "f32"


def test_an_output_that_is_never_filled_is_stopped(make, openvino, run_here, monkeypatch):
    monkeypatch.setattr(Request, "infer", lambda self, share_outputs: None)
    cells = run_here({"a": make.Block}, baseline="a", engine="openvino", batches=(1,))
    assert cells["a", 1]["status"] == "invalid"
    assert "of the timed form is not finite" in cells["a", 1]["error"]


@pytest.mark.parametrize(
    ("engine", "missing", "extra"),
    [
        ("onnxruntime", "onnxruntime", "onnx"),
        ("onnxruntime", "onnxscript", "onnx"),
        ("openvino", "openvino", "openvino"),
    ],
)
def test_an_engine_that_is_not_installed_is_not_supported(
    engine, missing, extra, make, run_here, monkeypatch
):
    monkeypatch.setitem(sys.modules, missing, None)
    cells = run_here({"a": make.Block}, baseline="a", engine=engine)
    assert {cell["status"] for cell in cells.values()} == {"unsupported"}
    assert f"pip install 'convboard[{extra}]'" in cells["a", 1]["error"]


def test_what_cannot_be_exported_is_not_supported_and_the_others_go_on(make, run_here):
    arms = {"k3": make.Block, "branching": make.Branching}
    cells = run_here(arms, baseline="k3", engine="onnxruntime", batches=(1,))
    assert cells["k3", 1]["status"] == "ok"
    assert cells["branching", 1]["status"] == "unsupported"
    assert (
        "`engine` (='onnxruntime') must be able to run the network"
        in (cells["branching", 1]["error"])
    )


@pytest.mark.parametrize(
    ("status", "done"), [("ok", True), ("unsupported", True), ("invalid", False), ("oom", False)]
)
def test_a_run_of_what_is_not_supported_is_done(status, done, tmp_path):
    with Crew(ahead=1) as crew:
        campaign = Campaign(tmp_path, 60, crew)
        run = campaign.begin("key", ["process-000"])
        cell = {"label": "a", "batch": 1, "status": status}
        (tmp_path / "process-000.json").write_text(json.dumps({"cells": [cell]}))
        assert (campaign.begin("key", ["process-000"]) == run) is done


def test_a_row_names_its_engine():
    settings = Settings("a", (8, 8), engine="onnxruntime")
    speed = ArmResult("a", 1, settings, "run", status="unsupported", error="why").speed()
    assert (speed.engine, speed.compiled, speed.latency_median_ms) == ("onnxruntime", False, None)


@pytest.mark.slow
def test_a_fused_network_passes_the_gate(run_here):
    network = partial(
        build, "test_convnext", operator="parc", input_size=(32, 32), features_only=True
    )
    changes = {"input_size": (32, 32), "batches": (1,), "engine": "onnxruntime"}
    cells = run_here({"parc": network}, prepare=fuse, baseline="parc", **changes)
    assert cells["parc", 1]["error"] is None
