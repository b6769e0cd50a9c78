"""Arguments that several verbs share, and what they mean."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UserError
from bench.run.executor import EXECUTORS

if TYPE_CHECKING:
    from bench.config.plan import Choice
    from bench.run.engines import Engine
    from bench.store import Kept
    from bench.store.reader import Reader

Do = Callable[[argparse.Namespace], object]


class Verbs:
    """The verbs of the command line; `add` is called once for each."""

    def __init__(self, subparsers: Any) -> None:
        self._subparsers = subparsers
        self.parsers: dict[str, argparse.ArgumentParser] = {}

    def add(self, name: str, do: Do, text: str) -> argparse.ArgumentParser:
        """Add a verb that `do` carries out; return its parser, for its arguments."""
        verb: argparse.ArgumentParser = self._subparsers.add_parser(
            name, help=text, description=text, allow_abbrev=False
        )
        verb.set_defaults(do=do)
        verb.add_argument(
            "--runs",
            type=Path,
            default=None,
            help="folder of the MLflow store; default $CONVBOARD_RUNS or ./runs",
        )
        verb.add_argument(
            "--plugin",
            action="append",
            default=[],
            metavar="FILE",
            help="Python file that registers an operator; may be given again",
        )
        self.parsers[name] = verb
        return verb


def add_data(verb: argparse.ArgumentParser) -> None:
    """Add where sets of images lie."""
    verb.add_argument(
        "--data",
        type=Path,
        default=None,
        help="folder in which sets of images lie; default $CONVBOARD_DATA or .",
    )
    add_trust(verb)


def add_max_skipped(verb: argparse.ArgumentParser) -> None:
    """Add how many of a set's images may be damaged."""
    verb.add_argument(
        "--max-skipped",
        type=float,
        metavar="SHARE",
        help="of the images that may be unreadable, and are left out; default 0.01",
    )


def add_trust(verb: argparse.ArgumentParser) -> None:
    """Add whether code that the configuration names may run."""
    verb.add_argument(
        "--trust", action="store_true", help="run Python files that the configuration names"
    )


def add_choice(verb: argparse.ArgumentParser, *, needed: bool = True) -> None:
    """Add a suite, and which part of it is meant; `needed` says whether there must be one."""
    add_data(verb)
    verb.add_argument(
        "suite", nargs=None if needed else "?", help="name of a suite, or a path to its YAML file"
    )
    verb.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="AXIS=A,B",
        help="keep cells by task, host, operator, recipe, seed or cell",
    )
    verb.add_argument("--seeds", help="comma-separated, in place of the suite's")
    verb.add_argument("--hosts", help="comma-separated, in place of the boards'")
    verb.add_argument("--operators", help="comma-separated, in place of the boards'")
    add_slots(verb)
    add_start(verb)
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="lay a value over every cell's configuration, e.g. trainer.max_epochs=3",
    )
    verb.add_argument(
        "--devices",
        type=int,
        default=None,
        metavar="N",
        help="GPUs of one machine in every cell, by DDP; short for --set trainer.devices=N",
    )


def add_task(verb: argparse.ArgumentParser) -> None:
    """Add --task, which says what a set of images is for; `recognise` knows the names."""
    text = "classification, detection, segmentation or pose, where the files can train several"
    verb.add_argument("--task", help=text)


def add_slots(verb: argparse.ArgumentParser) -> None:
    """Add which slots are meant, and how depthwise operators stand in dense ones."""
    verb.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=A,B",
        help="slots in place of the suite's, e.g. stages=3,4; `convboard explain where`",
    )
    verb.add_argument(
        "--mix",
        choices=["pointwise"],
        help="let depthwise operators into dense slots, with a 1×1 convolution behind them",
    )


def add_start(verb: argparse.ArgumentParser) -> None:
    """Add what networks start from."""
    verb.add_argument(
        "--pretrained", action="store_true", help="start from the weights that timm has of a host"
    )
    verb.add_argument(
        "--weights", metavar="FILE", help="start from a file's weights: .safetensors, or torch's"
    )


ENGINE = ("executor", "workers", "address", "cpus", "gpus", "slurm")
"""Flags that say where cells run; see `add_engine`."""


def add_engine(verb: argparse.ArgumentParser) -> None:
    """Add where cells run, and how many at a time."""
    verb.add_argument(
        "--executor",
        choices=EXECUTORS,
        default=EXECUTORS[0],
        help="where cells run: processes of this machine (default), a Ray cluster, or SLURM",
    )
    verb.add_argument("--workers", type=int, default=None, help="cells at a time")
    verb.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="of the Ray cluster; default $RAY_ADDRESS, else that of this machine",
    )
    verb.add_argument(
        "--cpus", type=int, default=None, help="cores of a cell's device, on Ray and SLURM"
    )
    verb.add_argument(
        "--gpus",
        type=float,
        default=None,
        help="GPUs of a cell's device, on Ray and SLURM; default on Ray 1 where there are any (0.5 "
        "shares one), on SLURM none: it trains on CPUs",
    )
    verb.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of sbatch, e.g. partition=gpu",
    )


