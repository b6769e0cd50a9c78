"""`convboard explain`: every key and option has its words, and every example holds."""

import ast
import inspect
import re
from typing import Annotated

import pytest
import timm
import yaml
from pydantic import BaseModel, TypeAdapter

import tasks
from bench import operators
from bench.backbones import find_slots
from bench.backbones.select import keys, select
from bench.cli import pages, topics
from bench.cli.main import main
from bench.config import lightning, plan, schema, speed
from bench.config.keys import check
from tasks.data.sources import GENERATORS

TOPICS = topics.topics()
MODELS = topics.models()
FIELDS = [(word, name) for word, model in MODELS.items() for name in model.model_fields]


def field_id(value):
    return value


def entry(page, name):
    """The lines of one key on a page: its head, and what is indented below it."""
    match = re.search(rf"^  {re.escape(name)}(?::.*)?\n((?:    .*\n?)*)", page, re.MULTILINE)
    assert match is not None, f"{name} is not on the page"
    return match[0]


def example(page):
    """What stands below the last heading of a page, as data."""
    return yaml.safe_load(page.rpartition("\n\n")[2].partition("\n")[2])


@pytest.mark.parametrize("word", TOPICS)
def test_every_topic_has_a_page_of_80_columns(word):
    page = TOPICS[word].page()
    assert len(page.splitlines()) >= 3
    assert [line for line in page.splitlines() if len(line) > pages.WIDTH] == []
    for noise in ("typing.", "<class '", "NoneType", "Optional[", "Annotated", "PydanticUndefined"):
        assert noise not in page
    assert TOPICS[word].summary


def test_every_mapping_of_a_suite_is_a_topic():
    """From the suite down: no model is reached that has no page."""
    reached, waiting = set(), [schema.Suite]
    while waiting:
        model = waiting.pop()
        reached.add(model)
        for field in model.model_fields.values():
            parts = [field.annotation]
            while parts:
                part = parts.pop()
                parts += getattr(part, "__args__", ())
                if inspect.isclass(part) and issubclass(part, BaseModel) and part not in reached:
                    waiting.append(part)
    assert reached == set(MODELS.values())


@pytest.mark.parametrize(("word", "name"), FIELDS, ids=field_id)
def test_every_key_is_on_its_page_with_type_default_meaning_and_example(word, name):
    field = MODELS[word].model_fields[name]
    lines = entry(TOPICS[word].page(), name)
    head = " ".join(lines.split())
    assert re.match(rf"{name}: .+; (required|default)", head)
    if MODELS[word] is speed.SpeedConfig and not field.description:
        pytest.xfail("the words of class SpeedConfig are being written with its fields")
    assert field.description
    assert " ".join(field.description.split()) in head
    if MODELS[word] is speed.SpeedConfig and not field.examples:
        pytest.xfail("the examples of class SpeedConfig are being written with its fields")
    assert field.examples
    adapter = TypeAdapter(Annotated[field.annotation, "a key", *field.metadata])
    for value in field.examples:
        adapter.validate_python(value)
        assert textwrapped(pages.yaml_text({name: value})) in textwrapped(lines)


def textwrapped(text):
    return " ".join(text.split())


@pytest.mark.parametrize("word", MODELS)
def test_the_example_of_a_page_is_valid(word):
    shown = example(TOPICS[word].page())
    if word in ("speed", "tuned"):
        shown = shown[word]
    if word == "tune":
        (shown,) = shown["tune"].values()
    checked = check(MODELS[word], {"name": "x"} | shown if word == "suite" else shown, word)
    assert checked.model_dump(exclude_unset=True)


def test_a_suite_by_the_page_can_be_planned(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(example(TOPICS["suite"].page())))
    assert {cell.suite for cell in plan.plan(str(path))} == {"mine"}


