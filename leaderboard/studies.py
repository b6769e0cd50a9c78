"""How an arm was tuned: what is said of its studies, and their drawings."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

from bench.record import Metric, Objective, Study, Trial
from leaderboard.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, frame, x_tick
from leaderboard.labels import shortened
from leaderboard.show import Show
from leaderboard.svg import Scale, domain, drawing, element, text, tick_text, whole_ticks
from leaderboard.wording import counted

BAR = 22.0
"""Height of a bar with its name, in pixels."""


def study_view(study: Study, family: int) -> dict[str, Any]:
    """Return what a page shows of a study.

    Args:
        study: of a record.
        family: number of the arm's colour.
    """
    shows = [_show(objective) for objective in study.objectives]
    charts = [history_chart(study, family)]
    if len(study.objectives) > 1:
        charts.append(pareto_chart(study, family))
    if study.importances:
        charts.append(importance_chart(study, family))
    names = list(dict.fromkeys(name for trial in study.trials for name in trial.params))
    return {
        "name": study.name,
        "words": words(study),
        "charts": [Markup(chart) for chart in charts if chart],
        "names": names,
        "objectives": [
            f"{show.metric_name(objective.name)}" + (f" ({show.unit})" if show.unit else "")
            for objective, show in zip(study.objectives, shows, strict=True)
        ],
        "trials": [
            {
                "number": trial.number,
                "marks": _marks(trial),
                "state": trial.error or trial.state,
                "values": [
                    show.score(value) for show, value in zip(shows, trial.values, strict=False)
                ],
                "params": [_param(trial.params.get(name)) for name in names],
                "epochs": trial.epochs,
            }
            for trial in study.trials
        ],
    }


def words(study: Study) -> str:
    """Say what a study cost and what came of it, in sentences."""
    show = _show(study.objectives[0])
    counts = {state: sum(t.state == state for t in study.trials) for state in ("pruned", "failed")}
    ends = [f"{count} {state}" for state, count in counts.items() if count]
    spent = counted(sum(trial.epochs for trial in study.trials), "epoch")
    budget = counted(len(study.trials), "trial") + (f" ({', '.join(ends)})" if ends else "")
    how = f"by {study.sampler}, pruner {study.pruner}, on {study.held_out:.0%} of the training set"
    default = next((trial for trial in study.trials if trial.default and trial.values), None)
    found = [trial for trial in study.trials if trial.best and not trial.default]
    if default is None:
        outcome = "the recipe as it is has no score"
    elif not found:
        outcome = f"none was better than the recipe as it is, {show.score(default.values[0])}"
    elif len(study.objectives) > 1:
        outcome = f"{counted(len(found), 'trial')} that none beats in both, beside the recipe"
    else:
        best = show.score(found[0].values[0])
        outcome = f"{best} at best, {show.score(default.values[0])} for the recipe as it is"
    unit = f" ({show.unit})" if show.unit else ""
    return f"{budget}, {spent} in all, {how}: {outcome}{unit}."


def _show(objective: Objective) -> Show:
    unit, higher = objective.unit, objective.higher_is_better
    return Show(Metric(value=0.0, unit=unit, higher_is_better=higher))


def _marks(trial: Trial) -> list[str]:
    return ["recipe"] * trial.default + ["best"] * trial.best


def _param(value: Any) -> str:
    if value is None:
        return "—"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _dot(x: float, y: float, trial: Trial, spot: str) -> str:
    name = f"trial {trial.number}: {spot}{', the recipe' if trial.default else ''}"
    radius = 5.5 if trial.best else 3.0
    fill = "currentColor" if trial.best else "none"
    title = f"<title>{escape(name)}</title>"
    return element("circle", title, cx=x, cy=y, r=radius, fill=fill, stroke="currentColor")


def history_chart(study: Study, family: int) -> str:
    """Draw every score by trial, and as a line the best so far; '' without a score."""
    objective = study.objectives[0]
    scored = [trial for trial in study.trials if trial.values]
    if not scored:
        return ""
    scores = [trial.values[0] for trial in scored]
    low, high = domain(scores, [], [], log=False)
    up = Scale(low, high, HEIGHT - BOTTOM, TOP)
    last = max(trial.number for trial in study.trials)
    across = Scale(0, max(last, 1), LEFT + 8, WIDTH - RIGHT - 8)
    parts = frame(up, f"{objective.name}, held out", "trial")
    parts += [x_tick(across(tick), str(tick)) for tick in whole_ticks(0, last, 6)]
    better = max if objective.higher_is_better else min
    spots, best = [], scores[0]
    for trial, score in zip(scored, scores, strict=True):
        spots.append(f"{across(trial.number):.1f},{up(best):.1f}")
        best = better(best, score)
        spots.append(f"{across(trial.number):.1f},{up(best):.1f}")
    inside = [element("polyline", points=" ".join(spots), class_="curve")]
    inside += [
        _dot(across(trial.number), up(score), trial, f"{score:.4g}")
        for trial, score in zip(scored, scores, strict=True)
    ]
    parts.append(element("g", "".join(inside), class_=f"f{family}"))
    return drawing(parts, WIDTH, HEIGHT, f"{objective.name} by trial, and the best so far")


def pareto_chart(study: Study, family: int) -> str:
    """Draw score against time, and as a line those that no trial beats in both; '' without any."""
    scored = [trial for trial in study.trials if len(trial.values) > 1]
    if not scored:
        return ""
    times = [trial.values[1] for trial in scored]
    scores = [trial.values[0] for trial in scored]
    up = Scale(*domain(scores, [], [], log=False), HEIGHT - BOTTOM, TOP)
    across = Scale(*domain(times, [], [], log=False), LEFT + 8, WIDTH - RIGHT - 8)
    first, second = study.objectives
    parts = frame(up, f"{first.name}, held out", second.name)
    ticks = across.ticks(5)
    parts += [x_tick(across(tick), tick_text(tick, ticks)) for tick in ticks]
    front = sorted((x, y) for t, x, y in zip(scored, times, scores, strict=True) if t.best)
    spots = [f"{across(x):.1f},{up(y):.1f}" for x, y in front[:1]]
    for (_, before), (x, y) in itertools.pairwise(front):
        spots += [f"{across(x):.1f},{up(before):.1f}", f"{across(x):.1f},{up(y):.1f}"]
    inside = [element("polyline", points=" ".join(spots), class_="curve")]
    inside += [
        _dot(across(x), up(y), trial, f"{y:.4g} at {x:.3g}×")
        for trial, x, y in zip(scored, times, scores, strict=True)
    ]
    parts.append(element("g", "".join(inside), class_=f"f{family}"))
    return drawing(parts, WIDTH, HEIGHT, f"{first.name} against {second.name}, a dot per trial")


def importance_chart(study: Study, family: int) -> str:
    """Draw how much the score hangs on each setting, a bar each."""
    shares: Mapping[str, float] = study.importances
    height = 22 + BAR * len(shares)
    parts = [text(f"what {study.objectives[0].name} hangs on", 2, 13, class_="name")]
    left, width = 124.0, WIDTH - 124.0 - 44.0
    bars = []
    for index, (name, share) in enumerate(sorted(shares.items(), key=lambda item: -item[1])):
        y = 22 + BAR * index
        parts.append(text(shortened(name, 18), left - 6, y + 13, class_="tick", text_anchor="end"))
        bars.append(
            element(
                "rect", x=left, y=y + 3, width=width * share, height=BAR - 8, fill="currentColor"
            )
        )
        parts.append(text(f"{share:.0%}", left + width * share + 6, y + 13, class_="tick"))
    parts.append(element("g", "".join(bars), class_=f"f{family}"))
    return drawing(parts, WIDTH, height, "Share of each setting in what the score hangs on")
