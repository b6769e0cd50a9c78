"""What a command line must say so that the code that a suite uses may run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.config.trust import asked
from bench.local import PLUGINS


def code_flags(configs: Iterable[Mapping[str, Any]], hosts: Collection[str]) -> str:
    """Return `--plugin FILE` for each file of operators in use, and `--trust` where it is needed.

    Files are shown by their names alone, as all that records say.

    Args:
        configs: what the suite's configurations say, in any form.
        hosts: those that the command line names, whose code may run by that.

    Example:
        >>> code_flags([{"host": "net.py:Net"}], []), code_flags([{"host": "resnet18"}], [])
        (' --trust', '')
        >>> code_flags([{"host": "net.py:Net"}], ["net.py:Net"])
        ''
    """
    files = filter(None, os.environ.get(PLUGINS, "").split(os.pathsep))
    words = [word for file in files for word in ("--plugin", Path(file).name)]
    if any(list(asked(config, hosts)) for config in configs):
        words.append("--trust")
    return "".join(f" {shlex.quote(word)}" for word in words)
