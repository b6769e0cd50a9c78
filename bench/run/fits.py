"""Which cells of a suite have a slot to stand in: known before anything is trained, and kept."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from bench.config.cell import START, Cell
from bench.config.trust import refuse_code
from bench.errors import ConfigError, DoesNotFit, UserError
from bench.hashing import digest
from bench.memo import remembered
from bench.run.code import operator_sha256


def unfit(cells: Iterable[Cell]) -> dict[str, str]:
    """Return why a cell's operator has no slot in its host, by the cell's hash.

    A network is built once for all seeds and tasks that share it. What came of it is remembered,
    by its arguments, in which the hash of a host's code is, and by the operator's code, which may
    be another package's.

    Raises:
        ConfigError: the host or the operator's arguments are wrong, with the cell in which they
            stand.
    """
    answers, reasons = dict[str, str](), dict[str, str]()
    for cell in cells:
        if cell.backbone.get("operator") is None:
            continue
        backbone = {k: v for k, v in cell.backbone.items() if k not in START}
        network = [backbone, operator_sha256(backbone["operator"])]
        key = digest(network)
        if key not in answers:
            refuse_code(backbone)
            why = partial(_why, cell, backbone)
            answers[key] = remembered("fits", network, why) if _is_known(backbone) else why()
        if answers[key]:
            reasons[cell.hash] = answers[key]
    return reasons


def _why(cell: Cell, backbone: dict[str, Any]) -> str:
    """Build the network; "" where the operator fits."""
    from bench.backbones import build

    try:
        build(**backbone)
    except DoesNotFit as refusal:
        return str(refusal)
    except UserError as error:
        raise ConfigError(f"{cell.title}: {error}") from error
    return ""


def _is_known(backbone: dict[str, Any]) -> bool:
    """Whether a host is the same the next time: it is timm's, or code of which there is a hash."""
    return ":" not in backbone["host"] or "host_sha256" in backbone
