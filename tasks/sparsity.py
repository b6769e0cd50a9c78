"""Training Shiftwise convolutions with coarse sparsity, as a Lightning callback."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from bench.errors import UserError, require
from bench.operators.shift import Shiftwise
from bench.operators.shift_sparsity import (
    cosine_rate,
    exchange,
    filter_saliency,
    random_mask,
    snip_densities,
)


class ShiftSparsity(L.Callback):
    """Keep a share of the small filters of every `shift` operator at zero (arXiv 2401.12736).

    At the first step SNIP's saliencies, from that step's gradients, say how many filters each
    layer keeps; which ones is drawn at random. Every `every_n_steps` steps the smallest of the
    kept filters are dropped and as many others regrow from zero; the share that is exchanged
    falls from `rate` to 0 by half a cosine over the training. Nothing is physically removed. The
    masks go into the checkpoint, and `train/shift_sparsity` into the log.

    Args:
        sparsity: share of all filters that is kept at zero, in [0, 1).
        rate: share of the kept filters that the first exchange replaces, in [0, 1].
        every_n_steps: optimizer steps between two exchanges.
        seed: of the private generator that draws filters; the same on every device of a run.

    Raises:
        ValueError: an argument out of range, or, when training starts, no `shift` in the model, or
            an average of its weights, in which what was exchanged would not be zero.

    Example:
        >>> ShiftSparsity(sparsity=1.0)
        Traceback (most recent call last):
        bench.errors.UserError: `sparsity` (=1.0) must be in [0, 1).
    """

    def __init__(
        self, sparsity: float = 0.3, rate: float = 0.3, every_n_steps: int = 100, seed: int = 0
    ) -> None:
        require("sparsity", sparsity, 0 <= sparsity < 1, "in [0, 1)")
        require("rate", rate, 0 <= rate <= 1, "in [0, 1]")
        require("every_n_steps", every_n_steps, every_n_steps >= 1, "an integer >= 1")
        self.sparsity = sparsity
        self.rate = rate
        self.every_n_steps = every_n_steps
        self.generator = torch.Generator().manual_seed(seed)
        self.masks: dict[str, Tensor] = {}
        self.exchanged_at = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the masks, the generator's state and the step of the last exchange."""
        return {
            "masks": dict(self.masks),
            "generator": self.generator.get_state(),
            "exchanged_at": self.exchanged_at,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` stopped."""
        self.masks = dict(state_dict["masks"])
        self.generator.set_state(state_dict["generator"].cpu())
        self.exchanged_at = state_dict["exchanged_at"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse a model without `shift`, and one whose average is scored and kept."""
        if not operators_of(pl_module):
            raise UserError("`model` has no shift operator, so there is nothing to keep sparse.")
        if any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            decay = getattr(pl_module, "ema_decay", None)
            raise UserError(
                f"`ema_decay` (={decay}) must be None with ShiftSparsity: in the average, which is "
                "scored and kept, filters that were dropped are not zero."
            )

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Draw the masks from the first gradients that are all there and finite."""
        if self.masks:
            return
        operators = operators_of(pl_module)
        saliencies = []
        for operator in operators.values():
            gradient = operator.weight.grad
            if gradient is None or not bool(gradient.isfinite().all()):
                return
            saliencies.append(filter_saliency(operator.weight, gradient).cpu())
        densities = snip_densities(saliencies, self.sparsity)
        for name, saliency, density in zip(operators, saliencies, densities, strict=True):
            self.masks[name] = random_mask(saliency.shape, density, self.generator)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Exchange filters when it is time, set the others to zero, and log the share of these."""
        step, operators = trainer.global_step, operators_of(pl_module)
        due = step % self.every_n_steps == 0 and step > self.exchanged_at
        if self.masks and due:
            total = trainer.estimated_stepping_batches
            rate = cosine_rate(step, total if total > 0 else math.inf, self.rate)
            self.exchanged_at = step
        for name, mask in self.masks.items():
            weight = operators[name].weight
            if due:
                self.masks[name] = exchange(weight.detach().cpu(), mask, rate, self.generator)
                mask = mask & self.masks[name]  # so that what regrows starts from zero
            with torch.no_grad():
                weight.mul_(mask.to(weight.device)[..., None, None])
        if self.masks:
            nonzero = sum(int(mask.sum()) for mask in self.masks.values())
            sparsity = 1 - nonzero / sum(mask.numel() for mask in self.masks.values())
            # Every process draws the same masks: the largest of equal numbers.
            pl_module.log(
                "train/shift_sparsity",
                sparsity,
                on_step=False,
                on_epoch=True,
                sync_dist=True,
                reduce_fx="max",
                batch_size=1,
            )


def operators_of(module: torch.nn.Module) -> dict[str, Shiftwise]:
    """Return the `shift` operators of a model by name."""
    return {name: m for name, m in module.named_modules() if isinstance(m, Shiftwise)}
