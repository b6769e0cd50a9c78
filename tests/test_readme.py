"""What README shows works as shown."""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench import operators
from bench.cli.main import commands
from bench.config import files

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_code_gives_what_is_printed():
    results = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert results.attempted >= 10
    assert results.failed == 0


def test_it_is_short():
    assert len(TEXT.splitlines()) <= 150


@pytest.fixture
def installed(tmp_path):
    """The one-file operator of README, installed as somebody's distribution."""
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    (source,) = [block for block in blocks if "@register" in block]
    (tmp_path / "readme_operator.py").write_text(source)
    metadata = tmp_path / "readme_operator-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: readme-operator\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(
        "[convboard.operators]\nblur = readme_operator:Blur\n"
    )
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}


@pytest.mark.slow
def test_its_operator_keeps_the_contract(installed):
    assert "blur" not in operators.names()
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/bench/operators/test_operators.py",
        "-q",
        "-k",
        "blur and contract",
    ]
    command += ["-p", "no:cacheprovider", "-m", "slow or not slow"]
    done = subprocess.run(command, cwd=ROOT, env=installed, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 20, done.stdout[-500:]


def test_the_commands_exist():
    block = next(b for b in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL) if "plan" in b)
    shown = re.findall(r"convboard (\S+)", block)
    assert {"plan", "run", "speed", "show", "tune", "fit", "export", "site", "list"} <= set(shown)
    assert set(shown) <= set(commands())


def test_the_tree_names_what_is_there():
    tree = TEXT.split("## What is where")[1].split("```")[1]
    top = ROOT
    for line in tree.strip().splitlines():
        indent, names = re.match(r"( *)((?:\S+  ?)+?)  +\S", line).groups()
        top = top if indent else ROOT / names.strip()
        for name in names.split():
            assert (top / name if indent else ROOT / name).exists(), name


def test_the_suite_it_names_is_shipped():
    assert "quick" in files.known("suites")
