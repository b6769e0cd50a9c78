"""The verb that evaluates public checkpoints without training: score."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bench.cli.arguments import Verbs, add_choice, choice_of, runs_of, split
from bench.errors import Failure, UserError

if TYPE_CHECKING:
    from bench.record import Metric, Record
    from bench.run.score import Checkpoint


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    text = "score the public checkpoints of a suite's networks, without training"
    add_choice(verbs.add("score", score, text))


def score(options: argparse.Namespace) -> None:
    """Score each checkpoint that is there and put the published figures beside; 1 where any lacks.

    What lacks is told before anything is scored, with the place where it is to be put.
    """
    from rich.table import Table

    from bench.cli.progress import Bar, console
    from bench.config.plan import plan
    from bench.run import score
    from bench.run.suite import hush

    _require_of_scoring(options)
    hush()
    every = score.checkpoints(plan(options.suite, choice_of(options)))
    lacking = score.missing(every)
    for line in lacking:
        console.print(line, soft_wrap=True)
    there = [one for one in every if one.lacks is None]
    if not there:
        raise Failure("nothing can be scored; --data says where images and weights lie.")
    failed = 0
    table = Table("task", "network", "metric", "here", "published", "difference", box=None)
    for one in there:
        with Bar(f"{one.cell.task} · {one.cell.host}", 1) as bar:
            record = score.score(one, runs_of(options), options.line, bar.step)
        failed += record.status != "ok"
        for row in _rows(one, record):
            table.add_row(one.cell.task, one.cell.host, *row)
    console.print(table)
    console.print("Records of public weights stand on no board: nobody here trained them.")
    if failed or lacking:
        raise Failure(f"{failed} failed, {len(every) - len(there)} could not be scored.")


def _require_of_scoring(options: argparse.Namespace) -> None:
    """UserError for what only a training would follow."""
    from bench.run.score import SCORED

    if options.devices is not None:
        raise UserError(f"`--devices` (={options.devices}) must be left out: one device scores.")
    if options.pretrained:
        raise UserError("`--pretrained` must be left out: what is scored are a file's weights.")
    if options.where:
        raise UserError(f"`--where` (={options.where!r}) must be left out: hosts stay as they are.")
    if options.mix:
        raise UserError(f"`--mix` (={options.mix!r}) must be left out: hosts stay as they are.")
    if options.seeds and len(split(options.seeds)) > 1:
        raise UserError(f"`--seeds` (={options.seeds!r}) must be one: no weights are drawn.")
    fixed = {*(f"trainer.{name}" for name in SCORED), "model.init_args.ema_decay"}
    for assignment in options.set:
        if assignment.partition("=")[0].strip() in fixed:
            raise UserError(f"`--set` (={assignment!r}) must be left out: nothing is trained.")


def _rows(checkpoint: Checkpoint, record: Record) -> list[tuple[str, str, str, str]]:
    """Return what was scored here, each beside what is published of it."""
    if record.accuracy is None:
        return [("", f"{record.status}: {record.error}", "", "")]
    metrics, headline = record.accuracy.metrics, record.accuracy.headline
    names = [headline, *(name for name in checkpoint.published if name != headline)]
    return [_row(name, metrics[name], checkpoint) for name in names if name in metrics]


def _row(name: str, metric: Metric, checkpoint: Checkpoint) -> tuple[str, str, str, str]:
    published = checkpoint.published.get(name)
    if published is None:
        return name, f"{metric.value:.4f}", "", ""
    return name, f"{metric.value:.4f}", f"{published:.4f}", f"{metric.value - published:+.4f}"
