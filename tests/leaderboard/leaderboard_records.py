"""Records for the tests of the leaderboard: real ones of the program, with parts replaced.

The originals are published records of the suite `quick`. What is replaced is what a test is about
(arm, seed, score, code, moment), in the record and in its resolved configuration alike.
"""

import copy
import math
import random
from pathlib import Path

from bench.hashing import digest
from bench.record import Entry, Metric, Provenance, Record, load_all

RESULTS = Path(__file__).parents[2] / "leaderboard" / "results"
ORIGINALS = [record for record in load_all(RESULTS) if record.provenance.suite == "quick"]


def original(**wanted):
    """The first published record with these values, e.g. `kind="speed"` or `host="resnet18"`."""
    for record in ORIGINALS:
        parts = (record, record.entry, record.data, record.speed)
        have = {key: value for part in parts if part for key, value in part}
        if all(have.get(key) == value for key, value in wanted.items()):
            return record
    raise LookupError(wanted)


SCORED = original(kind="accuracy", task="classification", name="scenes", label="dwconv")
SIZE = SCORED.cost.input_size
TIMED = original(kind="speed", scope="backbone", input_size=SIZE, label="parc", batch=1)
BEHIND = original(kind="speed", scope="end_to_end", task="classification", label="parc")
MACHINE = SCORED.machine
ARMS = {  # label: (operator, mean, params, macs, relative time)
    "conv3": ("conv", 0.842, 341_000, 21_400_000, 1.42),
    "dw7": ("dwconv", 0.861, 142_000, 9_800_000, 1.0),
    "parc": ("parc", 0.868, 139_500, 10_900_000, 1.31),
    "shift": ("shift", 0.859, 151_200, 12_100_000, 1.78),
    "acb": ("acb", 0.846, 344_100, 21_400_000, 1.43),
    "unireplk": ("unireplk", 0.872, 160_300, 11_700_000, 1.27),
    "icconv": ("icconv", 0.822, 341_000, 21_400_000, 2.05),
}


def changed(record, **parts):
    """The record with parts replaced, checked anew, its identity too."""
    return Record.model_validate({**record.model_dump(), "identity": "", **parts})


def entry(label, operator=None, **changes):
    """An entry of the original's host; `dw7` is the baseline."""
    fields = {
        "label": label,
        "operator": operator or label,
        "operator_options": {},
        "operator_sha256": digest(operator or label),
        "baseline": label == "dw7",
    }
    return Entry.model_validate({**SCORED.entry.model_dump(), **fields, **changes})


def provenance(created="2026-11-22T01:00:00", **changes):
    return Provenance.model_validate(
        {**SCORED.provenance.model_dump(), "created": created, **changes}
    )


def data(**changes):
    return SCORED.data.model_copy(update=changes)


def recipe(who, seed, settings=(), **changes):
    """The original's recipe for this arm and seed; `settings` (dotted name → value) over it."""
    config = copy.deepcopy(SCORED.recipe.config)
    arguments = config["model"]["init_args"]
    arguments["backbone"]["init_args"] |= {
        "host": who.host,
        "host_options": who.host_options,
        "operator": who.operator,
        "options": who.operator_options,
        "where": who.selection,
        "mix": who.mix,
    }
    arguments |= {"seed": seed, "head": who.head}
    config["data"]["init_args"]["seed"] = config["seed_everything"] = seed
    for dotted, value in dict(settings).items():
        *path, last = dotted.split(".")
        part = config
        for key in path:
            part = part[key]
        part[last] = value
    fields = {"config": config, "config_sha256": digest([config["trainer"], who.label])}
    return SCORED.recipe.model_copy(update={**fields, "seed": seed, **changes})


def accuracy(who, seed, value, *, settings=(), params=1000, macs=10_000, **changes):
    """An ok accuracy record; `changes` replace parts of it."""
    scored = SCORED.accuracy
    metrics = {**scored.metrics, "top1": scored.metrics["top1"].model_copy(update={"value": value})}
    fields = {
        "entry": who,
        "recipe": recipe(who, seed, settings),
        "accuracy": scored.model_copy(update={"metrics": metrics}),
        "cost": SCORED.cost.model_copy(update={"params": params, "macs": macs}),
        "provenance": provenance(),
    }
    return changed(SCORED, **{**fields, **changes})


def tuned(label, seed, value, trials=20, **changes):
    """A score of `parc` with a learning rate that a study of so many trials chose."""
    who = entry(label, "parc")
    settings = {"model.init_args.lr": 0.02}
    before = {"model.init_args.lr": SCORED.recipe.config["model"]["init_args"]["lr"]}
    best = recipe(who, seed, settings, untuned=before, tuning_trials=trials)
    return accuracy(who, seed, value, recipe=best, **changes)


