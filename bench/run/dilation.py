"""The dilation search (EDO): a supernet is trained, a dilation per channel is read off it."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch
import yaml

from bench.backbones.change import SPEC_OPTIONS
from bench.config.cell import Cell
from bench.config.files import require_suite_file
from bench.config.plan import Choice, board_of, one, plan
from bench.config.schema import (
    BoardConfig,
    HostConfig,
    OperatorConfig,
    Suite,
    load_operator,
    load_suite,
)
from bench.errors import Failure, UserError
from bench.operators.edo import Reading
from bench.operators.icconv_patterns import write_patterns
from bench.run.cell import run_cell
from bench.run.dilation_search import Found, search
from bench.run.suite import hush, preflight
from bench.run.trained import trained
from bench.store import Kept, Store
from bench.whole_files import write_whole

DMAX = 4
SHARE = 1 / 200
"""Images for the expectations, as a share of those seen in training: a forward pass costs about a
third of a step, so that the search stays well below one percent of the training."""


def searchable(name: str, choice: Choice) -> list[Cell]:
    """Return the chosen cells of a suite whose dilations can be searched.

    Raises:
        UserError: there are none.
    """
    cells = [c for c in plan(name, choice) if c.backbone.get("operator") == "icconv"]
    if not cells:
        raise UserError(
            "the search is for icconv, and no chosen cell has it; add it with --operators icconv."
        )
    return cells


def search_dilation(
    name: str,
    choice: Choice,
    folder: Path,
    *,
    reading: Reading = "output",
    dmax: int | None = None,
    out: Path,
    command: str,
) -> None:
    """Search the dilations of one `icconv` cell of a suite, and write the suite that runs them.

    EDO (CVPR 2021, arXiv 2012.13587): the cell's network is trained by the cell's recipe with the
    operator `edo` in place of `icconv`, dense convolutions that hold every dilation up to `dmax`.
    Then every output channel gets the dilation of least error (`bench.operators.edo`), by one of
    two readings of the paper's expectation:

    - `output`, the default: the L1 distance between the expected outputs, |Σ_off W·E[x]| averaged
      over positions, E[x] the mean over training images as they are trained on.
    - `weight`: Σ |W − W_crop|, which needs no data.

    `output` is the default because it is what the paper's words say, and because it sees what the
    weights alone cannot: taps that cancel on the data, and taps that only ever meet the padding of
    a small map (where `weight` chooses by weights that were never trained). On kernels heavy in
    the middle `weight` keeps (1, 1) in every channel, a search that ends where it began. It bounds
    `output` from above, by the largest |E[x]|, and is there to compare with.

    Both are made and logged; `reading` says which one the written suite takes. The published
    split is not searched on. The supernet is a cell of the experiment SUITE-search: one that was
    cut off goes on, one that is done is not trained again. Written are the suite `out` (baseline,
    `icconv` as it was, `icconv` as searched), and beside it the pattern file (.json, the public
    format) and a picture (.png).

    Args:
        name: of the suite, or its path.
        choice: what narrows it to one `icconv` cell; of several seeds, the supernet has the first.
        folder: the runs folder; see `bench.store.Store`.
        reading: "output" or "weight".
        dmax: largest dilation of an axis; None for the cell's own, 4 by default.
        out: a .yaml file.
        command: the command line that asked for it, for the record.

    Raises:
        ValueError: no or several `icconv` cells are chosen, a slot that cannot be searched, or a
            supernet that failed.
    """
    if dmax is not None and dmax < 1:
        raise UserError(f"`--dmax` (={dmax}) must be at least 1.")
    require_suite_file(out)
    hush()
    cells = searchable(name, choice)
    cell = one(cells)
    dmax = int(cell.operator_config.options.get("dmax", DMAX)) if dmax is None else dmax
    store = Store(folder)
    dense = supernet(cell, dmax)
    run = _trained_supernet(dense, store, command)
    module, data = trained(store, run, dense.config)
    found = search(module, data, dmax, round(SHARE * run.metrics["samples_seen"]))
    board = board_of(name, choice, cell)
    seeds = list(dict.fromkeys(c.seed for c in cells))
    told = searched_suite(load_suite(name), board, cell, found, reading, dmax, seeds)
    told["description"] += f", supernet {dense.hash}"
    write_whole(out, yaml.safe_dump(told | {"name": out.stem}, sort_keys=False))
    _keep(store, dense, run, found, reading, dmax, out)
    _tell(found, run.metrics["train_seconds"], reading, out)


def supernet(cell: Cell, dmax: int) -> Cell:
    """Return the cell of the supernet: `edo` where the cell has `icconv`, all else alike."""
    options = cell.operator_config.options
    swapped = {
        "operator": "edo",
        "options": {k: v for k, v in options.items() if k in SPEC_OPTIONS} | {"dmax": dmax},
    }
    config = copy.deepcopy(cell.config)
    config["model"]["init_args"]["backbone"]["init_args"] |= swapped
    changes = {
        "suite": f"{cell.suite}-search",
        "operator": f"{cell.operator}-supernet",
        "config": config,
        "baseline": False,
        "ranked": False,
        "tune": {},
        "words": "",
    }
    return cell.model_copy(update=changes)


def _trained_supernet(dense: Cell, store: Store, command: str) -> Kept:
    data = preflight([dense])
    ran = run_cell(dense, store.folder, command, data=data[dense.hash], progress_bar=True)
    if ran.record is None:
        print(f"supernet {dense.hash}: done before.")
    elif ran.record.status != "ok":
        raise Failure(f"the supernet failed: {ran.record.error}")
    run = store.of_cell(dense.hash)
    assert run is not None
    return run


def searched_suite(
    whole: Suite,
    board: BoardConfig,
    cell: Cell,
    found: Found,
    reading: Reading,
    dmax: int,
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Return a suite of one board as data: baseline, `icconv` as it was, and as searched.

    The first two are the very cells of the original suite, so that they are not run twice.
    """
    shape = {k: v for k, v in cell.operator_config.options.items() if k in SPEC_OPTIONS}
    patterns = [layer.pattern(reading, dmax) for layer in found.layers]
    searched = OperatorConfig(
        label=f"{cell.operator}-{reading}",
        operator="icconv",
        options={**shape, "pattern": patterns, "dmax": dmax},
        # A feature extractor of timm writes some dots as underscores: "?" stands for both.
        where={"names": [layer.name.replace(".", "?") for layer in found.layers]},
        mix=cell.operator_config.mix,
        set=cell.operator_config.set,
        description=f"{cell.operator}, dilations searched by the `{reading}` reading",
    )
    baseline = next(a for a in board.operators if load_operator(a).label == board.baseline)
    arms = [baseline] if board.baseline == cell.operator else [baseline, cell.operator_config]
    build = cell.network  # what was tuned is in the arm's `set`
    host = HostConfig(
        label=cell.host,
        host=build["host"],
        host_options=build.get("host_options") or {},
        pretrained=build.get("pretrained", False),
        weights=build.get("weights"),
    )
    narrowed = board.model_copy(
        update={"hosts": [host], "operators": [*arms, searched], "seeds": None}
    )
    told = whole.model_copy(
        update={
            "description": f"{cell.operator} with searched dilations in {cell.host}",
            "seeds": list(seeds),
            "boards": [narrowed],
        }
    )
    dumped: dict[str, Any] = told.model_dump(mode="json", exclude_defaults=True)
    return dumped


