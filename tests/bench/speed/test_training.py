"""Training steps: what is computed, what the gate stops, and what their rows say."""

import sys
from functools import partial

import pytest
import torch

from bench.backbones import build
from bench.operators import choices
from bench.speed import Arm, Settings, forms, measure
from bench.speed.result import ArmResult
from bench.speed.training import TrainingStep, gradients, loss_of


def test_a_step_leaves_the_gradients_of_the_loss_and_the_weights_as_they_were(make):
    torch.manual_seed(0)
    model, x = make.Block(), torch.randn(2, 3, 8, 8)
    before = [weight.clone() for weight in model.parameters()]
    step = TrainingStep(model, x)
    loss = float(step())
    maps = model(x)["maps"][0]
    assert loss == pytest.approx(float((maps**2).mean().detach()), rel=1e-5)
    wanted = torch.autograd.grad((maps**2).mean(), list(model.parameters()))
    step()
    for weight, old, gradient in zip(model.parameters(), before, wanted, strict=True):
        assert torch.equal(weight, old)
        torch.testing.assert_close(weight.grad, gradient)
        assert step.optimiser.state[weight]["momentum_buffer"].abs().max() > 0
    compared = gradients(model, x)
    torch.testing.assert_close(compared["weights"], torch.cat([g.flatten() for g in wanted]))
    assert compared["input"].shape == x.shape


def test_the_loss_is_that_of_all_maps():
    maps = {"a": [torch.ones(2, 2)], "b": (torch.full((3,), 2.0),)}
    assert float(loss_of(maps)) == 5.0
    with pytest.raises(TypeError, match=r"`output.0` \(a str\)"):
        loss_of(["label"])


def test_norms_use_their_batch_and_weights_keep_their_gradients(make):
    settings = Settings("a", (8, 8), scope="training")
    model = forms.timed_form(forms.training_form(make.Block, settings), None, [], settings)
    assert model.norm.training
    assert all(weight.requires_grad for weight in model.parameters())
    alone = forms.training_form(make.Block, Settings("a", (8, 8)))
    assert not alone.norm.training
    assert not any(weight.requires_grad for weight in alone.parameters())


def test_steps_are_gated_and_timed(make, run_here):
    arms = {"k3": make.Block, "k7": partial(make.Block, 7)}
    cells = run_here(arms, prepare=None, baseline="k3", scope="training", batches=(2, 4))
    assert {cell["error"] for cell in cells.values()} == {None}
    assert [len(cell["samples_ms"]) for cell in cells.values()] == [3] * 4
    assert cells["k3", 2]["first_call_ms"] > 0


def test_a_form_of_equal_value_and_other_gradients_is_stopped(make, run_here):
    cells = run_here({"a": make.Block}, prepare=make.Detached, baseline="a", scope="training")
    assert {cell["status"] for cell in cells.values()} == {"invalid"}
    assert cells["a", 2]["gate_error"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_networks_pass_the_gate_in_training(run_here, dtype):
    arms = {
        name: partial(
            build, "test_convnext", operator=name, input_size=(64, 64), features_only=True
        )
        for name in ("dwconv", "parc")
    }
    changes = {"dtype": dtype, "layout": "channels_last", "input_size": (64, 64), "batches": (4,)}
    cells = run_here(arms, prepare=None, baseline="dwconv", scope="training", **changes)
    assert {label: cell["error"] for (label, _), cell in cells.items()} == dict.fromkeys(arms)


def test_rows_of_training_have_samples_per_second():
    settings = Settings("a", (8, 8), batches=(1,), scope="training", dtype="bfloat16")
    samples = [[2.0, 2.0], [2.0, 2.0]]
    result = ArmResult(
        "a", 1, settings, "run", samples_ms=samples, baseline_samples_ms=samples, gate_error=0.3
    )
    speed = result.speed()
    assert (speed.scope, speed.mode) == ("training", "training_step")
    assert speed.images_per_second.value == pytest.approx(500)
    assert speed.gate_max_error < speed.gate_tolerance


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
@pytest.mark.usefixtures("forks")
def test_training_has_a_larger_peak(make, quick, tmp_path):
    changes = {**quick, "batches": (8,), "input_size": (128, 128), "memory": True, "processes": 1}
    backbone, training = (
        measure([Arm("k3", make.Block)], baseline="k3", folder=tmp_path, scope=scope, **changes)
        for scope in ("backbone", "training")
    )
    assert training[0].status == "ok"
    assert training[0].memory.peak_rss_bytes > backbone[0].memory.peak_rss_bytes


def test_a_form_of_ours_with_wrong_gradients_of_weights_is_stopped(
    make, run_here, monkeypatch, tmp_path
):
    """It is held to torch's calls, and not to itself; nor do forms that are compared pass it."""
    cells = run_here({"a": make.Forked}, prepare=None, baseline="a", scope="training")
    assert cells["a", 1]["status"] == "ok"
    assert "plain" in cells["a", 1]["forms"].values()  # the other one was compared, and left out
    monkeypatch.setenv("CONVBOARD_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(choices, "alike", lambda value, reference: True)
    cells = run_here({"a": make.Forked}, prepare=None, baseline="a", scope="training")
    assert cells["a", 1]["status"] == "invalid"
