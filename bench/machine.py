"""Where numbers come from: the machine, the versions, the commit; never host, user or path."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from bench.local import processor
from bench.record import Machine, Provenance

_PACKAGES = (
    "convboard",
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "torchmetrics",
    "numpy",
    "numba",
    "triton",
    "scipy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "mmdet",
    "mmsegmentation",
    "mmcv",
    "mmcv-lite",
    "mmengine",
    "mlflow",
    "optuna",
)

#: Records are written here, so that one that has just been written does not make the checkout
#: of the next one dirty.
_RESULTS = (":(exclude)leaderboard/results", ":(exclude)leaderboard/published")

_GIB = 1 << 30


def usable_cores() -> int:
    """Cores that this process may use: its affinity, cut down by the control group's quota.

    Example:
        >>> 1 <= usable_cores() <= (os.cpu_count() or 1)
        True
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cores, _quota(Path("/sys/fs/cgroup/cpu.max"))))


def usable_threads() -> int:
    """Threads that this process may compute with: its cores, or fewer if OMP_NUM_THREADS says so.

    Example:
        >>> 1 <= usable_threads() <= usable_cores()
        True
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return min(usable_cores(), int(asked)) if asked.isdigit() and int(asked) else usable_cores()


def peak_bytes() -> int:
    """Return the most memory that this process has held at a time, in bytes.

    Example:
        >>> peak_bytes() > 1 << 20
        True
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _quota(path: Path) -> int:
    """Cores that a control group's `cpu.max` ("quota period" in µs, or "max …") grants."""
    try:
        quota, period = path.read_text().split()
    except (OSError, ValueError):
        return sys.maxsize
    return sys.maxsize if quota == "max" else math.ceil(int(quota) / int(period))


@cache
def machine() -> Machine:
    """Describe this machine; memory in whole GiB, since the kernel's share differs by boot.

    Example:
        >>> machine().cores >= 1
        True
    """
    return Machine(
        cpu=processor(),
        cores=usable_cores(),
        memory_bytes=max(1, round(psutil.virtual_memory().total / _GIB)) * _GIB,
        os=f"{_system()}, {platform.machine()}",
        **_gpu(),
    )


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"


def _gpu() -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        return {}
    drivers = _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return {
        "gpu": torch.cuda.get_device_name(0),
        # torch counts those that this process is let see, which differ between cells
        "gpu_count": len(drivers) or torch.cuda.device_count(),
        "driver": drivers[0] if drivers else None,
    }


def _said(*command: str) -> list[str]:
    """Return the lines that a command prints; none where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.strip().splitlines()


@cache
def software() -> dict[str, str]:
    """Return package → version, of Python and of those installed that numbers depend on.

    torch's version names its build too, such as '+cpu'.

    Example:
        >>> sorted(software())[0], "torch" in software()
        ('convboard', True)
    """
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    import torch

    return {**versions, "torch": str(torch.__version__)}


def git_state(root: Path | None = None) -> dict[str, Any]:
    """Return commit, dirty flag and patch hash of the checkout that this code runs from.

    The patch hash covers the difference to the commit and the files that git neither tracks nor
    ignores; records are left out. All are None outside of a checkout, such as an installed wheel,
    also where some other repository lies around it.

    Args:
        root: top of the checkout; by default the folder that holds `bench`.

    Returns:
        The fields git_commit, git_dirty and git_patch_sha256 of bench.record.Provenance.

    Example:
        >>> sorted(git_state())
        ['git_commit', 'git_dirty', 'git_patch_sha256']
    """
    nothing = {"git_commit": None, "git_dirty": None, "git_patch_sha256": None}
    top = (Path(__file__).parents[1] if root is None else root).resolve()
    try:
        if Path(_git(top, "rev-parse", "--show-toplevel").decode().strip()).resolve() != top:
            return nothing
        commit = _git(top, "rev-parse", "HEAD").decode().strip()
        patch = _git(top, "diff", "HEAD", "--binary", "--no-ext-diff", "--", ".", *_RESULTS)
        listed = _git(top, "ls-files", "-z", "--others", "--exclude-standard", "--", ".", *_RESULTS)
    except (OSError, subprocess.SubprocessError):
        return nothing
    untracked = sorted(name for name in listed.decode().split("\0") if name)
    if not patch and not untracked:
        return {"git_commit": commit, "git_dirty": False, "git_patch_sha256": None}
    whole = hashlib.sha256(patch)
    for name in untracked:
        path = top / name
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "gone"
        whole.update(f"\0{name}\0{content}".encode())
    return {"git_commit": commit, "git_dirty": True, "git_patch_sha256": whole.hexdigest()}


def _git(top: Path, *arguments: str) -> bytes:
    command = ["git", "-C", str(top), *arguments]
    return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout


def provenance(*, command: str, reproduce: str, **others: Any) -> Provenance:
    """Say where a number comes from, as of now.

    Args:
        command: the command that runs.
        reproduce: the one command that reproduces the number.
        others: further fields of bench.record.Provenance, e.g. mlflow_run.

    Example:
        >>> provenance(command="convboard speed", reproduce="convboard speed").created[10]
        'T'
    """
    created = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Provenance(
        command=command, reproduce=reproduce, created=created, **{**git_state(), **others}
    )
