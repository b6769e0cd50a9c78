"""A paper's whole public checkpoint: the backbone, and what stands behind it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from bench.backbones.read import read
from bench.checkpoints import CheckpointError, load_official

BACKBONE = "backbone."
"""How the names of a backbone's tensors begin in checkpoints of mmdet and mmsegmentation."""


def load_whole(backbone: nn.Module, behind: nn.Module | None, file: Path) -> None:
    """Load a checkpoint that was trained for the very task; all of it must fit.

    Args:
        backbone: the network.
        behind: neck and heads as mmdet or mmsegmentation name them, the backbone left out; None
            where the checkpoint is the network's own, with its classifier.
        file: read without executing anything.

    Raises:
        CheckpointError: what is missing, left over, or of another shape.
    """
    public = read(file)
    if behind is None:
        load_official(backbone, public)
        return
    inner = {k.removeprefix(BACKBONE): v for k, v in public.items() if k.startswith(BACKBONE)}
    rest = {k: v for k, v in public.items() if not k.startswith(BACKBONE)}
    _require_fit(behind.state_dict(), rest)
    load_official(backbone, inner)
    behind.load_state_dict(rest, strict=False)


def _require_fit(own: Mapping[str, Tensor], public: Mapping[str, Tensor]) -> None:
    """CheckpointError unless names and shapes agree; counters of batches may lack."""
    missing = [k for k in own if k not in public and not k.endswith("num_batches_tracked")]
    shapes = {
        k: (tuple(public[k].shape), tuple(value.shape))
        for k, value in own.items()
        if k in public and public[k].shape != value.shape
    }
    unexpected = [k for k in public if k not in own]
    if missing or unexpected or shapes:
        raise CheckpointError(missing, unexpected, shapes)
