"""The move of the code changes nothing that users keep: hashes of cells, names.

The values were written down from the code before the move; those of `quick` once more when its
recipes changed.
"""

import hashlib
import importlib
from pathlib import Path

import pytest

from bench.config.plan import plan
from bench.record import load_all

RESULTS = Path(__file__).parents[1] / "leaderboard" / "results"
CELLS = {
    "quick": (56, "dc8c01e5aa0199a96ddda62e2c540957084f40d255ecad9583d730ef8b73f4d9"),
    "standard": (84, "a8f138b74a36f5187e89c06b76e6d297fb122d76a0e82c16c5fba72873172974"),
    "bccd": (21, "d00ddeeff18bea479e8530d3095f0f171a14ccc44baf3a0b0994d4cad8c2c0dc"),
    "chess": (21, "b5154e5a9597f08271c7c85e7ed0faa5d60717713ffbcca0099a984736b0830d"),
    "clothing": (21, "72b90c6cf484948623ad2307857e66b83960e2b07fd19ccbe2f2e836beb73ae8"),
    "dubai": (21, "98bc4cfb2e5ce20619ca604240e18ddbd987b9d733475e39a1a6bb2d8822c330"),
}
PUBLIC = {
    "tasks": [
        *("Classification", "ClassificationData", "Detection", "DetectionData"),
        *("Segmentation", "SegmentationData", "Pose", "PoseData"),
    ],
    "bench.operators": ["ConvSpec", "Operator", "create", "get", "names", "options", "register"],
    "bench.backbones": [
        *("Mixed", "Network", "Slot", "SwapReport", "build", "find_slots", "fuse", "macs"),
        *("networks", "swap", "swap_report"),
    ],
    "bench.checkpoints": ["CheckpointError", "load_official"],
    "bench.speed": [
        *("Arm", "ArmResult", "PROTOCOL", "SHAPES", "Settings", "Shape", "measure"),
        "operator_arms",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("suite", CELLS)
def test_cells_keep_their_hashes(suite):
    hashes = [cell.hash for cell in plan(suite)]
    count, expected = CELLS[suite]
    assert len(hashes) == count
    assert hashlib.sha256("\n".join(hashes).encode()).hexdigest() == expected


def test_the_published_records_are_read():
    assert len(load_all(RESULTS)) > 200


def test_public_names_keep_their_import_paths():
    for module, names in PUBLIC.items():
        for name in names:
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"
