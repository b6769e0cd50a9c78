"""What README shows works as shown."""

import ast
import doctest
import re
import runpy
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from PIL import Image

from bench import operators
from bench.cli.arguments import choice_of
from bench.cli.main import commands, main, parser
from bench.cli.speed import races_of
from bench.config import files, plan
from bench.errors import UserError
from bench.operators import registry
from bench.run import dilation, tune
from bench.run.fits import unfit

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_code_gives_what_is_printed():
    results = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert results.attempted >= 10
    assert results.failed == 0


def test_it_is_short():
    assert len(TEXT.splitlines()) <= 170


@pytest.fixture
def installed(tmp_path, monkeypatch):
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
    assert "blur" not in operators.names()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    registry._load.cache_clear()
    yield
    registry._load.cache_clear()
    sys.modules.pop("readme_operator", None)


@pytest.mark.slow
def test_its_operator_keeps_the_contract(installed):
    contract = runpy.run_path(str(ROOT / "tests" / "bench" / "operators" / "test_operators.py"))
    checks = [case.values for case in contract["parameters"](["blur"])]
    assert len(checks) >= 20
    for check, name, case in checks:
        check(name, case)


def shown_commands():
    """Every command of README's console blocks, as its words; a line may hold several."""
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL):
        for line in block.splitlines():
            assert line.startswith("$ "), line
            words = shlex.split(line.removeprefix("$ "), comments=True)
            while words:
                end = words.index("&&") if "&&" in words else len(words)
                yield words[:end]
                words = words[end + 1 :]


COMMANDS = list(shown_commands())
OURS = [words[1:] for words in COMMANDS if words[0] == "convboard"]


def parsed(arguments):
    """What the command makes of its arguments; wrong ones end the test."""
    options, rest = parser()[0].parse_known_args(arguments)
    assert options.command == "fit" or rest == []
    options.arguments = rest
    return options


def test_the_first_block_names_what_nox_has():
    sessions = [words[words.index("-s") + 1] for words in COMMANDS if words[0] == "nox"]
    functions = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8")).body
    assert sessions == ["bench", "tests"]
    assert {*sessions} <= {f.name for f in functions if isinstance(f, ast.FunctionDef)}


@pytest.mark.parametrize("arguments", OURS, ids=" ".join)
def test_every_command_takes_its_arguments(arguments):
    parsed(arguments)


def test_every_verb_is_shown():
    assert {arguments[0] for arguments in OURS} >= {*commands()} - {"ui"}


@pytest.mark.parametrize(
    "arguments",
    [words for words in OURS if words[0] == "speed" and "--operators" in words],
    ids=" ".join,
)
def test_every_race_without_a_suite_is_planned(arguments):
    assert races_of(parsed(arguments))


def choices():
    """The commands that choose from a suite, one for each choice."""
    by_choice = {}
    for words in OURS:
        options = parsed(words)
        if getattr(options, "suite", None):
            by_choice.setdefault((options.suite, repr(choice_of(options))), words)
    return list(by_choice.values())


@pytest.mark.parametrize("arguments", choices(), ids=" ".join)
def test_every_suite_that_it_shows_can_be_planned_as_shown(arguments):
    options = parsed(arguments)
    cells = plan.plan(options.suite, choice_of(options))
    assert cells
    for axis, equals, values in (text.partition("=") for text in options.only):
        assert equals
        assert {getattr(cell, axis) for cell in cells} == set(values.split(","))
    if options.hosts:
        assert {cell.host for cell in cells} == {options.hosts}
    reasons = unfit(cells)
    assert any(cell.hash not in reasons for cell in cells)


@pytest.mark.parametrize("verb", ["tune", "search-dilation"])
def test_a_search_takes_every_arm_that_is_chosen(verb, monkeypatch, capsys):
    arguments = next(words for words in OURS if words[0] == verb)
    options = parsed(arguments)
    module, name = {"tune": (tune, "tune"), "search-dilation": (dilation, "search_dilation")}[verb]
    taken = []

    def searched(suite, choice, folder, **others):
        taken.append(plan.one(plan.plan(suite, choice)))  # which refuses more than one
        return SimpleNamespace(complete=1, best=0.5, path="found.yaml")

    monkeypatch.setattr(module, name, searched)
    options.line = "convboard"
    options.do(options)
    assert len({(cell.task, cell.operator) for cell in taken}) == len(taken) == 4
    options.out = Path("one.yaml")
    with pytest.raises(UserError, match=r"`--out`.* takes one result, and 4 arms are chosen"):
        options.do(options)


@pytest.mark.slow  # it counts every network of the papers
@pytest.mark.parametrize(
    "arguments", [words for words in OURS if words[0] in ("list", "explain")], ids=" ".join
)
def test_what_it_looks_up_is_printed(arguments, capsys):
    main(arguments)
    assert len(capsys.readouterr().out.splitlines()) > 10


@pytest.fixture
def small(tiny, tmp_path):
    """The suite that README calls quick, made small, and a photo and a run beside it."""
    suite = yaml.safe_load(tiny.read_text())
    suite["boards"][0]["operators"] = ["dwconv", "parc", "acb"]
    suite["boards"][0]["where"] = {"stages": [4]}
    suite["boards"][0]["set"]["data"]["init_args"]["options"] = {
        "train": 32,
        "val": 12,
        "classes": 2,
    }
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(suite))
    Image.new("RGB", (64, 48), (90, 120, 30)).save(tmp_path / "photo.jpg")
    (tmp_path / "run.yaml").write_text(
        yaml.safe_dump(plan.plan(str(tmp_path / "quick.yaml"))[0].config)
    )
    return tmp_path


@pytest.mark.slow
def test_its_commands_do_what_they_say(small, convboard):
    """In the order shown; those that take minutes have tests of their own, on small suites too."""

    def run(arguments, **words):
        return convboard(*[words.get(word, word) for word in arguments], folder=small).stdout

    def shown(verb):
        return next(words for words in OURS if words[0] == verb)

    assert "parc" in run(shown("plan"), quick="quick.yaml")
    assert "top1" in run(shown("run"), quick="quick.yaml")
    choice = choice_of(parsed(shown("run")))
    cells = plan.plan(str(small / "quick.yaml"), choice)
    cell = next(cell for cell in cells if cell.operator == "acb")
    assert cell.hash in run(shown("show"), **{"3f2a": cell.hash[:6]})
    run(shown("predict"), **{"3f2a": cell.hash[:6]})
    assert list((small / "drawn").iterdir())
    run(shown("fit"))
    run(shown("export"))
    run(shown("site"))
    assert (small / "site" / "index.html").is_file()


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
