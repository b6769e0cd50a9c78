"""Which code an operator is: helpers count, words don't."""

import importlib
import sys

import pytest

from bench import operators
from bench.run.code import closure, operator_sha256


def test_the_helpers_with_the_maths_count():
    modules = closure({"bench.operators.shift"})
    assert {
        "bench.operators.shift",
        "bench.operators.base",
        "bench.operators.depthwise",
        "bench.operators.shift_strips",
        "bench.operators.shift_tables",
    } <= set(modules)
    assert "bench.operators.registry" not in modules
    assert not any(name.startswith("torch") for name in modules)
    assert "bench.operators.icconv_patterns" in closure({"bench.operators.icconv"})


def test_every_operator_has_a_hash_of_its_own():
    hashes = [operator_sha256(name) for name in operators.names()]
    assert len(set(hashes)) == len(hashes)
    assert operator_sha256(None) not in hashes


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An operator of somebody's package, with a helper."""
    folder = tmp_path / "convboard_other"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "helper.py").write_text('"""Words."""\nFACTOR = 2\n')
    (folder / "mine.py").write_text(
        "from bench.operators.dwconv import DepthwiseConv\n"
        "from .helper import FACTOR\n\n"
        "class Mine(DepthwiseConv):\n"
        "    def forward(self, x):\n"
        "        return FACTOR * super().forward(x)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = importlib.import_module("convboard_other.mine")
    monkeypatch.setattr(operators, "get", lambda name: mine.Mine)
    yield folder
    for name in [name for name in sys.modules if name.startswith("convboard_other")]:
        del sys.modules[name]


def code():
    operator_sha256.cache_clear()
    return operator_sha256("mine")


def test_a_change_of_a_helper_counts_and_one_of_words_does_not(package):
    before = code()
    (package / "helper.py").write_text('"""Other words."""\n\nFACTOR = 2  # a remark\n')
    assert code() == before
    (package / "helper.py").write_text('"""Words."""\nFACTOR = 3\n')
    assert code() != before
    operator_sha256.cache_clear()
