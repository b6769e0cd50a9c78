"""A changed operator makes results stale: shown by plan, run again when asked for."""

import os

import pytest
import yaml

from bench.record import load_all
from bench.store import Store
from leaderboard.board import boards

PLUGIN = """
from bench.operators.dwconv import DepthwiseConv


class Own(DepthwiseConv):
    FACTOR = {factor}

    def forward(self, x):
        return self.FACTOR * super().forward(x)
"""


@pytest.fixture
def plugin(tmp_path):
    folder = tmp_path / "plugin"
    metadata = folder / "convboard_own-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: convboard-own\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[convboard.operators]\nown = convboard_own:Own\n")
    return folder


def write(plugin, factor):
    path = plugin / "convboard_own.py"
    path.write_text(PLUGIN.format(factor=factor))
    os.utime(path, (factor, factor))  # bytecode of a file of the same second would be taken


@pytest.mark.slow
def test_plan_run_export_and_board(tiny, plugin, convboard, tmp_path):
    suite = yaml.safe_load(tiny.read_text())
    board = suite["boards"][0]
    board["operators"] = ["dwconv", "own"]
    board["set"]["trainer"]["max_epochs"] = 1
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(suite))
    runs = tmp_path / "runs"

    def command(*arguments):
        return convboard(*arguments, "--runs", runs, path=[plugin]).stdout

    def rows():
        command("export", "--records", tmp_path / "records")
        (only,) = boards(load_all(tmp_path / "records"))
        return {row.label: row for row in only.rows}

    write(plugin, 1)
    command("run", path)
    first = rows()["own"]
    write(plugin, 2)
    planned = command("plan", path)
    assert "stale" in planned
    assert "0 to run. 1 are of older code" in planned
    assert "2 done before, 1 of them by older code" in command("run", path)
    assert len(list(Store(runs).runs())) == 2
    command("run", path, "--stale")
    assert "stale" not in command("plan", path)
    assert len(list(Store(runs).runs())) == 3  # what was measured is kept
    second = rows()["own"]
    assert len(second.superseded) == 1
    assert second.scores != {} != first.scores
