"""The verbs that search: tune (Optuna) and search-dilation (EDO)."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.arguments import Verbs, add_choice, choice_of, runs_of


def add(verbs: Verbs) -> None:
    """Describe the verbs."""
    text = "search learning rate, weight decay and an operator's options by Optuna"
    verb = verbs.add("tune", tune, text)
    add_choice(verb)
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
    """Search learning rate, weight decay and an operator's options by Optuna."""
    from bench.cli.progress import Bar
    from bench.run.tune import tune

    with Bar("trials", options.trials) as bar:

        def ended(done: int, words: str) -> None:
            bar.print(words)
            bar.step(done)

        study = tune(
            options.suite,
            choice_of(options),
            runs_of(options),
            trials=options.trials,
            out=options.out,
            before=bar.before,
            ended=ended,
        )
    print(
        f"best of {study.complete} complete trials: {study.best:.4f} on the held-out split\n"
        f"next: convboard run {study.path}"
    )


def search_dilation(options: argparse.Namespace) -> None:
    """Train a supernet and read icconv's dilations off it."""
    from bench.run.dilation import search_dilation

    search_dilation(
        options.suite,
        choice_of(options),
        runs_of(options),
        reading=options.reading,
        dmax=options.dmax,
        out=options.out,
        command=options.line,
    )
