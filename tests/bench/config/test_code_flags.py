"""A command that does a cell again says what lets the code run that the cell is made with."""

import os

import yaml

from bench.config.code_flags import code_flags
from bench.config.plan import Choice, plan
from bench.local import PLUGINS

NET = "from torch import nn\n\ndef Net():\n    return nn.Conv2d(3, 8, 3)\n"


def test_files_of_operators_are_named_without_their_folders(monkeypatch):
    monkeypatch.setenv(PLUGINS, os.pathsep.join(["/far/away/blur.py", "/my nets/my op.py"]))
    assert code_flags([], []) == " --plugin blur.py --plugin 'my op.py'"


def test_trust_is_named_where_the_suite_names_code_and_the_command_line_does_not(
    tiny, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    suite = yaml.safe_load(tiny.read_text())
    suite["boards"][0]["hosts"] = ["net.py:Net"]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(suite))
    cell = plan("own.yaml")[0]
    assert cell.reproduce == f"convboard run own.yaml --trust --only cell={cell.hash}"
    named = plan("own.yaml", Choice(hosts=["net.py:Net"]))[0]
    assert "--trust" not in named.reproduce
    assert "--trust" not in plan(str(tiny))[0].reproduce


def test_other_code_of_a_host_is_another_cell(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets_of_mine.py").write_text(NET)
    choice = Choice(hosts=["nets_of_mine:Net"])
    before = [cell.hash for cell in plan(str(tiny), choice)]
    assert before == [cell.hash for cell in plan(str(tiny), choice)]
    (tmp_path / "nets_of_mine.py").write_text(NET.replace("8, 3)", "8, 5)"))
    assert not set(before) & {cell.hash for cell in plan(str(tiny), choice)}