def _keep(
    store: Store,
    dense: Cell,
    run: Kept,
    found: Found,
    reading: Reading,
    dmax: int,
    path: Path,
) -> None:
    """Log the search, both readings, under the supernet's run; write the files beside `path`."""
    params = {"dmax": dmax, "reading": reading, "images": found.images, "supernet": dense.hash}
    tags = {**dense.tags(), "search": reading}
    run_id = store.begin(dense.suite, f"search · {dense.title}", tags, params, parent=run.run_id)
    try:
        train_seconds = run.metrics["train_seconds"]
        numbers = {
            "search_seconds": found.seconds,
            "train_seconds": train_seconds,
            "search_percent": 100 * found.seconds / train_seconds,
            "agreement": found.agreement(),
        }
        with TemporaryDirectory() as scratch:
            for each in get_args(Reading):
                numbers[f"{each}/plain"] = found.plain(each)
                files = _write(found, each, dmax, Path(scratch) / f"{each}.json")
                for file in files:
                    store.keep(run_id, file, "patterns")
                    if each == reading:
                        shutil.copyfile(file, path.with_suffix(file.suffix))
            channels = Path(scratch) / "channels.json"
            channels.write_text(json.dumps(_channels(found)), encoding="utf-8")
            store.keep(run_id, channels, "patterns")
        store.keep(run_id, path)
        store.metrics(run_id, numbers)
    except BaseException as error:  # also Ctrl-C: no run is left that looks as if it went on
        store.end(run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    store.end(run_id)


def _write(found: Found, reading: Reading, dmax: int, path: Path) -> list[Path]:
    from bench.pictures import dilation_picture

    patterns = [layer.pattern(reading, dmax) for layer in found.layers]
    write_patterns(path, patterns)
    picture = path.with_suffix(".png")
    counts = [torch.tensor([*p.values()]).view(dmax, dmax) for p in patterns]
    dilation_picture(counts, [layer.name for layer in found.layers], picture)
    return [path, picture]


def _channels(found: Found) -> list[dict[str, Any]]:
    """Return what each channel chose, which a pattern file only counts."""
    return [
        {"slot": layer.name, **{name: each.tolist() for name, each in layer.chosen.items()}}
        for layer in found.layers
    ]


def _tell(found: Found, train_seconds: float, reading: Reading, path: Path) -> None:
    percent = 100 * found.seconds / train_seconds
    print(
        f"search: {found.seconds:.2f} s ({found.images} images {found.measuring_seconds:.2f} s, "
        f"choice {found.choosing_seconds:.2f} s), {percent:.2f} % of {train_seconds:.1f} s of "
        "training"
    )
    print(
        f"dilation (1, 1): {found.plain('output'):.0%} of the channels by `output`, "
        f"{found.plain('weight'):.0%} by `weight`; the readings agree on {found.agreement():.0%}"
    )
    for layer in found.layers:
        tall, wide = layer.chosen[reading].double().mean(0).tolist()
        print(f"  {layer.name}: mean dilation {tall:.2f} × {wide:.2f}")
    print(f"pattern: {path.with_suffix('.json')}\npicture: {path.with_suffix('.png')}")
