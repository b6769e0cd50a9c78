"""An operator in one file, named on the command line (`--plugin`), stands beside the others."""

import sys

import pytest
import torch

from bench.errors import UserError
from bench.operators import registry
from bench.run.code import operator_sha256

TWICE = '''
from torch import nn
from bench.operators import Operator, register

@register("twice_a_convolution")
class Twice(Operator):
    """y = 2 · conv(x)."""

    def __init__(self, spec):
        super().__init__(spec)
        self.conv = spec.conv()

    def forward(self, x):
        return 2 * self.conv(x)

    def macs(self, h, w):
        return self.spec.conv_macs(h, w)

    def params(self):
        return self.spec.conv_params()
'''


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "twice.py"
    path.write_text(TWICE)
    registry._load()
    before = dict(registry._classes)
    yield path
    registry._classes.clear()
    registry._classes.update(before)
    sys.modules.pop("convboard_plugin_twice", None)
    operator_sha256.cache_clear()


def test_it_is_known_by_its_name_and_its_code(file):
    registry._load_file(file)
    op = registry.create("twice_a_convolution", in_channels=2, out_channels=3)
    assert op(torch.zeros(1, 2, 8, 8)).shape == (1, 3, 8, 8)
    assert operator_sha256("twice_a_convolution") != operator_sha256("conv")
    registry._load_file(file)  # once more is once


def test_the_variable_names_files_for_processes_that_are_started(file, monkeypatch):
    monkeypatch.setenv(registry.PLUGINS, str(file))
    assert "twice_a_convolution" in registry._load.__wrapped__()


def test_mistakes_are_named(file, tmp_path):
    with pytest.raises(UserError, match=r"`--plugin` .* must be a Python file"):
        registry._load_file(tmp_path / "none.py")
    (tmp_path / "empty.py").write_text("x = 1")
    with pytest.raises(UserError, match="must register an operator"):
        registry._load_file(tmp_path / "empty.py")
