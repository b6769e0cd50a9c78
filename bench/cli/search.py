"""The verbs that search: tune (Optuna) and search-dilation (EDO)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.arguments import Verbs, add_choice, add_engine, choice_of, runs_of

if TYPE_CHECKING:
    from bench.config.plan import Choice
    from bench.run.executor import Executor


def add(verbs: Verbs) -> None:
    """Describe the verbs."""
    text = "search learning rate, weight decay and an operator's options by Optuna"
    verb = verbs.add("tune", tune, text)
    add_choice(verb)
    add_engine(verb)
    verb.add_argument("--trials", type=int, default=20, help="trials in the study, in all")
    verb.add_argument("--out", type=Path, default=None, help="the best trial's configuration")
    text = "train a supernet and read icconv's dilations off it (EDO)"
    verb = verbs.add("search-dilation", search_dilation, text)
    add_choice(verb)
    verb.add_argument(
        "--reading",
        choices=("output", "weight"),
        default="output",
        help="what a dilation must keep: the expected output (default), or the weights",
    )
    verb.add_argument("--dmax", type=int, default=None, help="largest dilation; default 4")
    verb.add_argument("--out", type=Path, default=None, help="suite that runs what was found")


def tune(options: argparse.Namespace) -> None:
    """Search learning rate, weight decay and an operator's options by Optuna, arm by arm."""
    from bench.cli.progress import Bar, console
    from bench.cli.suites import executor_of
    from bench.config.plan import each_arm, plan
    from bench.config.schema import load_suite
    from bench.run.tune import tune

    choice = choice_of(options)
    cells = plan(options.suite, choice)
    arms = each_arm(cells, choice)
    _one_file(options, arms)
    executor: Executor | None = None  # one trial after the other, in this process
    if options.executor != "processes" or options.workers not in (None, 1):
        minutes = load_suite(options.suite).timeout_minutes * max(1, options.trials)
        executor = executor_of(options, cells, minutes)
    for title, arm in arms:
        console.print(title)
        with Bar("trials", options.trials) as bar:

            def ended(done: int, words: str, bar: Bar = bar) -> None:
                bar.print(words)
                bar.step(done)

            study = tune(
                options.suite,
                arm,
                runs_of(options),
                trials=options.trials,
                out=options.out,
                executor=executor,
                before=bar.before,
                ended=ended,
            )
        print(
            f"best of {study.complete} complete trials: {study.best:.4f} on the held-out split\n"
            f"next: convboard run {study.path}"
        )


def search_dilation(options: argparse.Namespace) -> None:
    """Train a supernet for each icconv that is chosen, and read its dilations off it."""
    from bench.cli.progress import console
    from bench.config.plan import each_arm, plan
    from bench.run.dilation import search_dilation

    choice = choice_of(options)
    cells = [c for c in plan(options.suite, choice) if c.backbone.get("operator") == "icconv"]
    arms = each_arm(cells, choice)
    _one_file(options, arms)
    for title, arm in arms or [("no icconv", choice)]:
        console.print(title)
        search_dilation(
            options.suite,
            arm,
            runs_of(options),
            reading=options.reading,
            dmax=options.dmax,
            out=options.out,
            command=options.line,
        )


def _one_file(options: argparse.Namespace, arms: Sequence[tuple[str, Choice]]) -> None:
    """UserError where several results would be written into one file."""
    from bench.errors import UserError

    if options.out is not None and len(arms) > 1:
        raise UserError(
            f"`--out` (={str(options.out)!r}) takes one result, and {len(arms)} arms are chosen: "
            f"{'; '.join(title for title, _ in arms)}; narrow them, e.g. with --only task=…, or "
            "leave it out."
        )