def failure(who, seed, *, status="error", error="RuntimeError: shapes differ", **changes):
    """A failed accuracy record that knows its data and recipe."""
    lost = {"status": status, "error": error, "accuracy": None, "cost": None}
    return changed(accuracy(who, seed, 0.5), **{**lost, **changes})


def speed(who, relative, *, mode="latency", batch=1, verdict=None, **changes):
    """An ok speed record of the backbone, `relative` times the time of its baseline, `dw7`."""
    timed = TIMED.speed
    draw = random.Random(f"{who.label}{mode}{batch}")
    base = 4.0 * (1 if batch == 1 else 0.7 * batch)

    def samples(factor):
        times = range(timed.rounds)
        return [[base * factor * math.exp(draw.gauss(0, 0.01)) for _ in times] for _ in range(5)]

    def interval(value, part):
        low, high = value * (1 - part), value * (1 + part)
        return timed.latency_median_ms.model_copy(update={"value": value, "low": low, "high": high})

    median = base * relative
    if verdict is None:
        verdict = "baseline" if who.baseline else "slower" if relative > 1.01 else "same"
    measured = {
        "mode": mode,
        "batch": batch,
        "samples_ms": samples(relative),
        "baseline": "dw7",
        "baseline_samples_ms": samples(1.0),
        "latency_median_ms": interval(median, 0.012),
        "images_per_second": interval(1000 * batch / median, 0.012),
        "ratio_to_baseline": None if who.baseline else interval(relative, 0.004),
        "verdict": verdict,
        "noise": "noisy" if who.label == "shift" else "stable",
    }
    fields = {
        "entry": who,
        "speed": timed.model_copy(update=measured),
        "provenance": provenance("2026-11-22T01:30:00"),
    }
    return changed(TIMED, **{**fields, **changes})


def behind(score, relative, **changes):
    """A time of the network of `score`, end to end on its board."""
    who = score.entry.model_copy(update={"form": "fused"})
    timed = speed(who, relative).speed.model_copy(
        update={"scope": "end_to_end", "input_size": BEHIND.speed.input_size}
    )
    fields = {"entry": who, "data": score.data, "recipe": score.recipe, "speed": timed}
    return changed(BEHIND, **{**fields, "provenance": provenance(), **changes})


def suite(seeds=(0, 1, 2), **changes):
    """Seven arms with a score per seed, and their latency and throughput."""
    draw = random.Random(7)
    records = []
    for label, (operator, mean, params, macs, relative) in ARMS.items():
        who = entry(label, operator, **changes)
        for seed in seeds:
            value = mean + 0.006 * math.sin(seed + 1) + draw.gauss(0, 0.004)
            records.append(accuracy(who, seed, round(value, 4), params=params, macs=macs))
        fused = entry(label, operator, **{**changes, "form": "fused", "task": "backbone"})
        records.append(speed(fused, relative))
        records.append(speed(fused, relative**0.8, mode="throughput", batch=8))
    return records


HOSTILE = "<script>alert(1)</script>"


def hostile():
    """Records each of whose free strings tries to leave its place."""
    nasty = f"\"'>{HOSTILE}<img src=x onerror=alert(2)>${{7*7}}{{{{7*7}}}}"
    who = entry(
        HOSTILE,
        nasty,
        operator_options={nasty: nasty},
        selection={nasty: [nasty]},
        slots_refused={nasty: nasty},
    )
    paper = provenance(
        command=nasty, reproduce=f"{nasty}\n</pre></button>", mlflow_run=nasty, git_commit=nasty
    )
    ok = accuracy(who, 0, 0.61, settings={"trainer.max_epochs": nasty})
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
    first = changed(
        ok,
        accuracy=scored,
        provenance=paper,
        software={nasty: nasty},
        machine=MACHINE.model_copy(update={"cpu": nasty, "os": "</script>"}),
        data=data(name=nasty, revision=nasty),
        recipe=ok.recipe.model_copy(update={"name": nasty, "untuned": {nasty: nasty}}),
    )
    fused = who.model_copy(update={"form": "fused", "task": "backbone"})
    lost = failure(who, 1, error=f"{nasty} \u2028", data=first.data)
    setting = accuracy(
        who,
        0,
        0.5,
        settings={"trainer.max_epochs": nasty},
        accuracy=scored.model_copy(update={"headline": nasty}),
    )
    timed = speed(fused, 1.6, provenance=paper)
    return [first, lost, timed, behind(first, 1.2), setting]
