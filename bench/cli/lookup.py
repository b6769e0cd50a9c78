"""The verbs that tell what there is: list, explain, show."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, cast

from bench.cli.arguments import Verbs, cell_of

if TYPE_CHECKING:
    from bench.config.files import Kind

KINDS = ("suites", "tasks", "hosts", "operators", "recipes", "networks", "topics")


def add(verbs: Verbs) -> None:
    """Describe the verbs."""
    verb = verbs.add("list", list_, "list what there is")
    verb.add_argument("kind", choices=KINDS, metavar="kind", help=", ".join(KINDS))
    text = "explain a key of a suite's YAML, an operator, or a class: fields, types, an example"
    verb = verbs.add("explain", explain, text)
    verb.add_argument("topic", help="see `convboard list topics`")
    verb = verbs.add("show", show, "show one cell: its state, scores, error and configuration")
    verb.add_argument("cell", help="hash of the cell, or its beginning")


def list_(options: argparse.Namespace) -> None:
    """List the names of a kind, one a line, each with its description."""
    if options.kind == "networks":
        print(_networks())
    elif options.kind == "operators":
        print(_operators())
    elif options.kind == "topics":
        print(_topics())
    else:
        print(_shipped(cast("Kind", options.kind)))


def _topics() -> str:
    """Return the topics by kind, a line each."""
    from bench.cli.pages import WIDTH
    from bench.cli.topics import KINDS, topics

    lines = []
    for kind, heading in KINDS.items():
        lines += ["", f"{heading}:"]
        for name, topic in topics().items():
            if topic.kind == kind:
                lines.append(f"  {name:20} {topic.summary}")
    shortened = [line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…" for line in lines[1:]]
    return "\n".join(shortened)


def _shipped(kind: Kind) -> str:
    from bench.config import files

    lines = []
    for name in files.known(kind):
        text = files.read(files.find(kind, name)).get("description", "")
        lines.append(f"{name:28} {text}".rstrip())
    if kind == "hosts":
        lines.append("… and any timm model by its name")
    return "\n".join(lines)


def _operators() -> str:
    from bench import operator_sources
    from bench.cli.topics import summaries
    from bench.config import files
    from bench.config.schema import load_operator

    lines = [f"{name:12} {summary}" for name, summary in summaries().items()]
    for name in files.known("operators"):
        if name not in operator_sources.names():
            operator = load_operator(name)
            lines.append(f"{name:12} {operator.description or operator.operator}")
    return "\n".join(lines)


def _networks() -> str:
    """Return the papers' networks with their costs, beside what was published of them."""
    from bench.memo import remembered
    from leaderboard.published import load

    figures = load()
    lines = [f"{'network':24}{'params M':>10}{'fused M':>10}{'GMACs':>8}  at     published"]
    sources: dict[str, int] = {}
    for network in remembered("networks", None, _costs):
        h, w = network["input_size"]
        published = []
        for figure in (f for f in figures if f.network == network["name"]):
            number = sources.setdefault(figure.source, len(sources) + 1)
            without = f"{figure.without_operator:g}→" if figure.without_operator else ""
            unit = "" if figure.unit == "%" else f" {figure.unit}"
            published.append(f"{figure.metric} {without}{figure.value:g}{unit} [{number}]")
        lines.append(
            f"{network['name']:24}{network['params'] / 1e6:10.3f}"
            f"{network['params_fused'] / 1e6:10.3f}"
            f"{network['gmacs']:8.3f}  {f'{h}×{w}':6} {', '.join(published) or '—'}"
        )
    lines += ["", "counted here: params, fused params, GMACs of the fused form; sources:"]
    lines += [f"[{number}] {source}" for source, number in sources.items()]
    return "\n".join(lines)


def _costs() -> list[dict[str, Any]]:
    """Count the papers' networks: some seconds."""
    from dataclasses import asdict

    from bench.backbones import networks

    return [asdict(network) for network in networks()]


def explain(options: argparse.Namespace) -> None:
    """Print the page of words of a topic."""
    from bench.cli.topics import topics
    from bench.errors import UserError, near

    pages = topics()
    if options.topic not in pages:
        raise UserError(f"`topic` (={options.topic!r}) is not known; {near(options.topic, pages)}")
    print(pages[options.topic].page())


def show(options: argparse.Namespace) -> None:
    """Print what is known of the cell whose hash begins so, as YAML."""
    import yaml

    from bench.store import CELL

    run, store = cell_of(options)
    page = {
        "cell": run.cell,
        "suite": run.experiment,
        "state": run.status.lower(),
        "mlflow_run": run.run_id,
        "tags": {
            k: v for k, v in sorted(run.tags.items()) if not k.startswith("mlflow.") and k != CELL
        },
        "metrics": {k: round(v, 6) for k, v in sorted(run.metrics.items())},
        "config": store.config(run),
    }
    print(yaml.safe_dump(page, sort_keys=False, allow_unicode=True).rstrip())
