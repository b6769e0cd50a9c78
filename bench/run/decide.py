"""Boards that are run until they are decided: what is compared, how far it is, what is kept of it.

How far a board is follows from the scores in the store alone, so that a run that was cut off goes
on where it was; see `bench.statistics.decide`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.config.cell import Cell
from bench.errors import ConfigError
from bench.hashing import digest
from bench.record import Decision as Kept_decision
from bench.record import Metric, Record
from bench.run.describe import record_of
from bench.run.states import is_stale
from bench.statistics.decide import Decision, Plan, decide
from bench.store import Kept, Store

POINT = 0.01
"""The margin that matters where nobody says otherwise: one point of a metric in 0…1."""
TAG = "convboard.decision"
"""Tag of a run: hash of the decision that is kept with it."""
PLANS = "convboard.decision.seeds_max"
"""Tag of the run of an arm's first seed: seeds at most of each plan by which it was judged."""


@dataclass(frozen=True)
class Contest:
    """A board of a suite that is to be decided.

    Attributes:
        key: of the board.
        title: for people.
        cells: arm and seed → what is run.
        plan: what is decided, and how.
        metric: unit and direction of the headline; its value means nothing.
    """

    key: str
    title: str
    cells: Mapping[tuple[str, int], Cell]
    plan: Plan
    metric: Metric

    def scores(
        self, kept: Mapping[str, Kept], *, again: bool = False
    ) -> dict[str, dict[int, float]]:
        """Return arm → seed → score of the cells that are done.

        Args:
            kept: runs of the store, by cell.
            again: results of older code do not count.
        """
        scores: dict[str, dict[int, float]] = {arm: {} for arm in self.plan.arms}
        for (arm, seed), cell in self.cells.items():
            run = kept.get(cell.hash)
            if run is not None and run.done and not (again and is_stale(cell, run.tags)):
                scores[arm][seed] = run.metrics[f"final/{run.tags['headline']}"]
        return scores


def contests(cells: Sequence[Cell], margin: str | None = None) -> list[Contest]:
    """Return the boards of a suite's cells; those whose data are not there are left out.

    Args:
        cells: of several seeds.
        margin: difference that matters: '1pp' (points of a metric in 0…1), or a number in the
            metric's unit; None for one point.

    Raises:
        ConfigError: a board has one arm or one seed, not every arm has the same seeds, or the
            margin is not one of its metric.
    """
    from bench.config import lightning

    boards: dict[str, dict[tuple[str, int], Cell]] = {}
    for cell in cells:
        if cell.ranked and not cell.absent:
            boards.setdefault(cell.board, {})[cell.operator, cell.seed] = cell
    found = []
    for key, board in boards.items():
        first = next(iter(board.values()))
        arms = tuple(dict.fromkeys(arm for arm, _ in board))
        seeds = tuple(dict.fromkeys(seed for _, seed in board))
        title = f"{first.task} · {first.host}"
        if len(arms) < 2 or len(seeds) < 2:
            raise ConfigError(
                f"{title}: there are {len(arms)} arms and {len(seeds)} seeds; to decide takes at "
                "least two of each."
            )
        lacking = [(arm, seed) for arm in arms for seed in seeds if (arm, seed) not in board]
        for arm, seed in lacking[:1]:
            raise ConfigError(
                f"{title}: {arm} has no seed {seed}, which another arm has; `--only` must leave "
                "every arm with the same seeds."
            )
        module = lightning.build(first.config).module
        unit, higher = module.metrics_info[module.headline]
        metric = Metric(value=0.0, unit=unit, higher_is_better=higher)
        plan = Plan(arms, seeds, _margin(margin, unit, title), higher)
        found.append(Contest(key, title, board, plan, metric))
    return found


def _margin(text: str | None, unit: str, title: str) -> float:
    """Return a margin in the unit of a metric.

    Example:
        >>> _margin("2pp", "fraction", "board"), _margin(None, "fraction", "board")
        (0.02, 0.01)
        >>> _margin("0.3", "px", "board")
        0.3
    """
    if text is None:
        if unit != "fraction":
            raise ConfigError(f"{title}: `--margin` must be given for a metric in {unit!r}.")
        return POINT
    number, points = text.strip().removesuffix("pp"), text.strip().endswith("pp")
    try:
        value = float(number)
    except ValueError:
        raise ConfigError(f"`--margin` (={text!r}) must be a number, or points as 1pp.") from None
    if points and unit != "fraction":
        raise ConfigError(f"{title}: `--margin` (={text!r}): its metric is in {unit!r}.")
    if not 0 < value < float("inf"):
        raise ConfigError(f"`--margin` (={text!r}) must be above 0.")
    value = value / 100 if points else value
    if unit == "fraction" and value >= 1:
        raise ConfigError(
            f"{title}: `--margin` (={text!r}) must be below 1 for a metric in 0…1: 0.01 is one "
            "point, which is 1pp too."
        )
    return value


