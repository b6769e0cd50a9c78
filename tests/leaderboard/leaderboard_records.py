"""Synthetic records, made by code, for the tests of the leaderboard only."""

import math
import random

from bench.hashing import digest
from bench.record import (
    Accuracy,
    Cost,
    Data,
    Entry,
    Interval,
    Machine,
    Metric,
    Provenance,
    Recipe,
    Record,
    Speed,
)

MACHINE = Machine(cpu="Test CPU 3000", cores=2, memory_bytes=8 << 30, os="Linux 6")
SOFTWARE = {"torch": "2.15.0", "timm": "1.0.31", "python": "3.11.7"}
CLASSES = ["circle", "square", "star", "cross", "ring", "moon"]
ARMS = {  # label: (operator, mean, params, macs, relative time)
    "conv3": ("conv", 0.842, 341_000, 21_400_000, 1.42),
    "dw7": ("dwconv", 0.861, 142_000, 9_800_000, 1.0),
    "parc": ("parc", 0.868, 139_500, 10_900_000, 1.31),
    "shift": ("shift", 0.859, 151_200, 12_100_000, 1.78),
    "acb": ("acb", 0.846, 344_100, 21_400_000, 1.43),
    "unireplk": ("unireplk", 0.872, 160_300, 11_700_000, 1.27),
    "icconv": ("icconv", 0.822, 341_000, 21_400_000, 2.05),
}


def entry(label, operator=None, *, form="training", **changes):
    """An entry of test_convnext; `dw7` is the baseline."""
    fields = {
        "label": label,
        "operator": operator or label,
        "operator_options": {},
        "operator_sha256": digest(operator or label),
        "host": "test_convnext",
        "selection": {"stages": [2, 3]},
        "slots_swapped": 6,
        "task": "classification",
        "form": form,
        "baseline": label == "dw7",
    }
    return Entry(**{**fields, **changes})


def provenance(created="2026-11-22T01:00:00", **changes):
    fields = {
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "git_dirty": False,
        "command": "convboard run quick",
        "reproduce": "convboard fit --config cell.yaml --seed_everything 0",
        "mlflow_run": "a1b2c3d4",
        "suite": "quick",
        "cell": "beef",
        "created": created,
    }
    return Provenance(**{**fields, **changes})


def data(**changes):
    fields = {
        "name": "scenes",
        "revision": "1",
        "files_sha256": digest("scenes"),
        "split": "val",
        "train_samples": 3000,
        "scored_samples": 900,
        "options": {"image_size": 64},
    }
    return Data(**{**fields, **changes})


def accuracy(who, seed, value, *, params=1000, macs=10_000, epochs=6, draw=None, **changes):
    """An ok accuracy record; `changes` replace parts of it."""
    draw = draw or random.Random(f"{who.label}{seed}")
    config = {
        "seed_everything": seed,
        "model": {"class_path": "tasks.Classification", "init_args": {"lr": 0.002}},
    }
    rising = [value * (1 - math.exp(-(epoch + 1) / 1.6)) for epoch in range(epochs - 1)]
    fields = {
        "kind": "accuracy",
        "status": "ok",
        "entry": who,
        "data": data(),
        "recipe": Recipe(
            name="quick",
            config=config,
            config_sha256=digest([who.label, who.operator_options]),
            seed=seed,
            epochs=epochs,
            samples_seen=epochs * 3000,
            train_seconds=20.5,
        ),
        "accuracy": Accuracy(
            headline="top1",
            metrics={
                "top1": Metric(value=value, unit="fraction", higher_is_better=True),
                "top5": Metric(value=min(1, value + 0.1), unit="fraction", higher_is_better=True),
                "ece": Metric(value=0.04, unit="fraction", higher_is_better=False),
            },
            sampling_error=math.sqrt(value * (1 - value) / 900),
            per_class={name: min(1.0, value + draw.gauss(0, 0.03)) for name in CLASSES},
            curve={
                "val/top1": [*rising, value],
                "train/loss": [2.0 * 0.7**epoch for epoch in range(epochs)],
            },
        ),
        "cost": Cost(params=params, macs=macs, input_size=(64, 64), status="ok"),
        "machine": MACHINE,
        "software": SOFTWARE,
        "provenance": provenance(),
    }
    return Record(**{**fields, **changes})


