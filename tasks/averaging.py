"""The moving average of the weights."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class Averaging(WeightAveraging):
    """Exponential moving average of weights and buffers; validation and checkpoints hold it.

    The decay starts small, min(decay, (1 + n)/(10 + n)) at step n, so that short runs do not keep
    the initial weights. Buffers of whole numbers (tables, counters) are copied, not averaged:
    rounding would change an operator's table.

    Args:
        decay: share of the average that stays at each step, in (0, 1).
        device: where the average is kept: that on which the weights train. Lightning's default is
            where they lie before training, which is the CPU, and so a copy per step.
    """

    def __init__(self, decay: float, device: torch.device) -> None:
        self.decay = decay
        super().__init__(device=device, multi_avg_fn=self._average)

    @torch.no_grad()
    def _average(self, averages: list[Tensor], currents: list[Tensor], steps: Tensor) -> None:
        """Move tensors of one device and type; no number comes back from it, which would wait."""
        if not averages[0].is_floating_point():
            torch._foreach_copy_(averages, currents)
            return
        share = 1 - ((1 + steps) / (10 + steps)).clamp(max=self.decay)
        changes = torch._foreach_sub(currents, averages)
        torch._foreach_mul_(changes, share.to(averages[0].dtype))
        torch._foreach_add_(averages, changes)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Restore the average to go on training; to score, the checkpoint's weights are it."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
