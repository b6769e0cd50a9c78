"""The operators' forms against their public code: equal, recorded, compared between commits."""

import pytest
import torch

from bench import operators
from bench.config.speed import SpeedConfig
from bench.record import load_all
from bench.run import perf
from bench.speed.gate import randomise
from bench.speed.published import Published


def layer(name, published, size=9):
    torch.manual_seed(0)
    place = perf.Shape(12, size, 13 if name == "shift" else 7)
    return randomise(perf._layer(name, place, published), 0).eval()


@pytest.mark.parametrize("name", list(perf.KERNELS))
def test_the_public_form_computes_the_operator(name):
    ours, public = layer(name, False), layer(name, True)
    x = torch.randn(2, 12, 9, 9)
    with torch.no_grad():
        expected = ours(x)
        for form in (public, perf._inference_form(public), perf._inference_form(ours)):
            torch.testing.assert_close(form(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(perf.KERNELS))
def test_a_training_step_of_the_public_form_has_the_same_gradients(name):
    gradients = []
    for published in (False, True):
        model, x = layer(name, published).train(), torch.ones(2, 12, 9, 9).cumsum(3)
        x = (x / 9).requires_grad_()
        model(x).square().mean().backward()
        gradients.append([x.grad, *[p.grad for p in model.parameters()]])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_public_forms_are_torchs_own_calls():
    timed = Published(operators.create("unireplk", in_channels=4, out_channels=4, kernel_size=13))
    assert type(timed.eval().timed()) is torch.nn.Conv2d


def test_the_ceiling_bounds_by_arithmetic_or_memory():
    limit = perf.Ceiling(flops=2e9, bytes=1e9)
    assert limit.ms(macs=5_000_000, moved=1) == 5
    assert limit.ms(macs=1, moved=3_000_000) == 3
    assert perf._work("dwconv", perf.Shape(4, 8, 7), 2, 4) == (2 * 4 * 64 * 49, 4 * (2 * 512 + 200))


@pytest.mark.slow
def test_records_are_kept_by_commit_and_compared(tmp_path, convboard):
    command = ["perf", "--runs", str(tmp_path), "--operators", "parc", "--scope", "operator"]
    command += ["--batch", "1", "--processes", "2", "--rounds", "2", "--threads", "1"]
    first = convboard(*command)
    assert first.returncode == 0, first.stderr
    (folder,) = [f for f in (tmp_path / "perf").iterdir() if f.name != "samples"]
    records = load_all(folder)
    assert {r.entry.form for r in records} == {"fused", "published"}
    assert all(r.status == "ok" and r.speed.conditions.forms == "measured" for r in records)
    assert any(r.speed.forms for r in records)
    rows = perf.kept_rows(folder)
    assert len(rows) == len(perf.PLACES)
    row = next(iter(rows.values()))
    change = perf.change(row, row)
    assert change.value == pytest.approx(1)
    assert change.low < 1 < change.high
    again = convboard(*command, "--against", folder.name)
    assert "ours / before" in again.stdout
    unknown = convboard(*command, "--against", "0123456", status=2)
    assert unknown.returncode == 2
    assert folder.name[:12] in unknown.stderr


def test_the_plan_of_the_command_holds_both_scopes():
    plan = SpeedConfig(scopes={"operator": [1], "training": [2]})
    races = perf.races(["parc", "icconv"], plan, "perf")
    assert len({race.hash for race in races}) == len(races) == 16
    assert {race.baseline for race in races} == {"parc, published", "icconv, published"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_timed(convboard):
    done = convboard("perf", "--device", "cuda", "--operators", "dwconv", status=2, at_once=True)
    assert "`device` (='cuda') must be present" in done.stderr
