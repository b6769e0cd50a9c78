"""Speed runs in real processes: rows, failures, resume; and one worker in this process."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from bench import operators
from bench.backbones.fuse import chosen, fastest, fuse
from bench.record import Entry, Record
from bench.speed import SHAPES, Arm, Settings, Shape, forms, measure, operator_arms, worker
from bench.speed.job import Job, Note

QUICK = {
    "input_size": (8, 8),
    "batches": (1, 2),
    "threads": 1,
    "processes": 2,
    "rounds": 3,
    "min_block_ms": 0.1,
    "warmup_min_ms": 0,
    "warmup_cap_ms": 5,
    "memory": False,
}


def test_what_is_made_of_decisions_is_compared_before_them(make, run_here):
    arms = {"right": make.Deciding, "wrong": partial(make.Deciding, right=False)}
    cells = run_here(arms, baseline="right")
    assert cells["right", 1]["status"] == "ok"
    assert cells["right", 1]["gate_error"] > 0
    assert cells["wrong", 1]["status"] == "invalid"
    assert "output.0" in cells["wrong", 1]["error"] or "relative" in cells["wrong", 1]["error"]


def test_given_images_are_timed_in_place_of_noise(tmp_path):
    images = np.arange(2 * 3 * 8 * 8, dtype=np.float32).reshape(2, 3, 8, 8)
    np.save(tmp_path / "images.npy", images)
    job = Job(Settings(baseline="a", input_size=(8, 8)), [], b"", 0, tmp_path / "images.npy")
    one, three = (forms.inputs(job, batch) for batch in (1, 3))
    assert torch.equal(one, torch.from_numpy(images[:1]))
    assert torch.equal(three, torch.from_numpy(images[[0, 1, 0]]))
    assert forms.inputs(replace(job, images=None), 2).min() < 0


def test_trained_weights_are_timed_as_they_are(make):
    settings = Settings(baseline="a", input_size=(8, 8))
    alone = forms.training_form(make.Block, settings)
    assert not torch.equal(alone.norm.weight, torch.ones(4))
    whole = forms.training_form(make.Block, replace(settings, scope="end_to_end"))
    assert torch.equal(whole.norm.weight, torch.ones(4))


def test_images_must_be_of_the_input_size(make, tmp_path):
    with pytest.raises(ValueError, match=r"`images` \(of shape \(2, 3, 4, 4\)\)"):
        measure(
            [Arm("a", make.Block)],
            baseline="a",
            folder=tmp_path,
            images=np.zeros((2, 3, 4, 4), np.float32),
            **QUICK,
        )


def test_failures_are_rows_and_the_other_arms_go_on(make, run_here):
    cells = run_here(
        {
            "conv": make.Block,
            "wrong": partial(make.Block, right=False),
            "greedy": make.Greedy,
            "late": partial(make.Failing, 20),
            "raising": make.raising,
        },
        baseline="conv",
    )
    status = {place: cell["status"] for place, cell in cells.items()}
    assert status["conv", 1] == status["conv", 2] == status["greedy", 1] == "ok"
    assert status["wrong", 1] == status["wrong", 2] == "invalid"
    assert status["greedy", 2] == "oom"
    assert status["raising", 1] == status["raising", 2] == "error"
    assert "error" in (status["late", 1], status["late", 2])
    assert "relative error" in cells["wrong", 1]["error"]
    assert cells["wrong", 1]["gate_error"] > 1e-3
    assert cells["wrong", 1]["samples_ms"] == []
    assert "cannot be built" in cells["raising", 1]["error"]
    good = cells["conv", 2]
    assert len(good["samples_ms"]) == 3
    assert min(good["samples_ms"]) > 0
    assert 0 < good["gate_error"] < 1e-5
    assert good["warmup_iterations"] >= 10
    assert good["first_call_ms"] > 0


def test_forms_in_half_precision_and_channels_last_pass_the_gate(make, run_here):
    cells = run_here(
        {"conv": make.Block}, baseline="conv", dtype="bfloat16", layout="channels_last"
    )
    assert [cell["status"] for cell in cells.values()] == ["ok", "ok"]
    assert cells["conv", 1]["gate_error"] > 1e-4


def test_the_compiled_form_is_compiled_gated_and_its_first_call_is_apart(make, run_here):
    """`eager` is the compiler's backend that needs no toolchain."""
    seen = []
    original = nn.Module.compile

    def spy(self, **options):
        seen.append(options)
        return original(self, backend="eager", **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "compile", spy)
        cells = run_here({"conv": make.Block}, baseline="conv", engine="compile")
    assert seen == [{"dynamic": False}]
    cell = cells["conv", 1]
    assert cell["status"] == "ok"
    assert cell["first_call_ms"] > 0
    assert len(cell["samples_ms"]) == 3


