"""A cell is run once, and kept as an MLflow run with its record."""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bench import machine
from bench.config.plan import Cell
from bench.failures import out_of_memory
from bench.hashing import digest
from bench.record import (
    Accuracy,
    Cost,
    Data,
    Entry,
    Metric,
    Outcomes,
    Provenance,
    Recipe,
    Record,
    Status,
)

if TYPE_CHECKING:
    from bench.run.fit import Fitted


def operator_sha256(name: str | None) -> str:
    """Hash of the files in which an operator's class and its bases stand."""
    if name is None:
        return digest(None)
    from bench import operators

    sources = [
        Path(inspect.getfile(cls)).read_bytes()
        for cls in operators.get(name).__mro__
        if issubclass(cls, operators.Operator) and cls is not operators.Operator
    ]
    return hashlib.sha256(b"\0".join(sources)).hexdigest()


def run_cell(
    cell: Cell,
    folder: Path,
    command: str,
    *,
    progress_bar: bool = False,
) -> Record:
    """Train and score a cell; return its record. A failure is a record too, never an exception.

    The MLflow run gets parameters, tags, metrics of every epoch, and as artifacts the config, the
    record with its outcomes, and the checkpoint. A cell that was cut off goes on from its last
    epoch.

    Args:
        cell: what to run.
        folder: the runs folder; see `bench.store.Store`.
        command: the command line that asked for it, for the record.
        progress_bar: show Lightning's bar.
    """
    from bench.run import fit
    from bench.store import Store

    store = Store(folder)
    work = store.folder / "cells" / cell.hash
    work.mkdir(parents=True, exist_ok=True)
    run_id = store.begin(cell.suite, cell.title, _tags(cell), cell.config)
    config = work / "config.yaml"
    config.write_text(yaml.safe_dump(cell.config, sort_keys=False), encoding="utf-8")
    store.keep(run_id, config)
    status: Status = "ok"
    error = None
    fitted = None
    try:
        fitted = fit.fit(
            cell.config,
            work,
            logger=store.logger(cell.suite, run_id),
            progress_bar=progress_bar,
        )
    except Exception as raised:
        status = "oom" if out_of_memory(raised) else "error"
        error = f"{type(raised).__name__}: {raised}"
        (work / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        store.keep(run_id, work / "error.txt")
    record = Record(
        kind="accuracy",
        status=status,
        error=error,
        entry=entry_of(cell, fitted),
        data=Data.model_validate(fitted.data) if fitted else None,
        recipe=recipe_of(cell, fitted),
        accuracy=accuracy_of(cell, fitted, work) if fitted else None,
        cost=cost_of(cell, fitted) if fitted else None,
        machine=machine.machine(),
        software=machine.software(),
        provenance=_provenance(cell, command, run_id),
    )
    _keep(store, run_id, record, work)
    store.end(run_id, "FINISHED" if status == "ok" else "FAILED")
    if status == "ok":
        shutil.rmtree(work)
    return record


def _keep(store: Any, run_id: str, record: Record, work: Path) -> None:
    from bench.run.fit import LAST
    from bench.store import CHECKPOINT

    store.keep(run_id, record.save(work), "records")
    if record.accuracy is not None:
        if record.accuracy.outcomes is not None:
            store.keep(run_id, work / record.accuracy.outcomes.file, "records")
        curves = work / "curves.json"
        curves.write_text(json.dumps(record.accuracy.curve), encoding="utf-8")
        store.keep(run_id, curves)
        store.tag(run_id, {"headline": record.accuracy.headline})
        store.metrics(run_id, {f"final/{k}": m.value for k, m in record.accuracy.metrics.items()})
    if (work / LAST).exists() and record.status == "ok":
        store.keep(run_id, work / LAST, CHECKPOINT.rpartition("/")[0])
    if record.status != "ok":
        store.tag(run_id, {"error": str(record.error)[:5000]})


def entry_of(cell: Cell, fitted: Fitted | None = None) -> Entry:
    """Return what the cell measures."""
    build = cell.backbone
    swapped, refused = None, {}
    if fitted is not None and cell.backbone.get("operator") is not None:
        from bench.backbones import swap_report

        report = swap_report(fitted.module.backbone)
        swapped, refused = len(report.swapped), dict(report.refused)
    return Entry(
        label=cell.operator,
        operator=cell.backbone.get("operator") or "host",
        operator_options=build.get("options") or {},
        operator_sha256=operator_sha256(cell.backbone.get("operator")),
        host=build["host"],
        host_options=build.get("host_options") or {},
        selection=build.get("where") or {},
        mix=build.get("mix"),
        slots_swapped=swapped,
        slots_refused=refused,
        task=cell.config["model"]["class_path"].rpartition(".")[2].lower(),
        head=cell.config["model"]["init_args"].get("head"),
        form="training",
        baseline=cell.baseline,
    )


def recipe_of(cell: Cell, fitted: Fitted | None) -> Recipe:
    """Return how the cell was trained; the hash leaves out operator, host and seed."""
    config = json.loads(json.dumps(cell.config))
    shared = json.loads(json.dumps(cell.config))
    del shared["model"]["init_args"]["backbone"]
    for part in (shared, shared["model"]["init_args"], shared["data"]["init_args"]):
        part.pop("seed", None)
        part.pop("seed_everything", None)
    return Recipe(
        name=cell.recipe,
        config=config,
        config_sha256=digest(shared),
        seed=cell.seed,
        epochs=fitted.epochs if fitted else None,
        samples_seen=fitted.samples_seen if fitted else None,
        train_seconds=fitted.seconds if fitted else None,
        tuning_trials=cell.tuned.trials if cell.tuned else 0,
    )


def accuracy_of(cell: Cell, fitted: Fitted, work: Path) -> Accuracy:
    """Return the cell's score; the per-sample outcomes are written into `work`."""
    import numpy as np

    module = fitted.module
    outcomes = None
    if fitted.outcomes:
        file = work / f"outcomes-{cell.hash}.npz"
        np.savez_compressed(file, allow_pickle=False, **fitted.outcomes)
        outcomes = Outcomes(
            file=file.name,
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
            kind=module.outcomes_kind,
        )
    metrics = {
        name: Metric(
            value=fitted.metrics[name],
            unit=unit,
            higher_is_better=higher,
        )
        for name, (unit, higher) in module.metrics_info.items()
        if name in fitted.metrics
    }
    return Accuracy(
        headline=module.headline,
        metrics=metrics,
        sampling_error=module.sampling_error(),
        per_class=fitted.per_class,
        outcomes=outcomes,
        curve=fitted.curve,
    )


def cost_of(cell: Cell, fitted: Fitted) -> Cost:
    """Return parameters and MACs of the backbone, as trained and fused."""
    from bench import backbones

    backbone = fitted.module.backbone
    macs, status, note = backbones.macs(backbone, cell.input_size)
    return Cost(
        params=sum(p.numel() for p in backbone.parameters()),
        params_fused=sum(p.numel() for p in backbones.fuse(backbone).parameters()),
        macs=macs,
        input_size=cell.input_size,
        status=status,
        note=note,
    )


def lost(cell: Cell, folder: Path, command: str, status: Status, why: str) -> Record:
    """Keep a cell whose process died or ran out of time as a failed record; return it."""
    from bench.store import Store

    store = Store(folder)
    work = store.folder / "cells" / cell.hash
    work.mkdir(parents=True, exist_ok=True)
    run_id = store.begin(cell.suite, cell.title, _tags(cell), cell.config)
    record = Record(
        kind="accuracy",
        status=status,
        error=why,
        entry=entry_of(cell),
        recipe=recipe_of(cell, None),
        machine=machine.machine(),
        software=machine.software(),
        provenance=_provenance(cell, command, run_id),
    )
    _keep(store, run_id, record, work)
    store.end(run_id, "FAILED")
    return record


def _tags(cell: Cell) -> dict[str, str]:
    from bench.store import CELL

    git = machine.git_state()
    return {
        **cell.tags(),
        CELL: cell.hash,
        "git.commit": str(git["git_commit"]),
        "git.dirty": str(git["git_dirty"]).lower(),
    }


def _provenance(cell: Cell, command: str, run_id: str) -> Provenance:
    return machine.provenance(
        command=command,
        reproduce=cell.reproduce,
        mlflow_run=run_id,
        optuna_study=cell.tuned.study if cell.tuned else None,
        suite=cell.suite,
        cell=cell.hash,
    )
