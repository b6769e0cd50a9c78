"""Races without a suite: operators in a host, and alone, timed and kept like those of suites."""

import pytest
import torch

from bench.backbones import fuse
from bench.config.schema import load_host, load_operator
from bench.config.speed import SpeedConfig
from bench.operators import jit
from bench.operators.forms import Formed
from bench.record import Record
from bench.run.timing import time_race
from bench.run.untrained import forms_race, host_race, layers_race
from bench.speed.layers import Shape, exact_forms, fuse_in_form, layer_in_form
from bench.store import Store
from bench.store.export import export
from leaderboard.growth import growths

SHORT = {"processes": 2, "rounds": 2, "min_block_ms": 0.1, "warmup_cap_ms": 5, "threads": 1}


def arms(*operators):
    return [load_operator(operator) for operator in operators]


def in_host(*operators, where=None, **plan):
    return host_race(
        load_host("test_convnext"),
        arms(*operators),
        "backbone",
        SpeedConfig(**{**SHORT, "scopes": {"backbone": [1]}, **plan}),
        size=(32, 64),
        where=where,
        words="--operators dwconv,parc",
    )


@pytest.mark.slow
def test_operators_in_a_host_are_timed_and_kept_and_one_without_a_slot_is_a_row(tmp_path):
    fields = {"label": "nowhere", "where": {"kernel_size": 9}}
    nowhere = load_operator("parc").model_copy(update=fields)
    race = in_host("dwconv", "parc", nowhere, where={"kernel_size": 7})
    assert time_race(race, tmp_path / "runs", "convboard speed")
    assert Store(tmp_path / "runs").kept()[race.hash].done
    records = [Record.load(p) for p in export(Store(tmp_path / "runs"), tmp_path / "out").records]
    by_label = {record.entry.label: record for record in records}
    lost = by_label.pop("nowhere")
    assert lost.status == "unsupported"
    assert "kernel_size" in lost.error
    assert {record.status for record in by_label.values()} == {"ok"}
    parc = by_label["parc"]
    assert parc.speed.input_size == (32, 64)
    assert parc.speed.baseline == "dwconv"
    assert parc.speed.ratio_to_baseline is not None
    assert parc.entry.selection == {"kernel_size": 7}
    assert (parc.entry.host, parc.entry.task, parc.recipe) == ("test_convnext", "backbone", None)
    assert parc.provenance.reproduce == "convboard speed --operators dwconv,parc"
    assert parc.provenance.suite is None


@pytest.mark.parametrize("form", ["train", "fused"])
def test_the_form_that_is_asked_for_is_timed(form, tmp_path, monkeypatch):
    asked = {}

    def measure(arms, **settings):
        asked.update(settings)
        raise InterruptedError

    monkeypatch.setattr("bench.speed.arms.measure", measure)
    with pytest.raises(InterruptedError):
        time_race(in_host("dwconv", form=form), tmp_path / "runs", "convboard speed")
    prepare = asked["prepare"]
    if form == "train":
        assert prepare is None
    else:
        assert (prepare.func, prepare.keywords) == (fuse, {"inplace": True})


@pytest.mark.slow
def test_operators_alone_are_timed_at_their_shape(tmp_path):
    plan = SpeedConfig(**{**SHORT, "processes": 1}, scopes={"operator": [1, 2]})
    race = layers_race(arms("dwconv", "shift"), "8x14-k5", plan, baseline="dwconv", words="")
    records = time_race(race, tmp_path / "runs", "convboard speed")
    assert [(r.entry.label, r.speed.batch) for r in records] == [
        (label, batch) for label in ("dwconv", "shift") for batch in (1, 2)
    ]
    assert {r.status for r in records} == {"ok"}
    assert {r.speed.scope for r in records} == {"operator"}
    other = layers_race(arms("dwconv"), "16x14-k5", plan, baseline="dwconv", words="")
    assert other.hash != race.hash


@pytest.mark.slow
def test_each_exact_form_is_timed_gated_and_kept_and_they_make_a_curve(tmp_path):
    plan = SpeedConfig(**SHORT, scopes={"operator": [1]}, memory=False)
    (parc,) = arms("parc")
    for shape in ("8x7-k7", "8x14-k7"):
        race = forms_race(parc, shape, plan, words="--operators parc --each-form")
        time_race(race, tmp_path / "runs", "convboard speed")
    records = [Record.load(p) for p in export(Store(tmp_path / "runs"), tmp_path / "out").records]
    assert {r.status for r in records} == {"ok"}  # each has passed the gate
    forms = {r.entry.exact_form for r in records}
    assert {"circulant", "direct", "fft", "stacked"} <= forms
    assert "axes" not in forms  # it is made of the others
    assert {r.entry.label for r in records if r.entry.baseline} == {"parc (circulant)"}
    (growth,) = growths(records)
    assert growth.axis == "size"
    assert growth.values == [7, 14]
    assert growth.forms.keys() == forms
    assert growth.operator == "parc"
    rule = growth.forms["circulant"][7]
    assert rule.low == rule.value == rule.high  # the others are told by their ratios to it
    fft = next(r for r in records if r.entry.exact_form == "fft" and r.speed.input_size == (7, 7))
    assert growth.forms["fft"][7].value == pytest.approx(
        rule.value * fft.speed.ratio_to_baseline.value
    )


def test_the_kernel_of_exact_forms_is_the_shapes():
    plan = SpeedConfig(scopes={"operator": [1]})
    for operator in arms("unireplk", "icconv"):
        assert "kernel_size" in operator.options
        hashes = set()
        for shape in ("8x14-k5", "8x14-k7"):
            race = forms_race(operator, shape, plan, words="")
            entry = race.contenders[0].entry
            assert "kernel_size" not in entry.operator_options
            hashes.add(race.hash)
            for one in race.load(None, None).arms:
                assert one.factory()[0].spec.kernel_size == (int(shape[-1]),) * 2
        assert len(hashes) == 2


def test_a_form_is_taken_wherever_it_can_be():
    place = Shape(8, 9, 7)
    for form in exact_forms("parc", place, {}):
        fused = fuse_in_form(layer_in_form("parc", place, {}, form))
        taken = {m.form for m in fused.modules() if isinstance(m, Formed)}
        assert form in taken
        assert torch.equal(fused(torch.ones(1, 8, 9, 9)), fused(torch.ones(1, 8, 9, 9)))


def test_forms_are_those_that_can_be_taken_in_the_dtype_that_is_timed():
    (parc,) = arms("parc")
    plan = SpeedConfig(scopes={"operator": [1]})
    single, half = (
        {
            c.entry.exact_form
            for c in forms_race(parc, "8x7-k7", plan.model_copy(update=dtype), words="").contenders
        }
        for dtype in ({"dtype": "float32"}, {"dtype": "bfloat16"})
    )
    assert "lines" not in half  # its kernels take float32 alone
    assert ("lines" in single) == jit.INSTALLED


def test_a_host_has_no_operator_to_be_timed_alone():
    plan = SpeedConfig(scopes={"operator": [1]})
    (operator,) = arms("dwconv")
    host = operator.model_copy(update={"label": "own", "operator": None})
    with pytest.raises(ValueError, match=r"`operator` \(='own'\) must be one of"):
        layers_race([operator, host], "8x14-k5", plan, baseline="dwconv", words="")


def test_an_unknown_host_is_named_before_anything_starts():
    with pytest.raises(ValueError, match=r"`host` \(='test_convnex'\) is no model of timm"):
        host_race(
            load_host("test_convnex"),
            arms("dwconv"),
            "backbone",
            SpeedConfig(),
            size=(32, 32),
            where=None,
            words="",
        )
