"""What a cell's records say of it: entry, recipe, accuracy and cost."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import machine
from bench.config.cell import Cell
from bench.hashing import digest, file_sha256
from bench.record import Accuracy, Cost, Entry, Metric, Outcomes, Recipe, Record
from bench.run.code import operator_sha256

if TYPE_CHECKING:
    from bench.run.fit import Fitted


def record_of(
    cell: Cell,
    *,
    command: str,
    run_id: str,
    reproduce: str | None = None,
    optuna_study: str | None = None,
    **parts: Any,
) -> Record:
    """Return a record of a cell that is made here and now.

    Args:
        cell: what it is of.
        command: the command line that asked for it.
        run_id: MLflow's, of the run that it is kept with.
        reproduce: the command that makes it again; None for the cell's own.
        optuna_study: name of Optuna's study; None for that which found the cell's settings, if any.
        **parts: the other fields of a record; entry and recipe are those of a cell that is not
            trained, where they are not given.
    """
    known = {"status": "ok", "entry": entry_of(cell), "recipe": recipe_of(cell, None)}
    return Record.make(
        **(known | parts),
        machine=machine.machine(),
        software=machine.software(),
        provenance=machine.provenance(
            command=command,
            reproduce=reproduce or cell.reproduce,
            mlflow_run=run_id,
            optuna_study=optuna_study or (cell.tuned.study if cell.tuned else None),
            suite=cell.suite,
            cell=cell.hash,
        ),
    )


def entry_of(cell: Cell, fitted: Fitted | None = None) -> Entry:
    """Return what the cell measures."""
    swapped, refused, carried = None, {}, None
    if fitted is not None and cell.backbone.get("operator") is not None:
        from bench.backbones import swap_report

        report = swap_report(fitted.module.backbone)
        swapped, refused = len(report.swapped), dict(report.refused)
        if cell.starts_trained:
            carried = len(report.carried)
    return entry_of_network(
        cell.operator,
        cell.network,
        slots_swapped=swapped,
        slots_refused=refused,
        slots_carried=carried,
        task=cell.config["model"]["class_path"].rpartition(".")[2].lower(),
        head=cell.config["model"]["init_args"].get("head"),
        baseline=cell.baseline,
        ranked=cell.ranked,
    )


def entry_of_network(label: str, backbone: Mapping[str, Any], **others: Any) -> Entry:
    """Return what is measured of a network in its training form.

    Args:
        label: of the arm.
        backbone: arguments of `bench.backbones.build`.
        **others: more fields of the entry, such as `task`.

    Example:
        >>> entry_of_network("own", {"host": "resnet18"}, task="backbone").operator
        'host'
    """
    operator = backbone.get("operator")
    fields = {
        "label": label,
        "operator": operator or "host",
        "operator_options": backbone.get("options") or {},
        "operator_sha256": operator_sha256(operator),
        "host": backbone.get("host") or "own",
        "host_options": backbone.get("host_options") or {},
        "selection": backbone.get("where") or {},
        "mix": backbone.get("mix"),
        "form": "training",
    }
    return Entry.model_validate({**fields, **others})


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
        forms=fitted.forms if fitted else {},
        tuning_trials=cell.tuned.trials if cell.tuned else 0,
        untuned=cell.untuned,
    )


def accuracy_of(cell: Cell, fitted: Fitted, work: Path) -> Accuracy:
    """Return the cell's score; the per-sample outcomes are written into `work`."""
    import numpy as np

    module = fitted.module
    outcomes = None
    if fitted.outcomes:
        file = work / "outcomes.npz"
        np.savez_compressed(file, allow_pickle=False, **fitted.outcomes)
        sha256 = file_sha256(file)
        # named by its content: what is kept under a name never changes
        name = file.rename(work / f"outcomes-{cell.hash}-{sha256[:12]}.npz").name
        outcomes = Outcomes(file=name, sha256=sha256, kind=module.outcomes_kind)
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
        sampling_error=_finite(fitted.sampling_error),
        per_class=fitted.per_class,
        outcomes=outcomes,
        curve={
            name: [value if math.isfinite(value) else None for value in values]
            for name, values in fitted.curve.items()
        },
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


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
