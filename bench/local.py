"""What is this machine's own: its processor's name, and where things are kept between runs."""

from __future__ import annotations

import os
import platform
from pathlib import Path

PLUGINS = "CONVBOARD_PLUGINS"
"""Environment variable: files of operators (`--plugin`), which processes that are started have too;
between them stands what stands between the folders of PATH."""


def processor() -> str:
    """Return the name of the processor, as the system tells it.

    Example:
        >>> bool(processor())
        True
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def has_gpu() -> bool:
    """Whether this process may see a GPU of NVIDIA's; torch is not asked, whose import takes long.

    Example:
        >>> has_gpu() in (True, False)
        True
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return any(Path("/dev").glob("nvidia[0-9]*"))


def cache_folder() -> Path:
    """Return where things are kept that can be made again: $CONVBOARD_CACHE, or ~/.cache/convboard.

    Raises:
        RuntimeError: there is no such variable, and the user has no home.
    """
    chosen = os.environ.get("CONVBOARD_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "convboard"


def located(root: Path | str) -> Path:
    """Return where a set lies: a relative folder is one below $CONVBOARD_DATA, where that is set.

    So configurations, and the hashes of cells, name no folder of one machine.

    Example:
        >>> located("/sets/coco").as_posix()
        '/sets/coco'
    """
    return Path(os.environ.get("CONVBOARD_DATA", "")) / root


def found(file: Path | str) -> Path:
    """Return where a file lies that a configuration names: as it is named, or below the sets.

    Example:
        >>> found("nowhere.pth").as_posix()
        'nowhere.pth'
    """
    return Path(file) if Path(file).is_file() else located(file)
