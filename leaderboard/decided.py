"""What is said of arms and boards to which seeds were added until they were decided."""

from __future__ import annotations

from collections.abc import Sequence

from bench.record import Decision
from bench.statistics.decide import RISK
from leaderboard.rows import Row
from leaderboard.show import Show
from leaderboard.wording import counted, listed

ALONE = "by a test of these two"
"""What is known of an arm that was left out: of many such arms, one may be wrong."""


def decision_of(row: Row) -> Decision | None:
    """Return the decision on an arm; none where it was run since, or with more seeds."""
    decision = row.decision.decision if row.decision else None
    if decision is None or _run_since(row) or len(row.scores) > decision.rounds:
        return None
    return decision


def _run_since(row: Row) -> bool:
    """Whether an arm has results that were not there when it was decided about."""
    if row.decision is None:
        return True
    decided = row.decision.provenance.created
    return any(record.provenance.created > decided for record in row.records)


def words(decision: Decision, show: Show) -> str:
    """Say why an arm runs no more, as the end of a sentence.

    Example:
        >>> decision = Decision(
        ...     outcome="worse", by="acb", least=0.032, rounds=2, seeds_max=10,
        ...     margin=0.01, risk=0.05,
        ... )
        >>> from bench.record import Metric
        >>> words(decision, Show(Metric(value=0, unit="fraction", higher_is_better=True)))
        'after two seeds: at least 3.2 points worse than acb, by a test of these two'
    """
    after = f"after {counted(decision.rounds, 'seed')}"
    if decision.outcome in ("worse", "beaten") and decision.least is not None:
        slower = ", which is faster too" if decision.outcome == "beaten" else ""
        amount = show.amount(decision.least)
        return f"{after}: at least {amount} worse than {decision.by}{slower}, {ALONE}"
    if decision.outcome == "worse":
        return f"{after}: worse than {decision.by}, {ALONE}"
    if decision.outcome == "same":
        return f"{after}: within {show.amount(decision.margin)} of {decision.by}, surely"
    if decision.outcome == "best":
        return f"{after}: surely the best"
    if decision.outcome == "leads":
        return f"{after}: it leads"
    return f"{after}: not told from {decision.by}"


def stopped_words(row: Row, show: Show) -> str | None:
    """Say why an arm has fewer seeds than others, where a decision left it out."""
    decision = decision_of(row)
    if decision is None or decision.outcome not in ("worse", "beaten"):
        return None
    return f"Stopped {words(decision, show)}."


def told_apart(rows: Sequence[Row]) -> frozenset[tuple[str, str]]:
    """Return the pairs (better, worse) that a decision tells apart, by the keys of the rows.

    Where one arm was found the best, it is better than each of the others.
    """
    decisions = {row.key: decision_of(row) for row in rows}
    best = [key for key, d in decisions.items() if d is not None and d.outcome == "best"]
    if len(best) != 1:
        return frozenset()
    others = (
        key for key, d in decisions.items() if d is not None and d.outcome in ("worse", "beaten")
    )
    return frozenset((best[0], key) for key in others)


def board_words(rows: Sequence[Row], show: Show) -> str:
    """Say how a board was decided; empty where seeds were not added by a rule.

    What holds for all arms is not said any more where one came to the board, or was run, since.
    """
    decisions = {row.label: d for row in rows if (d := decision_of(row)) is not None}
    if any(row.scores and not row.failures and _run_since(row) for row in rows):
        return ""
    best = next((label for label, d in decisions.items() if d.outcome in ("best", "leads")), None)
    if best is None:
        return ""
    same = [label for label, d in decisions.items() if d.outcome == "same"]
    open_ = [label for label, d in decisions.items() if d.outcome == "open"]
    if same:
        verb = "is" if len(same) == 1 else "are"
        margin = show.amount(decisions[best].margin)
        answer = f"{best} leads, and {listed(same)} {verb} surely within {margin} of it"
    elif decisions[best].outcome == "best":
        answer = f"{best} is surely the best"
    else:
        answer = f"{best} leads"
    if open_:
        answer += f"; {listed(open_)} can't be told from it"
    return (
        f"Seeds were added where they could change the answer, up to "
        f"{decisions[best].seeds_max}: {answer}. The tests allow for having looked after every "
        f"seed; single intervals do not.{_risk_words(decisions[best].risk)}"
    )


def _risk_words(risk: float) -> str:
    """Say that the risk grew where a board was judged by several plans; empty where by one."""
    if risk < 2 * RISK:
        return ""
    return (
        " It was judged by plans of unlike length, whose risks of calling a wrong arm the best add "
        f"up to {risk:.0%}."
    )
