"""An arm without a slot is a row that says so, and stops nothing else."""

import json

import pytest
import timm
import yaml

from bench.backbones import find_slots, swap
from bench.backbones.fits import refusals
from bench.config.plan import Choice, plan
from bench.errors import ConfigError, DoesNotFit
from bench.record import Record
from bench.run import fits, suite
from bench.run.cell import UNFIT, keep_unfit
from bench.run.states import states
from bench.store import Store
from leaderboard.build import build


@pytest.fixture
def cells(tiny):
    """dwconv, which has no slot in a ResNet, and acb, which has."""
    return plan(str(tiny), Choice(hosts=["test_resnet"], where={"stages": [3, 4]}))


def test_reasons_and_what_would_help(cells):
    dwconv, acb = cells
    reasons = fits.unfit(cells)
    assert acb.hash not in reasons
    assert "dwconv is depthwise: `groups` (=1) must equal `in_channels`" in reasons[dwconv.hash]
    assert "What would help: mix 'pointwise'" in reasons[dwconv.hash]
    mixed = plan("quick", Choice(hosts=["test_resnet"], operators=["dwconv"], mix="pointwise"))
    assert fits.unfit(mixed[:1]) != {}  # the suite's kernel of 7 × 7 is none of the host's
    other = Choice(hosts=["test_resnet"], operators=[], mix="pointwise", where={"stages": [4]})
    assert fits.unfit(plan("quick", other)[:1]) == {}


def test_help_is_what_has_been_tried():
    model = timm.create_model("test_convnext")
    with pytest.raises(DoesNotFit) as caught:
        swap(model, "dwconv", where={"names": "stem*"}, input_size=(64, 64))
    (free,) = [int(n) for n in str(caught.value).split("`where` (")[1].split()[:1]]
    slots = find_slots(model, (64, 64))
    assert free == len(slots) - len(refusals(model, slots, "dwconv"))
    swap(model, "dwconv", where={"names": "stem*"}, input_size=(64, 64), mix="pointwise")


@pytest.mark.parametrize("operator", ["dwconv", "parc"])
def test_refusals_are_those_of_a_swap(operator):
    model = timm.create_model("test_resnet")
    slots = find_slots(model, (64, 64))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    refused = refusals(model, slots, operator)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    for slot in slots[:2]:
        fresh = timm.create_model("test_resnet")
        if slot.name in refused:
            with pytest.raises(DoesNotFit):
                swap(fresh, operator, where={"names": slot.name}, input_size=(64, 64))
        else:
            swap(fresh, operator, where={"names": slot.name}, input_size=(64, 64))


def test_what_is_known_is_not_built_again(cells, monkeypatch):
    before = fits.unfit(cells)
    monkeypatch.setattr(fits, "_why", lambda *_: pytest.fail("it is built again"))
    assert fits.unfit(cells) == before


def test_a_mistake_is_no_misfit(tiny):
    with pytest.raises(ConfigError, match=r"resnet18x.*did you mean"):
        fits.unfit(plan(str(tiny), Choice(hosts=["resnet18x"])))
    with pytest.raises(ConfigError, match="has no key 'stage'"):
        fits.unfit(plan(str(tiny), Choice(where={"stage": 3})))


def test_it_is_a_row_once_and_not_to_run(cells, tmp_path, monkeypatch):
    store = Store(tmp_path / "runs")
    dwconv, acb = cells
    reasons = fits.unfit(cells)
    assert states(cells, store, reasons) == {dwconv.hash: "unfit", acb.hash: "waiting"}
    data = suite.preflight(cells, reasons)
    assert data.keys() == {dwconv.hash, acb.hash}  # of the same board, so of the same data

    def keep():
        return keep_unfit(dwconv, store.folder, "x", reasons[dwconv.hash], data[dwconv.hash]).record

    record = keep()
    assert record.status == "unsupported"
    assert record.error == reasons[dwconv.hash]
    assert keep() is None
    assert states(cells, store, reasons)[dwconv.hash] == "unfit"
    assert states(cells, store)[dwconv.hash] == "failed"  # it fits by now: to run
    store.tag(store.of_cell(dwconv.hash).run_id, {UNFIT: "of other code"})
    assert keep() is not None


def test_the_board_shows_it(cells, tmp_path):
    reasons = fits.unfit(cells)
    ran = keep_unfit(cells[0], tmp_path / "runs", "x", reasons[cells[0].hash])
    ran.record.save(tmp_path / "records")
    build(tmp_path / "records", tmp_path / "site")
    pages = "".join(page.read_text() for page in (tmp_path / "site").rglob("*.html"))
    assert "does not fit" in pages
    assert "dwconv is depthwise" in pages


def test_the_command_tells_and_keeps_it(tiny, tmp_path, convboard):
    told = yaml.safe_load(tiny.read_text())
    told["boards"][0]["operators"] = ["dwconv"]
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump(told))
    line = [path, "--hosts", "test_resnet", "--where", "stages=3,4", "--runs", tmp_path / "runs"]
    shown = convboard("plan", *line).stdout
    assert "does not fit" in shown
    assert "What would help" in shown
    done = convboard("run", *line, status=1, at_once=True)  # nothing else is there to run
    assert "does not fit: test_resnet · dwconv" in done.stdout
    convboard("run", *line, status=1, at_once=True)
    (record,) = (tmp_path / "runs" / "artifacts").rglob("accuracy-*.json")
    again = Record.load(record).provenance.reproduce
    assert "--where stages=3,4" in again
    assert json.loads(record.read_text())["status"] == "unsupported"
    mixed = convboard("plan", *line, "--mix", "pointwise").stdout
    assert "does not fit" not in mixed
