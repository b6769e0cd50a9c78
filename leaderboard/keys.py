"""What records are known by on the site: network, arm, set-up of a time, and the newest code."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from bench.board_key import board_key
from bench.hashing import digest
from bench.record import Record


def in_order(records: Iterable[Record]) -> list[Record]:
    """Return the records from the oldest to the newest, the same whatever their order was."""

    def moment(record: Record) -> tuple[str, str]:
        return record.provenance.created, record.identity

    ordered: list[Record] = []
    for _, same in groupby(sorted(records, key=moment), key=moment):
        several = list(same)
        # a file's name hashes all of the record, which is dear
        ordered += sorted(several, key=lambda r: r.filename) if len(several) > 1 else several
    return ordered


def code_key(record: Record) -> str:
    """Return what the code of a record's operator is compared within.

    That is the operator, and whether there was a GPU, whose kernels count in the hash there alone.
    """
    on_gpu = record.machine.gpu is not None
    return f"{record.entry.operator} on a GPU" if on_gpu else record.entry.operator


def newest_code(ordered: Iterable[Record]) -> dict[str, str]:
    """Return `code_key` → hash of the code in the newest of the records, which are in order.

    A decision is newer than the scores that it is about, and ran no code of its own; a study scores
    no arm of a board.
    """
    return {
        code_key(record): record.entry.operator_sha256
        for record in ordered
        if record.kind not in ("decision", "study")
    }


def board_of(record: Record) -> str:
    """Return the key of the board on which a record of known recipe stands."""
    recipe, data = record.recipe, record.data
    assert recipe is not None
    known = data.model_dump() if data else None
    return board_key(recipe.config, known, recipe.untuned)


def network_key(record: Record) -> str:
    """Hash of the network: host, operator, options and slots, whatever the task."""
    entry = record.entry
    return digest(
        [
            entry.host,
            entry.host_options,
            entry.operator,
            entry.operator_options,
            entry.selection,
            entry.mix,
        ]
    )


def arm_key(record: Record) -> str:
    """Hash of the arm on its board: the network, and the values that a study tuned."""
    values = tuned_values(record)
    return digest([network_key(record), values]) if values else network_key(record)


def tuned_values(record: Record) -> dict[str, Any]:
    """Return dotted name → value of what a study found for a record's arm; empty without one."""
    if record.recipe is None:
        return {}
    return {name: _value(record.recipe.config, name) for name in record.recipe.untuned}


def _value(config: Any, dotted: str) -> Any:
    """Return the value of a dotted name; None where the configuration does not mention it."""
    for part in dotted.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def setup_key(record: Record) -> str:
    """Hash of machine and settings, which rows of one column share."""
    speed = record.speed
    assert speed is not None
    return digest([*speed.setting, record.entry.form, record.machine.model_dump()])