def test_a_run_gives_paired_samples_intervals_memory_and_speed_records(make, tmp_path):
    told = []
    arms = [Arm("k3", make.Block), Arm("k7", partial(make.Block, 7)), Arm("bad", make.raising)]
    results = measure(
        arms,
        baseline="k3",
        prepare=make.fuse,
        folder=tmp_path,
        progress=lambda *progress: told.append(progress),
        **{**QUICK, "memory": True},
    )
    by_place = {(r.label, r.batch): r for r in results}
    assert list(by_place) == [(a.label, b) for a in arms for b in (1, 2)]
    steps = ("memory", "process-000", "process-001", "done")
    assert told == [(k, 3, name) for k, name in enumerate(steps)]
    k7 = by_place["k7", 2]
    assert [len(samples) for samples in k7.samples_ms] == [3, 3]
    assert k7.baseline_samples_ms == by_place["k3", 2].samples_ms
    ratio = k7.ratio_to_baseline
    assert ratio.low < ratio.value < ratio.high
    assert k7.images_per_second.value == pytest.approx(2000 / k7.latency_median_ms.value)
    assert k7.memory is None or 0 < k7.memory.peak_rss_bytes < 1 << 30
    assert (k7.memory is not None) == sys.platform.startswith("linux")
    baseline = by_place["k3", 1]
    assert (baseline.verdict, baseline.ratio_to_baseline) == ("baseline", None)
    bad = by_place["bad", 1]
    assert (bad.status, bad.verdict, bad.latency_median_ms) == ("error", None, None)
    assert "cannot be built" in bad.error
    for result in results:
        record = record_of(result)
        assert Record.model_validate_json(record.model_dump_json()) == record
        assert record.speed.run == results[0].run
        assert record.speed.mode == ("latency" if result.batch == 1 else "throughput")


@pytest.mark.usefixtures("forks")
def test_the_forms_that_were_taken_stand_in_the_result(tmp_path):
    shape = Shape(4, 8, 7)
    (result,) = measure(
        operator_arms(["dwconv"], shape),
        baseline="dwconv",
        in_channels=4,
        folder=tmp_path,
        **{**QUICK, "memory": True, "processes": 1, "batches": (1,)},
    )
    assert result.forms.keys() == {"0.conv", "layout"}
    assert record_of(result).speed.forms == result.forms


def record_of(result):
    from bench.machine import machine, provenance, software

    return Record(
        kind="speed",
        status=result.status,
        error=result.error,
        entry=Entry(
            label=result.label,
            operator="conv",
            operator_sha256="0",
            host="block",
            task="backbone",
            form="fused",
        ),
        speed=result.speed(),
        memory=result.memory,
        machine=machine(),
        software=software(),
        provenance=provenance(command="test", reproduce="test"),
    )


