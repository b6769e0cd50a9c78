"""What `convboard explain` tells of: keys of YAML files, operators, and the classes of a run."""

from __future__ import annotations

import ast
import importlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench import operator_sources
from bench.cli import pages
from bench.cli.pages import Entry

if TYPE_CHECKING:
    from pydantic import BaseModel

Kind = Literal["keys", "operators", "classes", "parts"]
KINDS: dict[Kind, str] = {
    "keys": "keys of suites and of the files that they name",
    "operators": "operators",
    "classes": "classes that a configuration names, and generated sets",
    "parts": "classes behind them",
}
# Bases of what `model`, `data` and `trainer.callbacks` may name.
_NAMED = {"TaskModule", "TaskData", "LightningModule", "LightningDataModule", "Callback"}

# Functions whose arguments are the `options` of a data module with this source.
SOURCES = {
    "scenes": "tasks.data.scenes",
    "paths": "tasks.data.paths",
    "figures": "tasks.data.figures",
}


@dataclass(frozen=True)
class Topic:
    """Something that can be explained: a line, and a page that is made when it is asked for."""

    kind: Kind
    summary: str
    page: Callable[[], str]


def topics() -> dict[str, Topic]:
    """Return every topic by the word that a user types.

    Example:
        >>> {"suite", "where", "speed", "parc", "DetectionData"} <= set(topics())
        True
    """
    return {**_of_classes(), **_of_operators(), **_of_keys()}


def first_line(thing: object) -> str:
    """Return the first line of a docstring."""
    return pages.words_of(thing).summary


def models() -> dict[str, type[BaseModel]]:
    """Return the models of a suite's YAML by the topics that explain them."""
    from bench.config import schema, speed

    return {
        "suite": schema.Suite,
        "board": schema.BoardConfig,
        "operator": schema.OperatorConfig,
        "host": schema.HostConfig,
        "official": schema.OfficialConfig,
        "speed": speed.SpeedConfig,
        "tune": schema.SearchSpace,
        "tuned": schema.Tuning,
    }


def _of_keys() -> dict[str, Topic]:
    mappings = {
        word: Topic("keys", first_line(model), partial(_model, word))
        for word, model in models().items()
    }
    layers = {
        word: Topic("keys", summary, partial(_layer, word)) for word, summary in _LAYERS.items()
    }
    return {**mappings, "where": Topic("keys", _WHERE, _where), **layers}


def _of_operators() -> dict[str, Topic]:
    return {
        name: Topic("operators", summary, partial(_operator, name))
        for name, summary in summaries().items()
    }


def summaries() -> dict[str, str]:
    """Return the first line of every operator's words, by name; ours by reading the source."""
    ours = operator_sources.ours()
    return {
        name: ours[name].summary if name in ours else _summary(name)
        for name in operator_sources.names()
    }


def _summary(name: str) -> str:
    from bench import operators

    return first_line(operators.get(name))


def _base(node: ast.expr) -> str:
    """Return the name of a base, without its module and its parameters."""
    return ast.unparse(node).partition("[")[0].rpartition(".")[2]


def _is_named(name: str, bases: Mapping[str, Sequence[str]]) -> bool:
    """Whether a class has a base, near or far, whose classes a configuration names."""
    above = bases.get(name, ())
    return any(base in _NAMED or _is_named(base, bases) for base in above)


