"""`convboard slots` tells of every slot which operators fit, and why the others do not."""

import pytest
import timm

from bench.backbones import find_slots, swap
from bench.cli.slots import short
from bench.errors import DoesNotFit


@pytest.fixture(scope="module")
def shown(convboard):
    line = ["slots", "test_convnext", "--size", "64", "--operators", "dwconv,parc,acb"]
    return convboard(*line, at_once=True).stdout


def test_a_line_for_each_slot(shown):
    model = timm.create_model("test_convnext")
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line[:1] == " "}
    found = find_slots(model, (64, 64))
    assert set(rows) == {"slot", *(slot.name for slot in found)}
    for slot in found:
        assert rows[slot.name][1:5] == [
            str(slot.stage),
            *(f"{h}×{w}" for h, w in (slot.spec.kernel_size, slot.spec.stride)),
            f"{slot.spec.resolution[0]}×{slot.spec.resolution[1]}",
        ]


def test_marks_are_what_a_swap_does(shown):
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line[:1] == " "}
    for name in list(rows)[1:4]:
        for operator, mark in zip(rows["slot"][6:], rows[name][7:], strict=True):
            where = {"names": name}
            mix = None if mark == "✓" else "pointwise"
            host = timm.create_model("test_convnext")
            if mark in "✓+":
                swap(host, operator, where=where, input_size=(64, 64), mix=mix)
            if mark != "✓":
                host = timm.create_model("test_convnext")
                with pytest.raises(DoesNotFit):
                    swap(host, operator, where=where, input_size=(64, 64))


def test_reasons_are_short():
    reason = "acb centres: `kernel_size` (=(2, 2)) must be odd. mix='pointwise' puts a 1x1 behind."
    assert short("acb", reason) == "centres: `kernel_size` must be odd."
    assert len(short("acb", "x" * 500)) <= 110


def test_a_selection_and_mistakes(convboard):
    few = convboard(
        "slots", "test_convnext", "--size", "64", "--operators", "conv", "--where", "stages=4",
        at_once=True,
    ).stdout  # fmt: skip
    assert "stages.3" in few
    assert "stages.0" not in few
    assert "did you mean" in convboard("slots", "resnet19", status=2, at_once=True).stderr
    assert "`--size`" in convboard(
        "slots", "resnet18", "--size", "big", status=2, at_once=True
    ).stderr  # fmt: skip