@pytest.mark.usefixtures("forks")
def test_one_process_gives_samples_but_no_interval(make, tmp_path):
    arms = [Arm("k3", make.Block), Arm("k7", partial(make.Block, 7))]
    results = measure(arms, baseline="k3", folder=tmp_path, **{**QUICK, "processes": 1})
    speed = results[-1].speed()
    assert [len(samples) for samples in speed.samples_ms] == [3]
    assert speed.latency_median_ms is None
    assert speed.ratio_to_baseline is None
    assert speed.verdict is None


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_a_finished_one_is_not_measured_again(make, tmp_path):
    arms = [Arm("k3", make.Block)]

    def interrupt(done, total, what):
        if done == 1:
            raise KeyboardInterrupt

    def run(progress=None, **changes):
        return measure(
            arms, baseline="k3", folder=tmp_path, progress=progress, **{**QUICK, **changes}
        )

    before = psutil.Process().children()  # other tests' resource trackers
    with pytest.raises(KeyboardInterrupt):
        run(interrupt)
    assert set(psutil.Process().children()) <= set(before)
    (kept,) = tmp_path.rglob("process-*.json")
    first = json.loads(kept.read_text())["cells"][0]["samples_ms"]
    whole = run()
    assert whole[0].samples_ms[0] == first
    assert len(whole[0].samples_ms) == 2
    assert {path.suffix for path in tmp_path.rglob("*.*")} == {".json"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", None)
        assert run() == whole
        with pytest.raises(TypeError):
            run(fingerprint="other code")


@pytest.mark.slow
@pytest.mark.usefixtures("forks")
def test_a_process_that_dies_is_started_again_and_then_its_arm_is_a_row(make, tmp_path):
    arms = [
        Arm("k3", make.Block),
        Arm("once", partial(make.Dying, str(tmp_path / "marker"))),
        Arm("always", make.Dying),
    ]
    changes = {"batches": (1,), "processes": 1}
    results = measure(arms, baseline="k3", folder=tmp_path, **{**QUICK, **changes})
    status = {r.label: r.status for r in results}
    assert status == {"k3": "ok", "once": "ok", "always": "oom"}
    assert "killed at stage 'reference', twice" in results[2].error
    assert [len(samples) for samples in results[0].samples_ms] == [3]


@pytest.mark.slow
@pytest.mark.usefixtures("forks")
def test_a_process_that_hangs_is_ended(make, tmp_path):
    arms = [Arm("k3", make.Block), Arm("hangs", make.Hanging)]
    changes = {"batches": (1,), "processes": 1, "process_limit_s": 10.0}
    results = measure(arms, baseline="k3", folder=tmp_path, **{**QUICK, **changes})
    assert [r.status for r in results] == ["ok", "timeout"]
    assert "ended after 10 s" in results[1].error


@pytest.mark.slow
@pytest.mark.usefixtures("forks")
def test_arms_that_die_or_hang_as_they_are_built_are_rows_and_the_others_go_on(make, tmp_path):
    """They are built as workers make ready, several at a time."""
    arms = [Arm("k3", make.Block), Arm("dies", make.dying)]
    changes = {"batches": (1,), "processes": 3}
    results = measure(arms, baseline="k3", folder=tmp_path / "a", **{**QUICK, **changes})
    assert [r.status for r in results] == ["ok", "oom"]
    assert "at stage 'build'" in results[1].error
    assert len(results[0].samples_ms) == 3
    arms = [Arm("k3", make.Block), Arm("hangs", make.hanging)]
    changes = {"batches": (1,), "processes": 1, "process_limit_s": 10.0}
    results = measure(arms, baseline="k3", folder=tmp_path / "b", **{**QUICK, **changes})
    assert [r.status for r in results] == ["ok", "timeout"]


def test_arms_are_built_before_and_what_failed_elsewhere_is_left_out(make, run_here, tmp_path):
    arms = [
        (name, pickle.dumps(factory))
        for name, factory in (("a", make.Block), ("b", make.Block), ("bad", make.raising))
    ]
    known = {name: value for name, value in QUICK.items() if name != "memory"}
    job = Job(Settings(baseline="a", **known), arms, pickle.dumps(make.fuse), 0)
    stage = worker.staged(job, Note(tmp_path / "note"))
    assert stage.models.keys() == {"a", "b"}
    stage.leave_out({("b", 1), ("b", 2), ("a", 2)})
    cells = {(c["label"], c["batch"]): c for c in worker.timed(stage)["cells"]}
    assert cells.keys() == {("a", 1), ("bad", 1), ("bad", 2)}
    assert cells["a", 1]["samples_ms"]
    assert "cannot be built" in cells["bad", 2]["error"]


@pytest.mark.parametrize(
    ("arms", "changes", "message"),
    [
        ([Arm("a", nn.Identity)], {"baseline": "b"}, r"`baseline` \(='b'\) must be one of \['a'\]"),
        ([Arm("a", nn.Identity), Arm("a", nn.Identity)], {}, "must have unlike labels"),
        ([Arm("a", lambda: nn.Identity())], {}, "`factory of a` .* must be a function of a module"),
        ([Arm("a", nn.Identity)], {"prepare": lambda model: model}, "`prepare`"),
        ([Arm("a", nn.Identity)], {"rounds": 0}, "`rounds`"),
    ],
)
def test_wrong_arguments_are_named_before_anything_runs(tmp_path, arms, changes, message):
    with pytest.raises(ValueError, match=message):
        measure(arms, folder=tmp_path, **{"baseline": "a", **QUICK, **changes})
    assert list(tmp_path.iterdir()) == []


def test_every_operator_passes_the_gate_as_a_layer(run_here):
    from bench.backbones import fuse

    shape = Shape(12, 14, 5)
    arms = {arm.label: arm.factory for arm in operator_arms(operators.names(), shape)}
    cells = run_here(
        arms,
        prepare=fuse,
        baseline="conv",
        scope="operator",
        batches=(2,),
        in_channels=12,
        input_size=shape.input_size,
    )
    assert {label for label, _ in cells} == set(operators.names())
    assert {place: cell["error"] for place, cell in cells.items() if cell["error"]} == {}


def test_operator_arms_build_layers_at_their_shapes():
    (arm,) = operator_arms(["dwconv"], Shape(8, 14, 5, stride=2))
    layer = pickle.loads(pickle.dumps(arm)).factory()
    assert layer(torch.zeros(2, 8, 14, 14)).shape == (2, 8, 7, 7)
    assert str(SHAPES[0]) == "48x56x56-k7"
    assert str(Shape(8, 14, 5, stride=2)) == "8x14x14-k5s2"
    for shape in (*SHAPES, Shape(8, 14, 5, stride=2)):
        assert Shape.parse(str(shape)) == shape


@pytest.mark.parametrize("text", ["8x14", "8x14x15-k5", "0x14-k5", "8x14-k5s0", "8x14-k5 ", ""])
def test_what_is_no_shape_is_refused(text):
    with pytest.raises(ValueError, match=r"`shape` .* must read CHANNELSxSIZE-kKERNEL"):
        Shape.parse(text)


def test_every_arm_is_compiled_however_many_there_are(make, run_here, monkeypatch):
    """They share code: by torch's own limit the ninth and those after it would run as they are."""
    compiled = []

    def counting(graph, examples):
        compiled.append(len(examples))
        return graph.forward

    whole = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda m, **k: whole(m, backend=counting, **k))
    for name in ("recompile_limit", "accumulated_recompile_limit", "fail_on_recompile_limit_hit"):
        monkeypatch.setattr(torch._dynamo.config, name, getattr(torch._dynamo.config, name))
    torch._dynamo.reset()
    arms = {str(size): partial(make.Block, size) for size in (1, 3, 5, 7, 9, 11)}
    cells = run_here(arms, prepare=make.fuse, baseline="1", engine="compile", layout="contiguous")
    torch._dynamo.reset()
    assert {cell["status"] for cell in cells.values()} == {"ok"}
    assert len(compiled) == len(cells) == 12