def _of_classes() -> dict[str, Topic]:
    """The public classes of tasks/, read from the source: importing all of it takes seconds."""
    import tasks

    root = Path(str(tasks.__file__)).parent
    classes = [
        (".".join(["tasks", *path.relative_to(root).with_suffix("").parts]), node)
        for path in sorted(root.rglob("*.py"))
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    times = Counter(node.name for _, node in classes)
    bases = {node.name: [_base(base) for base in node.bases] for _, node in classes}
    by_name = {}
    for module, node in classes:
        name = node.name if times[node.name] == 1 else f"{module}.{node.name}"
        summary = (ast.get_docstring(node) or "").partition("\n")[0]
        kind: Kind = "classes" if _is_named(node.name, bases) else "parts"
        by_name[name] = Topic(kind, summary, partial(_class, module, node.name))
    for name, module in SOURCES.items():
        summary = f"Data of `source: {name}`, generated; these are its `options`."
        by_name[name] = Topic("classes", summary, partial(_class, module, name))
    return by_name


# --- pages -----------------------------------------------------------------------------------


def example(word: str) -> Any:
    """Return a mapping that a shipped file holds, as an example of a topic's keys."""
    quick, shift = _shipped("suites", "quick"), _shipped("operators", "shift")
    examples: dict[str, Any] = {
        "suite": {**quick, "boards": quick["boards"][:1]},
        "board": quick["boards"][0],
        "operator": shift,
        "host": _shipped("hosts", "fine_convnext"),
        "official": _shipped("suites", "imagenet1k")["boards"][0]["hosts"][0]["official"],
        "speed": quick["speed"],
        "tune": shift["tune"]["ghost_ratio"],
        "tuned": {"study": "quick-shift", "trials": 20},
    }
    return examples[word]


def _shipped(kind: str, name: str) -> dict[str, Any]:
    """Read a file that came with the package, whatever ./configs holds."""
    from bench.config import files

    return files.read(files.folders()[-1] / kind / f"{name}.yaml")


# The key under which a topic's mapping stands in a file; the others are whole files, or items.
_UNDER = {"speed": "speed", "tune": "tune", "tuned": "tuned"}


def _model(word: str) -> str:
    """The page of one mapping of a suite's YAML: its keys, and a shipped example."""
    model = models()[word]
    names = {other: topic for topic, other in models().items()}
    words = pages.words_of(model)
    whole = example(word)
    if word == "tune":
        whole = {"ghost_ratio": whole}
    shown = {_UNDER[word]: whole} if word in _UNDER else whole
    return pages.page(
        words.summary,
        ("", words.body),
        ("Keys:", pages.entries(pages.of_model(model, names))),
        ("Example:", pages.indented(shown)),
    )


_WHERE = "Which slots of a host hold the operator: `where` of a board or of an arm."
WHERE_EXAMPLES: dict[str, Any] = {
    "stages": [3, 4],
    "names": "*conv_dw",
    "kernel_size": 7,
    "depthwise": True,
    "indices": [0, 2],
    "every": 2,
}


def _where() -> str:
    """The page of a selection of slots."""
    from bench.backbones.select import keys
    from bench.backbones.slots import Slot

    stage = pages.words_of(Slot).arguments["stage"]
    items = [
        Entry(key, meaning=meaning, examples=[WHERE_EXAMPLES[key]])
        for key, meaning in keys().items()
    ]
    return pages.page(
        _WHERE,
        ("Keys, in the order in which they narrow the selection:", pages.entries(items)),
        ("", pages.entries([Entry("A slot's stage", meaning=stage)])),
        ("Example:", pages.indented({"where": {"stages": [3, 4], "kernel_size": 7, "every": 2}})),
    )


_LAYERS = {
    "task": "A task (configs/tasks): model, data and head, as Lightning configures them.",
    "recipe": "A recipe (configs/recipes): how long and how each arm of a board is trained.",
}


def _layer(word: str) -> str:
    """The page of a file that is laid under a board's `set`."""
    init_args = "`class_path`, one of these classes, and `init_args`, its arguments"
    items = [
        Entry("description", "text", meaning="one line for `convboard list`"),
        Entry(
            "model",
            "mapping",
            meaning=f"{init_args}: tasks.Classification, tasks.Detection, tasks.Segmentation, "
            "tasks.Pose, or a tasks.base.TaskModule of your own; `convboard explain Detection` has "
            "its arguments. Host and operator are put in by the board",
        ),
        Entry(
            "data",
            "mapping",
            meaning=f"{init_args}: tasks.ClassificationData, tasks.DetectionData, "
            "tasks.SegmentationData, tasks.PoseData, or a tasks.data.module.TaskData of your own",
        ),
        Entry("trainer", "mapping", meaning="arguments of lightning.Trainer"),
    ]
    kind, name = {
        "task": ("tasks", "scenes-detection"),
        "recipe": ("recipes", "quick-detection"),
    }[word]
    order = (
        "Laid over each other in this order: a board's task, its recipe, its `set`, and what the "
        "command line sets."
    )
    return pages.page(
        _LAYERS[word],
        ("Keys:", pages.entries(items)),
        ("", pages.wrapped(order)),
        (f"Example, configs/{kind}/{name}.yaml:", pages.indented(_shipped(kind, name))),
    )


def _operator(name: str) -> str:
    """The page of an operator: what it computes and replaces, its options, an arm."""
    from bench import operators
    from bench.operators.rules import RULES

    cls = operators.get(name)
    words = pages.words_of(cls)
    rules = [RULES[rule].__doc__ or "" for rule in cls.requires] or ["any convolution."]
    spec = words.arguments.get("spec", "").removeprefix("the convolution replaced; ")
    norm = "It replaces the batch norm behind the convolution too." if cls.absorbs_norm else ""
    options = pages.of_signature(cls, skip=["spec"])
    return pages.page(
        f"{name}: {words.summary}",
        ("", words.body),
        ("Stands in for:", pages.items([*([spec] if spec else rules), norm])),
        ("Options:", pages.entries(options) or ["  none"]),
        ("An arm of a board:", pages.indented(arm(name))),
    )


def arm(name: str) -> dict[str, Any]:
    """Return an operator as a board may give it in place, with the defaults of its options."""
    from bench import operators

    plain = int | float | str | bool | None
    options = {
        option: parameter.default
        for option, parameter in operators.options(name).items()
        if isinstance(parameter.default, plain)
    }
    return {"operators": [{"label": f"my_{name}", "operator": name, "options": options}]}


def _class(module: str, name: str) -> str:
    """The page of a class or function: its words, and its arguments."""
    import tasks

    thing = getattr(importlib.import_module(module), name)
    words = pages.words_of(thing)
    path = f"tasks.{name}" if name in tasks.__all__ else f"{module}.{name}"
    return pages.page(
        f"{name}: {words.summary}",
        ("", words.body),
        ("Arguments:", pages.entries(pages.of_signature(thing))),
        ("Its name in code, and as a `class_path`:", [f"  {path}"]),
    )
