"""The moving average of the weights."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class Averaging(WeightAveraging):
    """Exponential moving average of weights and buffers; validation and checkpoints hold it.

    The decay starts small, min(decay, (1 + n)/(10 + n)) at step n, so that short runs do not keep
    the initial weights. Buffers of whole numbers (tables, counters) are copied, not averaged:
    rounding would change an operator's table.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        super().__init__(avg_fn=self._average)

    def _average(self, average: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
        if not average.is_floating_point():
            return current
        n = int(steps)
        return average.lerp(current, 1 - min(self.decay, (1 + n) / (10 + n)))

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Restore the average to go on training; to score, the checkpoint's weights are it."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