def failure(who, seed, *, status="error", error="RuntimeError: shapes differ", **changes):
    """A failed accuracy record that knows its data and recipe."""
    ok = accuracy(who, seed, 0.5)
    fields = {
        **{name: getattr(ok, name) for name in ("data", "recipe", "machine", "software")},
        "kind": "accuracy",
        "status": status,
        "error": error,
        "entry": who,
        "provenance": provenance(),
    }
    return Record(**{**fields, **changes})


def speed(who, relative, *, mode="latency", batch=1, run="run-1", verdict=None, **changes):
    """An ok speed record of the backbone whose baseline takes 4 ms a forward of batch 1."""
    draw = random.Random(f"{who.label}{mode}{batch}")
    base = 4.0 * (1 if batch == 1 else 0.7 * batch)
    slow = [draw.gauss(0, 0.01) for _ in range(5)]

    def samples(factor):
        return [
            [base * factor * math.exp(s + draw.gauss(0, 0.012)) for _ in range(20)] for s in slow
        ]

    def interval(value, part):
        return Interval(
            value=value,
            low=value * (1 - part),
            high=value * (1 + part),
            method="t over 5 processes",
        )

    median = base * relative
    baseline = who.baseline
    if verdict is None:
        verdict = "baseline" if baseline else "slower" if relative > 1.01 else "same"
    fields = {
        "kind": "speed",
        "status": "ok",
        "entry": who,
        "speed": Speed(
            run=run,
            protocol="1",
            scope="backbone",
            mode=mode,
            batch=batch,
            input_size=(64, 64),
            dtype="float32",
            layout="contiguous",
            device="cpu",
            threads=2,
            processes=5,
            rounds=20,
            samples_ms=samples(relative),
            baseline="dw7",
            baseline_samples_ms=samples(1.0),
            latency_median_ms=interval(median, 0.012),
            images_per_second=interval(1000 * batch / median, 0.012),
            ratio_to_baseline=None if baseline else interval(relative, 0.004),
            verdict=verdict,
            noise="noisy" if who.label == "shift" else "stable",
            drift_pct=0.3,
            steady=True,
            warmup_iterations=[30] * 5,
            first_call_ms=[22.0] * 5,
            outliers=2,
            gate_max_error=3e-6,
            gate_tolerance=1e-4,
        ),
        "machine": MACHINE,
        "software": SOFTWARE,
        "provenance": provenance("2026-11-22T01:30:00", command="convboard speed quick"),
    }
    return Record(**{**fields, **changes})


def suite(seeds=(0, 1, 2), **changes):
    """Seven arms with a score per seed, and their latency and throughput."""
    draw = random.Random(7)
    records = []
    for label, (operator, mean, params, macs, relative) in ARMS.items():
        who = entry(label, operator, **changes)
        for seed in seeds:
            value = mean + 0.006 * math.sin(seed + 1) + draw.gauss(0, 0.004)
            records.append(accuracy(who, seed, round(value, 4), params=params, macs=macs))
        fused = entry(label, operator, form="fused", **{**changes, "task": "backbone"})
        records.append(speed(fused, relative))
        throughput = relative**0.8
        records.append(speed(fused, throughput, mode="throughput", batch=8))
    return records


HOSTILE = "<script>alert(1)</script>"


def hostile():
    """A record each of whose free strings tries to leave its place."""
    nasty = f"\"'>{HOSTILE}<img src=x onerror=alert(2)>${{7*7}}{{{{7*7}}}}"
    who = entry(
        HOSTILE,
        nasty,
        operator_options={nasty: nasty},
        selection={nasty: [nasty]},
        slots_refused={nasty: nasty},
    )
    ok = accuracy(who, 0, 0.61)
    scored = ok.accuracy.model_copy(
        update={
            "per_class": {nasty: 0.5},
            "curve": {nasty: [0.1, 0.2], f"val/top1{nasty}": [0.3]},
            "metrics": {
                **ok.accuracy.metrics,
                nasty: Metric(value=1, unit=nasty, higher_is_better=True),
            },
        }
    )
    paper = provenance(
        command=nasty, reproduce=f"{nasty}\n</pre></button>", mlflow_run=nasty, git_commit=nasty
    )
    first = ok.model_copy(
        update={
            "accuracy": scored,
            "provenance": paper,
            "software": {nasty: nasty},
            "machine": MACHINE.model_copy(update={"cpu": nasty, "os": "</script>"}),
            "recipe": ok.recipe.model_copy(update={"config": {nasty: nasty}}),
        }
    )
    timed = speed(
        who.model_copy(update={"form": "fused", "task": "backbone"}), 1.6, provenance=paper
    )
    return [first, failure(who, 1, error=f"{nasty} \u2028"), timed]
