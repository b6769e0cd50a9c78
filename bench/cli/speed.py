"""The verb speed: the arms of a suite, operators in a host, or operators alone, interleaved."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

from bench.cli.arguments import Verbs, add_choice, choice_of, runs_of, size_of, split, where_of
from bench.errors import Failure, UserError
from bench.speed.protocol import Scope

if TYPE_CHECKING:
    from bench.config.speed import SpeedConfig
    from bench.record import Record
    from bench.run.race import Race

_PLAN = {
    "device": "auto, cpu or cuda",
    "dtype": "float32, bfloat16 or float16",
    "layout": "fastest, contiguous or channels_last",
    "forms": "measured or rule",
    "form": "train or fused",
    "engine": "torch, compile, onnxruntime or openvino",
    "threads": "CPU threads",
    "processes": "fresh processes; intervals are over them",
    "rounds": "turns of every arm in each process",
}
"""Keys of a suite's `speed` that a flag may replace, and what they may be."""
_ADHOC = ("size", "where", "mix")
"""Flags of operators in hosts alone: they name what is timed."""
_OF_SUITES = ("only", "seeds", "set", "pretrained", "weights", "devices")
"""Flags that choose from a suite, or lay something over it."""


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    text = (
        "measure the speed of a suite's arms, or without a suite of --operators in --hosts (the "
        "first is the baseline) or alone; all arms take turns"
    )
    verb = verbs.add("speed", speed, text)
    add_choice(verb, needed=False)
    verb.add_argument("--scope", choices=get_args(Scope), help="what is timed")
    verb.add_argument("--batch", metavar="N,M", help="batch sizes")
    for name, allowed in _PLAN.items():
        verb.add_argument(f"--{name}", help=f"{allowed}; `convboard explain speed`")
    verb.add_argument(
        "--shapes",
        metavar="A,B",
        help="with --scope operator: layers such as 48x56-k7,96x28-k7s2; 64x7..224-k7 and "
        "64x56-k3..51 double the size or the kernel from one to the other",
    )
    verb.add_argument(
        "--each-form",
        action="store_true",
        help="with operators alone: time each of their exact forms, and say where they cross; "
        "kernels are those of --shapes",
    )
    verb.add_argument("--size", metavar="HxW", help="without a suite: of the images; default 224")


def speed(options: argparse.Namespace) -> None:
    """Measure the speed of what is named; status 1 where an arm failed."""
    if time_target(options):
        sys.exit(1)


def time_target(options: argparse.Namespace) -> int:
    """Time the races that are not done on this machine; return how many failed."""
    from bench.cli.progress import Bar, console, duration
    from bench.machine import usable_cores
    from bench.record import SETTLED
    from bench.run.timing import time_race
    from bench.speed.crew import Crew
    from bench.store import Store
    from bench.store.errors import StoreError
    from leaderboard.growth import growths

    folder = runs_of(options)
    planned = races_of(options)
    kept = Store(folder).kept()
    failed = 0
    grown: list[Record] = []
    began = time.monotonic()
    with Crew(usable_cores()) as crew:
        for race in planned:
            if race.hash in kept and kept[race.hash].done:
                console.print(f"{race.title}: done before.")
                continue
            try:
                with Bar(race.title, race.plan.processes) as bar:
                    records = time_race(
                        race,
                        folder,
                        options.line,
                        lambda done, total, _: bar.step(done, total),
                        crew,
                    )
            except StoreError:
                raise
            except (UserError, Failure) as error:  # such as data that are gone: the others go on
                console.print(f"{race.title}: {error}", markup=False, soft_wrap=True)
                failed += 1
                continue
            _print(records)
            grown += [record for record in records if record.entry.exact_form]
            failed += any(record.status not in SETTLED for record in records)
        if crew.measured_s:
            took = time.monotonic() - began
            console.print(
                f"{duration(took)}, {crew.measured_s / took:.0%} of it measuring; the rest went "
                "into starting, building and checking what is measured."
            )
    for growth in growths(grown):
        console.print(growth.words, markup=False, soft_wrap=True)
    return failed


def races_of(options: argparse.Namespace) -> list[Race]:
    """Return the races that a command line asks for; UserError where it is wrong."""
    return _of_suite(options) if options.suite is not None else _of_operators(options)


def _of_suite(options: argparse.Namespace) -> list[Race]:
    """The races of a suite; says what cannot be timed yet."""
    from bench.cli.progress import console
    from bench.config.plan import plan
    from bench.config.schema import load_suite
    from bench.config.speed import SpeedConfig
    from bench.run import races
    from bench.run.fits import unfit
    from bench.store import Store

    given = vars(options)
    _refuse("size", given.get("size"), "there without a suite alone: a suite has its own")
    _refuse("each-form", given.get("each_form"), "left out with a suite: it times operators alone")
    whole = load_suite(options.suite)
    if whole.speed is None and given.get("scope") is None:
        console.print(f"{whole.name}: no speed run is asked for.")
        return []
    how = _planned(options, whole.speed or SpeedConfig(), given.get("scope"))
    shapes = _shapes(options, how)
    kept = Store(runs_of(options)).kept()
    present = [cell for cell in plan(options.suite, choice_of(options)) if not cell.absent]
    untrained = races.waiting(present, kept) if "end_to_end" in how.scopes else []
    no_slot = unfit(untrained)
    if untrained := [cell for cell in untrained if cell.hash not in no_slot]:
        console.print(
            f"{len(untrained)} arms are not trained yet and not timed end to end; "
            "`convboard run` trains them."
        )
    return races.races(present, how, kept, shapes=shapes, flags=_words(options))


