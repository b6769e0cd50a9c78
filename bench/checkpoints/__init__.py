"""Public checkpoints of the papers, loaded into our operators and networks."""

from bench.checkpoints.load import load_official
from bench.checkpoints.transfer import CheckpointError

__all__ = ["CheckpointError", "load_official"]
