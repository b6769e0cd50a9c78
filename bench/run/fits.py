"""Which cells of a suite have a slot to stand in: known before anything is trained, and kept."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.config.cell import START, Cell
from bench.errors import ConfigError, DoesNotFit, UserError
from bench.hashing import digest, file_sha256
from bench.local import cache_folder
from bench.run.code import operator_sha256
from bench.whole_files import write_whole

FILE = "fits.json"


def unfit(cells: Iterable[Cell]) -> dict[str, str]:
    """Return why a cell's operator has no slot in its host, by the cell's hash.

    A network is built once for all seeds and tasks that share it. What came of it is kept in the
    cache, by everything that it depends on: the network's arguments, the operator's code, ours of
    hosts and slots, and the versions of torch and timm.

    Raises:
        ConfigError: the host or the operator's arguments are wrong, with the cell in which they
            stand.
    """
    kept, answers, reasons = _read(), dict[str, str](), dict[str, str]()
    for cell in cells:
        if cell.backbone.get("operator") is None:
            continue
        backbone = {k: v for k, v in cell.backbone.items() if k not in START}
        key = digest([backbone, operator_sha256(backbone["operator"])])
        if key not in answers:
            known = kept.get(key) if _is_named(backbone) else None
            answers[key] = _why(cell, backbone) if known is None else known
        if answers[key]:
            reasons[cell.hash] = answers[key]
    if any(key not in kept for key in answers):
        _write(kept | answers)
    return reasons


def _why(cell: Cell, backbone: dict[str, Any]) -> str:
    """Build the network; "" where the operator fits."""
    from bench.backbones import build
    from bench.config.trust import refuse_code

    refuse_code(backbone)
    try:
        build(**backbone)
    except DoesNotFit as refusal:
        return str(refusal)
    except UserError as error:
        raise ConfigError(f"{cell.title}: {error}") from error
    return ""


def _is_named(backbone: dict[str, Any]) -> bool:
    """Whether a host is known by its name: code of the user's may be another the next time."""
    return ":" not in backbone["host"]


def _path() -> Path:
    """The file of what is known; another one as soon as the code is another."""
    ours = sorted((Path(__file__).parents[1] / "backbones").glob("*.py"))
    code = [file_sha256(path) for path in ours]
    return cache_folder() / f"{digest([code, version('torch'), version('timm')])[:12]}-{FILE}"


def _read() -> dict[str, str]:
    with suppress(OSError, ValueError, RuntimeError):
        known = json.loads(_path().read_text(encoding="utf-8"))
        if isinstance(known, dict):
            return {str(key): str(why) for key, why in known.items()}
    return {}


def _write(answers: dict[str, str]) -> None:
    with suppress(OSError, RuntimeError):  # without a cache it is found out again
        path = _path()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(answers, sort_keys=True))