def test_the_layout_is_said_where_none_was_measured(make, run_here):
    arms = {"conv": make.Block}
    cells = run_here(arms, baseline="conv", forms="rule")
    assert cells["conv", 1]["forms"] == {"layout": "contiguous"}
    cells = run_here(arms, baseline="conv", forms="rule", layout="channels_last")
    assert cells["conv", 1]["forms"] == {"layout": "channels_last"}
    cells = run_here(arms, baseline="conv")  # it has no forms, and a layout was measured
    assert cells["conv", 1]["forms"].keys() == {"layout"}


@pytest.mark.parametrize("last", [False, True])
def test_the_layout_of_a_single_depthwise_layer_is_the_one_it_has(last):
    """Its kernel is contiguous in either layout."""
    model = nn.Sequential(operators.create("dwconv", in_channels=4, out_channels=4))
    layout = "channels_last" if last else "contiguous"
    fused = fastest(fuse(model), torch.zeros(1, 4, 8, 8), layout=layout)
    assert chosen(fused, 1)["layout"] == layout


def test_a_compiler_that_is_installed_and_broken_ends_no_worker(make, quick, monkeypatch):
    monkeypatch.setattr(worker.jit, "preload", lambda: 1 / 0)
    arms = [("a", pickle.dumps(make.Block))]
    known = {name: value for name, value in quick.items() if name != "memory"}
    worker.import_all(Job(Settings(baseline="a", **known), arms, pickle.dumps(make.fuse), 0))
