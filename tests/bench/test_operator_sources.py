"""What the source says of operators is what their classes say."""

import subprocess
import sys

import pytest

from bench import operator_sources, operators
from bench.cli import topics
from bench.run import code


def test_the_names_are_those_that_are_registered():
    assert operator_sources.names() == operators.names()


@pytest.mark.parametrize("name", sorted(operator_sources.ours()))
def test_an_operator_has_its_module_words_and_code(name):
    cls = operators.get(name)
    source = operator_sources.ours()[name]
    assert (source.module, source.summary) == (cls.__module__, topics.first_line(cls))
    homes = {base.__module__ for base in cls.__mro__ if issubclass(base, operators.Operator)}
    assert code.closure({source.module, "bench.operators.base"}) == code.closure(homes)


def test_nothing_heavy_is_imported():
    told = "import sys; from bench.run.code import operator_sha256; operator_sha256('acb')"
    done = subprocess.run(
        [sys.executable, "-c", f"{told}; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