def judged(
    contest: Contest,
    kept: Mapping[str, Kept],
    *,
    failed: Collection[str] = (),
    faster: Collection[tuple[str, str]] = (),
    again: bool = False,
) -> Decision:
    """Return how far a contest is.

    Args:
        contest: a board.
        kept: runs of the store, by cell.
        failed: arms of which a cell failed in this run.
        faster: pairs of arms of which the one is surely faster than the other.
        again: results of older code do not count.
    """
    return decide(contest.scores(kept, again=again), contest.plan, failed=failed, faster=faster)


def spent_seconds(contests: Iterable[Contest], kept: Mapping[str, Kept]) -> float | None:
    """Return the mean training time of the cells that are done; None where none is."""
    times = [
        run.metrics["train_seconds"]
        for contest in contests
        for cell in contest.cells.values()
        if (run := kept.get(cell.hash)) is not None and "train_seconds" in run.metrics
    ]
    return sum(times) / len(times) if times else None


def keep(
    contest: Contest,
    decision: Decision,
    store: Store,
    kept: Mapping[str, Kept],
    command: str,
    *,
    over: bool = False,
) -> list[Record]:
    """Keep with each arm's last cell why it runs no more; return the records that are new.

    What is kept already is not kept again.

    Args:
        contest: a board.
        decision: how far it is.
        store: where the cells are kept.
        kept: its runs, by cell.
        command: the command line that asked for it, for the records.
        over: nothing more is run, though something may be wanted; else, before the board has
            ended, it is known of those arms alone that were stopped.
    """
    records = []
    judged_by = plans(contest, kept)
    for arm, part in _parts(contest, decision, over, len(judged_by)).items():
        first = kept.get(contest.cells[arm, contest.plan.seeds[0]].hash)
        said = ",".join(map(str, judged_by))
        if first is not None and first.tags.get(PLANS) != said:
            store.tag(first.run_id, {PLANS: said})
        cells = [contest.cells[arm, seed] for seed in contest.plan.seeds[: part.rounds]]
        run = kept.get(cells[-1].hash)
        judged = [of.run_id for cell in cells if (of := kept.get(cell.hash)) is not None]
        content = digest([part.model_dump(), judged])
        if run is None or not run.done or run.tags.get(TAG) == content:
            continue
        with TemporaryDirectory() as scratch:
            folder = Path(scratch)
            scored = store.record(run)
            record = record_of(
                cells[-1],
                command=command,
                reproduce=command,
                run_id=run.run_id,
                kind="decision",
                entry=scored.entry,
                data=scored.data,
                recipe=scored.recipe,
                decision=part,
            )
            store.keep(run.run_id, record.save(folder / "new"), "records")
        store.tag(run.run_id, {TAG: content})
        records.append(record)
    return records


def plans(contest: Contest, kept: Mapping[str, Kept]) -> list[int]:
    """Return the seeds at most of the plans by which something was said of a board, and its own.

    The levels of a plan spend its whole risk on its own looks, so that the risks of several add up.
    """
    runs = (kept.get(contest.cells[arm, contest.plan.seeds[0]].hash) for arm in contest.plan.arms)
    said = (run.tags.get(PLANS, "") for run in runs if run is not None)
    return sorted({len(contest.plan.seeds), *(int(n) for of in said for n in of.split(",") if n)})


def _parts(
    contest: Contest, decision: Decision, over: bool, judged_by: int
) -> dict[str, Kept_decision]:
    """Return what the record of each arm says, of those of which something is settled."""
    plan = contest.plan

    def part(outcome: str, rounds: int, **more: object) -> Kept_decision:
        return Kept_decision.model_validate(
            {
                "outcome": outcome,
                "rounds": rounds,
                "seeds_max": len(plan.seeds),
                "margin": plan.margin,
                "risk": min(0.99, judged_by * plan.risk),
                **more,
            }
        )

    parts = {
        arm: part(why.reason, why.seeds, by=why.by, least=why.least)
        for arm, why in decision.stopped.items()
        if why.reason != "failed"
    }
    if (decision.wanted and not over) or decision.best is None or decision.rounds < 2:
        return parts
    best, rounds = decision.best, decision.rounds
    parts[best] = part("best" if decision.ended == "best" else "leads", rounds)
    for outcome, arms in (
        ("same", decision.same),
        ("worse", decision.worse),
        ("open", decision.open),
    ):
        parts |= {arm: part(outcome, rounds, by=best) for arm in arms}
    return parts