def add_running(verb: argparse.ArgumentParser) -> None:
    """Add where cells run, and whether older code counts."""
    add_engine(verb)
    verb.add_argument(
        "--stale", action="store_true", help="run again what was done by older code of an operator"
    )


def add_records(verb: argparse.ArgumentParser) -> None:
    """Add where records are exported to."""
    verb.add_argument("--records", type=Path, default=None, help="default: RUNS/records")


def add_site(verb: argparse.ArgumentParser) -> None:
    """Add where the site is written."""
    verb.add_argument("--out", type=Path, default=Path("site"), help="default: site")


def runs_of(options: argparse.Namespace) -> Path:
    """Return the runs folder that is meant."""
    from bench.store import default_folder

    folder: Path = options.runs or default_folder()
    return folder.resolve()


def tell_next(options: argparse.Namespace, suite: Path) -> None:
    """Print the command that runs a suite which was written."""
    from bench.cli.progress import console

    data = ["--data", str(options.data)] if options.data else []
    words = shlex.join(["convboard", "run", str(suite), *data])
    console.print(f"next: {words}", soft_wrap=True)


def records_of(options: argparse.Namespace) -> Path:
    """Return the folder of exported records that is meant."""
    folder: Path = options.records or runs_of(options) / "records"
    return folder


def cell_of(options: argparse.Namespace) -> tuple[Kept, Reader]:
    """Return the run of the cell that is meant, and what reads it, before what takes seconds."""
    from bench.store.glance import look

    reader = look(runs_of(options), wait_s=60)
    return reader.find(options.cell), reader


def engine_of(options: argparse.Namespace) -> Engine:
    """Return which executor is meant."""
    from bench.run.engines import Engine

    others = {name: getattr(options, name) for name in ENGINE[1:]}
    return Engine(name=options.executor, **others)


def choice_of(options: argparse.Namespace) -> Choice:
    """Return which part of a suite is meant."""
    from bench.config.plan import Choice

    only: dict[str, list[str]] = {}
    for text in options.only:
        axis, equals, values = text.partition("=")
        if not equals:
            raise UserError(f"`--only` (={text!r}) must read AXIS=VALUE, e.g. operator=parc,acb.")
        only.setdefault(axis, []).extend(split(values))
    try:
        seeds = [int(seed) for seed in split(options.seeds)] if options.seeds else None
    except ValueError:
        raise UserError(f"`--seeds` (={options.seeds!r}) must be whole numbers: 0,1,2.") from None
    return Choice(
        only=only,
        seeds=seeds,
        hosts=split(options.hosts) if options.hosts else None,
        operators=split(options.operators) if options.operators else None,
        where=where_of(options),
        mix=options.mix,
        pretrained=options.pretrained,
        weights=options.weights,
        sets=(*options.set, *_devices(options)),
    )


def _devices(options: argparse.Namespace) -> list[str]:
    """Return what `--devices` lays over a cell's configuration."""
    if options.devices is None:
        return []
    if options.devices < 1:
        raise UserError(f"`--devices` (={options.devices}) must be at least 1.")
    return [f"trainer.devices={options.devices}"]


def where_of(options: argparse.Namespace) -> dict[str, Any] | None:
    """Return the selection of slots that the flags `--where KEY=A,B` say; None without any.

    Example:
        >>> where_of(argparse.Namespace(where=["stages=3,4", "names=*conv_dw", "every=2"]))
        {'stages': [3, 4], 'names': ['*conv_dw'], 'every': 2}
    """
    from bench.config import files

    where: dict[str, Any] = {}
    for text in options.where:
        key, equals, value = text.partition("=")
        if key == "names" and equals:  # patterns: to YAML a leading * is another thing
            where[key] = split(value)
        elif "," in value and not value.startswith("["):
            files.assign(where, f"{key}=[{value}]", "--where")
        else:
            files.assign(where, text, "--where")
    return where or None


def size_of(text: str | None) -> tuple[int, int]:
    """Return height and width of '64' or '64x96'; 224 pixels where nothing is said.

    Example:
        >>> size_of("64x96"), size_of(None)
        ((64, 96), (224, 224))
    """
    sides = (text or "224").split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise UserError(f"`--size` (={text!r}) must be pixels: 64, or HEIGHTxWIDTH, 64x96.")
    return int(sides[0]), int(sides[-1])


def split(text: str) -> list[str]:
    """Return what stands between commas.

    Example:
        >>> split("parc, acb")
        ['parc', 'acb']
    """
    return [part.strip() for part in text.split(",") if part.strip()]
