"""The suite that `convboard compare` writes: slots, arms, sizes, epochs, as asked or as usual."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.arguments import size_of, split, where_of
from bench.errors import ConfigError, UserError

if TYPE_CHECKING:
    from bench.config.comparison import Wish
    from bench.config.schema import HostConfig
    from tasks.layouts import Layout


def written(options: argparse.Namespace, layout: Layout) -> Path:
    """Write the suite that was asked for, and say what is in it; return its path.

    Raises:
        UserError: what was asked for does not fit together, before anything is written.
    """
    import torch

    from bench.cli.progress import console
    from bench.config import comparison
    from bench.config.plan import Choice
    from bench.config.schema import load_host
    from bench.whole_files import write_whole
    from leaderboard.wording import counted

    host = load_host(options.host)
    host = Choice(pretrained=options.pretrained, weights=options.weights).started(host)
    gpu = torch.cuda.is_available()
    size = (
        size_of(options.size)
        if options.size
        else comparison.size_for(layout.task, layout.typical_size, gpu=gpu)
    )
    if layout.task == "classification" and size[0] != size[1]:
        raise UserError(
            f"`--size` (={options.size!r}) must be one number: classification sees squares."
        )
    if options.epochs is not None and options.epochs < 1:
        raise UserError(f"`--epochs` (={options.epochs}) must be at least 1.")
    names = split(options.operators) if options.operators else list(comparison.OPERATORS)
    maps = layout.task != "classification"
    where, arms = _arms(options, host, names, size, maps=maps)
    wish = comparison.Wish(
        host=host.model_dump(exclude_defaults=True, exclude={"description"}),
        operators=arms,
        where=where,
        size=size,
        epochs=options.epochs,
    )
    path = options.out or Path(f"{comparison.name_of(host.host, layout.folder)}.yaml")
    why = ""
    if options.budget and options.epochs is None:
        wish, why = _within_budget(options, layout, wish, path, gpu=gpu)
    suite = comparison.suite_of(layout, wish, gpu=gpu)
    write_whole(path, _yaml(suite))
    board = suite["boards"][0]["set"]
    height, width = size
    console.print(
        f"{options.host}: {_slots_in_words(where)}, images of {height}×{width}, "
        f"{counted(board['trainer']['max_epochs'], 'epoch')}{why} in batches of "
        f"{board['data']['init_args']['batch_size']}, against the network as it is.",
        soft_wrap=True,
    )
    return path


def _yaml(suite: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(suite, sort_keys=False, allow_unicode=True)


def _within_budget(
    options: argparse.Namespace, layout: Layout, wish: Wish, path: Path, *, gpu: bool
) -> tuple[Wish, str]:
    """Return the wish with epochs that the budget holds, by a few steps, and why so many.

    A suite that is there already keeps its own: its cells go on.
    """
    from tempfile import TemporaryDirectory

    from bench.cli.decide import seconds_of
    from bench.cli.progress import console, duration
    from bench.config import comparison, files
    from bench.config.plan import plan
    from bench.run.pace import epoch_seconds
    from bench.run.suite import hush
    from leaderboard.wording import counted

    seconds = seconds_of(options.budget)
    before = None
    with suppress(ConfigError, OSError):  # else it is written anew
        before = comparison.epochs_before(files.read(path), layout, wish, gpu=gpu)
    if before is not None:
        return replace(wish, epochs=before), f" (as {path.name} has; --epochs changes it)"
    if options.executor != "processes":  # how fast other machines are is not known here
        return wish, ""
    hush()
    with TemporaryDirectory() as scratch:
        usual = Path(scratch) / path.name
        usual.write_text(_yaml(comparison.suite_of(layout, wish, gpu=gpu)), encoding="utf-8")
        whole = plan(str(usual))[0].config
    pace, arms = epoch_seconds(whole), 1 + len(wish.operators)
    most: int = whole["trainer"]["max_epochs"]
    seeds = min(comparison.ROUNDS, options.seeds_max)
    epochs = comparison.epochs_within(seconds, pace, arms, most, seeds)
    takes = seeds * comparison.seed_seconds(pace, arms, epochs)
    more = f", more than the budget of {options.budget}" if takes > seconds else ""
    console.print(
        f"An epoch takes about {duration(max(1, pace))} here, "
        f"and {counted(seeds, 'seed')} of {arms} networks about {duration(takes)}{more}, "
        "before they are timed.",
        soft_wrap=True,
    )
    why = f" (usual: {most}; the budget holds no more)" if epochs < most else ""
    return replace(wish, epochs=epochs), why


def _arms(
    options: argparse.Namespace,
    host: HostConfig,
    names: Sequence[str],
    size: tuple[int, int],
    *,
    maps: bool,
) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Return the slots that are meant, and the arms; those mixed that fit in no other way."""
    from bench.backbones import build, find_slots
    from bench.backbones.fits import refusals
    from bench.backbones.select import select
    from bench.cli.progress import console
    from bench.config.network import options_of
    from bench.config.schema import load_operator
    from bench.config.trust import refuse_code

    refuse_code({"host": host.host})
    model = build(host.host, host_options=host.host_options, input_size=size, features_only=maps)
    slots = find_slots(model, size)
    where = where_of(options) or _late(slot.stage for slot in slots)
    slots = select(slots, where)
    arms, fitting = [], False
    for name in dict.fromkeys(names):
        arm = load_operator(name).laid_over(None, options.mix)
        if arm.operator is None:
            raise UserError(
                f"`--operators` (={name!r}) must be left out: the network as it is is the baseline."
            )
        given = options_of(arm)
        refused = refusals(model, slots, arm.operator, mix=arm.mix, options=given)
        if len(refused) == len(slots) and arm.mix is None:
            refused = refusals(model, slots, arm.operator, mix="pointwise", options=given)
            if len(refused) < len(slots):
                arm = arm.laid_over(None, "pointwise")
                console.print(f"{name} is depthwise: a 1×1 convolution stands behind it (mix).")
        fitting = fitting or len(refused) < len(slots)
        arms.append(arm.model_dump(exclude_defaults=True, exclude={"description", "tune"}))
    if not fitting:
        raise UserError(
            f"`--operators` (={','.join(names)!r}): none fits the {len(slots)} slots chosen; "
            f"`convboard slots {options.host}` shows what fits where."
        )
    return where, arms


def _late(stages: Any) -> dict[str, Any] | None:
    """Return the selection of the last two stages, where a host has them: cheap to replace."""
    late = sorted({stage for stage in stages if stage in (3, 4)})
    return {"stages": late} if late else None


def _slots_in_words(where: dict[str, Any] | None) -> str:
    if where is None:
        return "every slot that an operator fits"
    said = ", ".join(f"{key} {value}" for key, value in where.items())
    return f"slots of {said} (--where changes it)"