def test_the_files_of_task_and_recipe_make_a_run():
    config = {}
    for word in ("task", "recipe"):
        page = TOPICS[word].page()
        layer = example(page)
        for key in layer:
            assert entry(page, key)
        config = lightning.files.merge(config, layer)
    config.pop("description")
    config["model"]["init_args"]["backbone"]["init_args"]["host"] = "test_convnext"
    assert lightning.resolve(config)["trainer"]["max_epochs"] == 2


def test_every_key_of_where_is_explained_with_an_example_that_selects():
    page = TOPICS["where"].page()
    slots = find_slots(timm.create_model("test_convnext"), (64, 64))
    assert list(keys()) == list(topics.WHERE_EXAMPLES)
    for key, meaning in keys().items():
        assert textwrapped(meaning) in textwrapped(entry(page, key))
        assert yaml.safe_load(entry(page, key).splitlines()[-1])[key] == topics.WHERE_EXAMPLES[key]
        assert select(slots, {key: topics.WHERE_EXAMPLES[key]})
    shown = example(page)["where"]
    assert set(shown) <= set(keys())


@pytest.mark.parametrize("name", operators.names())
def test_every_option_of_an_operator_is_explained(name):
    page = TOPICS[name].page()
    assert "Stands in for:\n  " in page
    for option, parameter in operators.options(name).items():
        lines = entry(page, option).splitlines()
        assert len(lines) >= 2, f"{option} has no meaning: add it to the Args of the class"
        assert str(parameter.annotation) not in ("", "inspect._empty")
    (arm,) = example(page)["operators"]
    checked = check(schema.OperatorConfig, arm, name)
    assert set(checked.options) <= set(operators.options(name))


def public_classes():
    root = topics.Path(tasks.__file__).parent
    for path in sorted(root.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield ".".join(["tasks", *path.relative_to(root).with_suffix("").parts]), node.name


@pytest.mark.parametrize(("module", "name"), list(public_classes()), ids=field_id)
def test_every_public_class_of_tasks_has_a_page(module, name):
    topic = TOPICS.get(name) or TOPICS[f"{module}.{name}"]
    assert topic.kind in ("classes", "parts")
    assert len(topic.summary.split()) >= 3


@pytest.mark.parametrize("word", [word for word, t in TOPICS.items() if t.kind == "classes"])
def test_every_argument_of_a_configured_class_has_a_meaning(word):
    page = TOPICS[word].page()
    arguments = re.findall(r"^  (\w+): ", page.partition("Arguments:\n")[2], re.MULTILINE)
    for name in arguments:
        assert len(entry(page, name).splitlines()) >= 2, f"{word}: {name} has no words"


@pytest.mark.parametrize("task", ["Classification", "Detection", "Segmentation", "Pose"])
def test_what_a_task_names_is_listed_as_such(task):
    assert {TOPICS[word].kind for word in (task, f"{task}Data")} == {"classes"}


def test_every_generated_set_has_a_page():
    assert set(topics.SOURCES) == set(GENERATORS)
    assert {TOPICS[word].kind for word in GENERATORS} == {"classes"}


def test_list_topics_names_all_in_80_columns(capsys):
    main(["list", "topics"])
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if line.startswith("  ")} == set(TOPICS)
    assert max(map(len, lines)) <= pages.WIDTH


def test_explain_prints_the_page(capsys):
    main(["explain", "board"])
    assert capsys.readouterr().out == TOPICS["board"].page() + "\n"


def test_the_examples_are_those_that_came_with_the_package(tmp_path, monkeypatch):
    (tmp_path / "configs" / "suites").mkdir(parents=True)
    (tmp_path / "configs" / "suites" / "quick.yaml").write_text("description: mine\n")
    page = TOPICS["suite"].page()
    monkeypatch.chdir(tmp_path)
    assert TOPICS["suite"].page() == page


def test_a_mistyped_topic_names_near_ones(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["explain", "baord"])
    assert ended.value.code == 2
    assert "did you mean 'board'" in capsys.readouterr().err