def _of_operators(options: argparse.Namespace) -> list[Race]:
    """The races of operators without a suite: in hosts, or alone."""
    from bench.config.schema import load_host, load_operator
    from bench.config.speed import SpeedConfig
    from bench.run.untrained import forms_race, host_race, layers_race
    from bench.speed import SHAPES

    for flag in _OF_SUITES:
        _refuse(flag, getattr(options, flag), "there with a suite alone")
    if not options.operators:
        raise UserError(
            "`suite` (=None) must name a suite, or `--operators` what is timed: "
            "convboard speed --operators dwconv,parc --hosts test_convnext."
        )
    scope: Scope = options.scope or ("backbone" if options.hosts else "operator")
    if scope == "end_to_end":
        raise UserError(
            "`--scope` (='end_to_end') must be that of a suite: it times the networks that a "
            "suite has trained."
        )
    alone = scope == "operator"
    if alone:
        for flag in ("hosts", *_ADHOC):
            _refuse(flag, getattr(options, flag), "left out for `--scope operator`")
    elif not options.hosts:
        raise UserError(f"`--scope` (={scope!r}) must have `--hosts`, in which operators stand.")
    how = _planned(options, SpeedConfig(), scope)
    operators = [
        load_operator(name).laid_over(None, options.mix)
        for name in dict.fromkeys(split(options.operators))
    ]
    words = _words(options, "operators", "hosts", *_ADHOC)
    if options.each_form and (not alone or how.form == "train" or how.engine != "torch"):
        raise UserError(
            "`--each-form` (=True) must be there with operators alone, fused, by torch: exact "
            "forms are those of one operator in inference."
        )
    if options.each_form:
        for flag in ("layout", "forms"):
            rule = "left out with `--each-form`: it times each form in a layout of its own"
            _refuse(flag, getattr(options, flag), rule)
    if alone:
        shapes = _shapes(options, how) or [str(shape) for shape in SHAPES]
        if options.each_form:
            words = f"{words} --each-form"
            return [forms_race(o, s, how, words=words) for o in operators for s in shapes]
        baseline = operators[0].label
        return [layers_race(operators, s, how, baseline=baseline, words=words) for s in shapes]
    _shapes(options, how)
    size, where = size_of(options.size), where_of(options)
    return [
        host_race(load_host(name), operators, scope, how, size=size, where=where, words=words)
        for name in split(options.hosts)
    ]


def _refuse(flag: str, value: Any, rule: str) -> None:
    if value not in ([], None) and value is not False:
        raise UserError(f"`--{flag}` (={value!r}) must be {rule}.")


def _planned(options: argparse.Namespace, plan: SpeedConfig, scope: Scope | None) -> SpeedConfig:
    """The plan with the flags laid over it."""
    from bench.config.speed import speed_plan

    given = vars(options)
    return speed_plan(plan, scope, given.get("batch"), **{name: given.get(name) for name in _PLAN})


def _shapes(options: argparse.Namespace, plan: SpeedConfig) -> list[str]:
    """The shapes that are given, checked."""
    from bench.speed import Shape

    text = vars(options).get("shapes")
    if "operator" not in plan.scopes:
        _refuse("shapes", text, "left out but for `--scope operator`")
    shapes = [shape for one in split(text or "") for shape in Shape.parse_all(one)]
    return list(dict.fromkeys(map(str, shapes)))


def _words(options: argparse.Namespace, *more: str) -> str:
    """The flags that say what is timed and how, as a command line has them."""
    words = []
    for name in (*more, "scope", "shapes", "batch", *_PLAN):
        value = vars(options).get(name)
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                words += [f"--{name}", one]
    return shlex.join(words)


def _print(records: Sequence[Record]) -> None:
    from rich.table import Table

    from bench.cli.progress import console
    from bench.intervals import bounds

    table = Table("operator", "batch", "median ms", "time / baseline", "verdict", "noise", box=None)
    for record in records:
        speed = record.speed
        if speed is None or record.status != "ok":
            table.add_row(record.entry.label, "", record.status, str(record.error))
            continue
        ms, ratio = speed.latency_median_ms, speed.ratio_to_baseline
        table.add_row(
            record.entry.label,
            str(speed.batch),
            f"{ms.value:.3f} {bounds(ms.low, ms.high, 3)}" if ms else "",
            f"{ratio.value:.3f} {bounds(ratio.low, ratio.high, 3)}" if ratio else "",
            speed.verdict or "",
            speed.noise or "",
        )
    console.print(table)
    for record in records:
        if record.speed is not None and record.speed.memory_error is not None:
            console.print(
                f"{record.entry.label}, batch {record.speed.batch}: no peak memory:",
                record.speed.memory_error,
                markup=False,
                soft_wrap=True,
            )
