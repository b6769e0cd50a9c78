"""The second objective: the time of a trial's network over that of the default, measured."""

from __future__ import annotations

import math
from statistics import fmean
from typing import Any

from bench.config import files
from bench.config.cell import Cell
from bench.config.speed import SpeedConfig
from bench.errors import Failure
from bench.run.describe import entry_of
from bench.run.races import network
from bench.run.timing import measured
from bench.run.tune.spaces import DROP_PATH
from bench.run.untrained import networks_race
from bench.speed.protocol import Scope
from bench.store import Store

PROCESSES = 3
"""Fresh processes of a trial's time; a published one takes five."""
SCOPE: Scope = "backbone"


def time_ratio(cell: Cell, config: dict[str, Any], plan: SpeedConfig, store: Store) -> float:
    """Return time ÷ the default's of the backbone, fused, for one image: both take turns.

    What is trained alone (learning rate, drop path) leaves the network as it is: the ratio is 1,
    and nothing is measured. A network that was measured in this study is not measured again.

    Args:
        cell: the arm.
        config: of the trial.
        plan: how its suite is timed.
        store: keeps the samples.

    Raises:
        Failure: it cannot be timed.
    """
    before = {DROP_PATH: files.value_at(cell.config, DROP_PATH)}
    tried = cell.model_copy(update={"config": config, "untuned": before})
    arms = [("default", cell), ("tried", tried)]
    networks = [
        (
            entry_of(arm).model_copy(
                update={
                    "label": label,
                    "task": SCOPE,
                    "form": "fused",
                    "baseline": label == "default",
                }
            ),
            network(arm),
        )
        for label, arm in arms
    ]
    if networks[0][1] == networks[1][1]:
        return 1.0
    short = plan.model_copy(
        update={
            "scopes": {SCOPE: [1]},
            "processes": min(plan.processes, PROCESSES),
            "memory": False,
            "form": "fused",
        }
    )
    race = networks_race(networks, SCOPE, short, host=cell.host, words="")
    results = measured(race, race.load(store, store.folder), store.folder / "speed")
    (logs,) = [result.log_ratios for result in results if result.label == "tried"]
    if not logs:
        why = next((r.error for r in results if r.error), "no process came through")
        raise Failure(f"the network of the trial can't be timed: {why}")
    return math.exp(fmean(logs))
