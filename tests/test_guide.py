"""What the guide shows works as shown."""

import doctest
import re
import shlex
from contextlib import suppress

import pytest
import yaml

from bench.cli.arguments import choice_of
from bench.cli.main import parser
from bench.config import plan
from bench.config.files import known
from leaderboard.guide_page import FOLDER, commands

PAGES = sorted(FOLDER.glob("*.md"))
MARK = "…"
"""A line that stands for those left out."""


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


def consoles():
    return [(path, block) for path in PAGES for block in blocks(path, "console")]


OURS = [
    shlex.split(command)[1:]
    for _, block in consoles()
    for command in commands(block)
    if command.startswith("convboard ")
]
OURS += [
    shlex.split(block["spec"]["entrypoint"])[1:]
    for path in PAGES
    for block in map(yaml.safe_load, blocks(path, "yaml"))
    if block.get("kind") == "RayJob"
]
PYTHON = [path for path in PAGES if ">>> " in path.read_text()]
AT_ONCE = ("explain", "list", "plan", "slots")
"""Verbs that train and time nothing, and need no images."""


def printed(block):
    """A block with one command: its arguments, and what it printed."""
    first, _, rest = block.partition("\n")
    return shlex.split(first.removeprefix("$ "))[1:], rest.rstrip("\n").splitlines()


CHEAP = [
    printed(block)
    for _, block in consoles()
    if block.count("$ ") == 1
    and block.split()[2] in AT_ONCE
    and "--plugin" not in block
    and ".py:" not in block
]


def parsed(arguments):
    options, rest = parser()[0].parse_known_args(arguments)
    assert rest == []
    return options


@pytest.mark.parametrize("arguments", OURS, ids=" ".join)
def test_every_command_takes_its_arguments(arguments):
    parsed(arguments)


@pytest.mark.parametrize(
    "arguments",
    [words for words in OURS if words[1:] and words[1] in known("suites") and words[0] != "look"],
    ids=" ".join,
)
def test_every_choice_from_a_suite_has_cells(arguments):
    options = parsed(arguments)
    if (
        "--plugin" in arguments
    ):  # what it names stays in a process: see test_an_operator_of_ones_own
        options.operators = None
    assert plan.plan(options.suite, choice_of(options))


@pytest.mark.parametrize(("arguments", "lines"), CHEAP, ids=lambda value: " ".join(value[:6]))
def test_what_is_printed_is_shown(arguments, lines, tmp_path, monkeypatch, capsys):
    """Line by line and in order, but for those that a mark leaves out."""
    from bench.cli.main import main
    from bench.cli.progress import console

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", 100)
    monkeypatch.delenv("CONVBOARD_RUNS", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with suppress(SystemExit):  # a mistake that is shown
        main(arguments)
    output = capsys.readouterr()
    found = [line.rstrip() for line in (output.out + output.err).rstrip("\n").splitlines()]
    if MARK not in lines:
        assert found == lines
        return
    cut = lines.index(MARK)
    assert found[:cut] == lines[:cut]
    assert found[len(found) - len(lines[cut + 1 :]) :] == lines[cut + 1 :]


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: path.stem)
def test_code_gives_what_is_shown(path):
    results = doctest.testfile(str(path), module_relative=False)
    assert results.attempted >= 4
    assert results.failed == 0


def test_files_that_it_shows_are_whole():
    """Python that is no session compiles, YAML is read."""
    files = [block for path in PAGES for block in blocks(path, "python") if ">>> " not in block]
    assert len(files) == 2
    for block in files:
        compile(block, "shown.py", "exec")
    for path in PAGES:
        for block in blocks(path, "yaml"):
            assert yaml.safe_load(block)


@pytest.mark.slow  # a process of its own
def test_an_operator_of_ones_own(tmp_path, convboard):
    """The file that the guide shows is an operator, in a process of its own."""
    (page,) = (path for path in PAGES if "own-operator" in path.name)
    (source,) = (block for block in blocks(page, "python") if ">>> " not in block)
    (tmp_path / "my_op.py").write_text(source)
    block = next(block for block in blocks(page, "console") if "plan" in block)
    arguments, lines = printed(block)
    done = convboard(*arguments, folder=tmp_path)
    words = [line.split() for line in done.stdout.splitlines()]
    assert [line.split() for line in lines] == words


def test_no_machine_is_named():
    for path in PAGES:
        assert not re.search(r"/(tmp|home|root|work|Users)/", path.read_text()), path.name
