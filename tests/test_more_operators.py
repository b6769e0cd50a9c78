"""The package of examples/more-operators, found as a user's is: built, unpacked, not known before.

Its operators keep the contract of ours, with slow references of their own, and stand on a board.
"""

import doctest
import importlib
import importlib.util
import os
import sys
import tomllib
import zipfile
from pathlib import Path

import hatchling.build
import pytest

from bench import memo, operator_sources, operators
from bench.errors import UserError
from bench.operators import registry
from bench.record import load_all
from leaderboard.board import boards

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "examples" / "more-operators"
ENTRY_POINTS = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "entry-points"
][registry.ENTRY_POINTS]
NAMES = sorted(ENTRY_POINTS)


def contract_of_operators():
    path = ROOT / "tests" / "bench" / "operators" / "test_operators.py"
    spec = importlib.util.spec_from_file_location("contract_of_more_operators", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.REFERENCES.append(PACKAGE / "references")
    return module


contract = contract_of_operators()


def forget():
    """Which operators there are is asked once a process; a user's has no other answer later."""
    for asked in (registry._load, operator_sources.names, memo.code):
        asked.cache_clear()


@pytest.fixture(scope="module", autouse=True)
def site_packages(tmp_path_factory):
    """The folder that the package's wheel is unpacked into, as an installer does it."""
    out, site = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("site-packages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(PACKAGE)
        wheel = hatchling.build.build_wheel(str(out))
        zipfile.ZipFile(out / wheel).extractall(site)
        patch.chdir(ROOT)
        patch.syspath_prepend(site)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
        patch.setattr(registry, "_classes", dict(registry._classes))
        forget()
        yield site
    forget()
    for module in [name for name in sys.modules if name.partition(".")[0] == "more_operators"]:
        sys.modules.pop(module)


@pytest.mark.parametrize(("check", "name", "case"), list(contract.parameters(NAMES)))
def test_contract(check, name, case):
    check(name, case)


@pytest.mark.parametrize(("name", "case", "argument"), list(contract.refusals(NAMES)))
def test_refusal_names_the_argument(name, case, argument):
    with pytest.raises(UserError, match=f"`{argument}` \\(="):
        operators.create(name, **case)


def test_they_come_from_the_unpacked_wheel_and_have_references(site_packages):
    assert set(NAMES) <= set(operators.names())
    for name in NAMES:
        module = sys.modules[operators.get(name).__module__]
        assert Path(module.__file__).is_relative_to(site_packages)
        assert hasattr(contract.data(name), "reference")


@pytest.mark.parametrize("entry", ENTRY_POINTS.values())
def test_examples_in_docstrings_run(entry):
    ran = doctest.testmod(importlib.import_module(entry.partition(":")[0]))
    assert ran.attempted > 0
    assert ran.failed == 0


@pytest.mark.slow
def test_they_are_planned_run_and_ranked(tiny, convboard, tmp_path, site_packages):
    suite, runs = (tiny, "--operators", ",".join(NAMES)), ("--runs", tmp_path / "runs")
    planned = convboard("plan", *suite, *runs).stdout
    assert "5 cells, 5 to run" in planned
    assert all(name in planned for name in NAMES)
    convboard("run", *suite, *runs, "--set", "trainer.max_epochs=1", path=[site_packages])
    convboard("export", *runs)
    (board,) = boards(load_all(tmp_path / "runs" / "records"))
    assert {row.label for row in board.rows} == {*NAMES, "dwconv"}
    for row in board.rows:
        assert row.scores
        assert row.records[0].cost.status == "ok"
        assert row.records[0].entry.slots_swapped > 0 or row.label == "dwconv"
