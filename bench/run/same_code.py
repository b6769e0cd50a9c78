"""Whether the code that a server of processes has imported is still the code in the files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench.errors import UserError

_noted: dict[str, tuple[Path, tuple[int, int] | None]] = {}


class CodeChanged(UserError):
    """Code that a command goes on with is another one in the files by now."""


def note() -> None:
    """Remember the files of our modules that are imported by now, as they are."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and name.partition(".")[0] in ("bench", "tasks"):
            _noted[name] = Path(file), _state(Path(file))


def require_same_code() -> None:
    """Refuse to compute with code that is another one in the files by now.

    What is computed would be of the old code, and known by the hash of the new.

    Raises:
        CodeChanged: a file was changed since it was noted.
    """
    changed = sorted(name for name, (path, state) in _noted.items() if _state(path) != state)
    if changed:
        raise CodeChanged(
            f"{changed[0].replace('.', os.sep)}.py was changed while this command ran: run it "
            "again; what is done stays."
        )


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
