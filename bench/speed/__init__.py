"""The speed protocol: all arms take turns in fresh processes; it knows nn.Module and no task.

Names are loaded when first used, so that a worker process imports only what it times.

Example:
    >>> from functools import partial
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from torch import nn
    >>> from bench.speed import Arm, measure
    >>> arms = [Arm("k3", partial(nn.Conv2d, 3, 4, 3)), Arm("k7", partial(nn.Conv2d, 3, 4, 7))]
    >>> with TemporaryDirectory() as folder:
    ...     results = measure(
    ...         arms, baseline="k3", input_size=(16, 16), batches=(1,), processes=2, rounds=3,
    ...         threads=1, min_block_ms=0.1, warmup_cap_ms=5, folder=Path(folder),
    ...     )
    >>> [(r.label, r.batch, r.status, r.verdict is not None) for r in results]
    [('k3', 1, 'ok', True), ('k7', 1, 'ok', True)]
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.speed.arms import Arm as Arm
    from bench.speed.arms import measure as measure
    from bench.speed.layers import SHAPES as SHAPES
    from bench.speed.layers import Shape as Shape
    from bench.speed.layers import operator_arms as operator_arms
    from bench.speed.protocol import PROTOCOL as PROTOCOL
    from bench.speed.protocol import Settings as Settings
    from bench.speed.result import ArmResult as ArmResult

_HOME = {
    "Arm": "arms",
    "ArmResult": "result",
    "PROTOCOL": "protocol",
    "SHAPES": "layers",
    "Settings": "protocol",
    "Shape": "layers",
    "measure": "arms",
    "operator_arms": "layers",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
