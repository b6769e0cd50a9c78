"""The examples run and learn."""

import runpy
from pathlib import Path

EXAMPLES = Path(__file__).with_name("examples")


def test_unireplknet_learns_from_measurements_that_are_no_image():
    example = runpy.run_path(str(EXAMPLES / "measurements.py"))
    (inputs, _), (held, labels) = example["tumours"](0)
    assert inputs.shape == (400, 10, 1, 3)
    assert len(held) == len(labels) == 169
    scores = example["run"]()
    assert 0.5 < scores.commonest < 0.75
    assert scores.network >= scores.commonest + 0.2
    assert abs(scores.fused - scores.network) < 0.01
