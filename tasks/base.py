"""What the tasks share: optimiser, schedule, averaging, seeds, logging, outcomes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, Self

import lightning as L
import numpy as np
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.errors import UserError, near, require
from bench.operators import Operator
from tasks.averaging import Averaging
from tasks.data.order import share_of
from tasks.layer_decay import rates_of
from tasks.normalisation import Normalize
from tasks.optimisation import can_fuse, make_optimizer, parameter_groups
from tasks.schedule import Schedule
from tasks.seeds import derive

OPTIMIZERS = ("adamw", "sgd")


class TaskModule(L.LightningModule, ABC):
    """A backbone, what stands behind it, and how both are trained and scored.

    A task implements `loss`, `predict`, `inference_module`, and the scoring in three parts:
    `reset_scores`, `score` (one batch) and `scores` (all of them). This class does the rest: it
    logs `train/loss` per step and epoch and `val/<metric>` per epoch (`test/<metric>` under
    `Trainer.test`, which scores in the same way).

    A batch is a pair `(images, targets)`, images (N, 3, H, W) floats in 0…1.

    On several devices every process scores its share of the samples, so that each is scored once,
    and all log the same metrics. All must then call `scores`, `per_class` and `outcomes`.

    Every draw while training (drop path, dropout, mixup) is a function of `seed` and the step, so
    arms are paired and a resumed run equals an uninterrupted one. Layers behind the backbone are
    to be made inside `with seeded(seed, "head")`, so that they do not depend on how many numbers
    the backbone's operator drew.

    Args:
        backbone: the network whose operators are compared.
        optimizer: "adamw" or "sgd" (with Nesterov momentum).
        lr: peak learning rate, > 0; it moves step by step, see `schedule`.
        weight_decay: ≥ 0; not applied to norms, biases and other one-dimensional parameters.
        momentum: of SGD, in [0, 1).
        warmup_epochs: epochs (may be a fraction) of linear warm-up.
        schedule: how the learning rate falls: "cosine" (None), "linear", or "steps", by ten at
            each of `milestones`; see `tasks.schedule.Schedule`.
        milestones: epochs (may be fractions) of "steps".
        final_lr: share of the peak at the end of "cosine" and "linear"; None for 0.
        nesterov: whether SGD's momentum is Nesterov's; None for yes.
        layer_decay: factor, in (0, 1), of the learning rate from a layer of the backbone, of three
            blocks, to the one before it; see `tasks.layer_decay`. None for one rate.
        frozen_norm: whether the host's batch norms keep their statistics, as detectors on few
            images a device do; those inside operators learn theirs. None for no.
        ema_decay: decay, in (0, 1), of an exponential moving average of the weights; then
            validation and checkpoints use the average. None for no average.
        channels_last: lay out images and weights channels last.
        compile: compile the backbone with torch.compile.
        mean: per channel, subtracted from the images (in 0…1) before the backbone.
        std: per channel, by which they are divided then.
        seed: of the initialisation behind the backbone and of all draws while training.

    Raises:
        ValueError: names the argument, its value and the rule.
    """

    headline: ClassVar[str]
    """Name of the metric that ranks."""
    metrics_info: ClassVar[dict[str, tuple[str, bool]]]
    """Metric → (unit, whether higher is better)."""
    outcomes_kind: ClassVar[str]
    """What a row of `outcomes()` is."""
    built_with: ClassVar[tuple[str, ...]] = ()
    """Modules that take seconds to import, and are not before a network is built."""
    num_classes: int
    """Number of classes; labels are 0…num_classes − 1."""

    def __init__(
        self,
        backbone: nn.Module,
        *,
        optimizer: Literal["adamw", "sgd"] = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        momentum: float = 0.9,
        warmup_epochs: float = 0.0,
        schedule: Literal["cosine", "linear", "steps"] | None = None,
        milestones: Sequence[float] | None = None,
        final_lr: float | None = None,
        nesterov: bool | None = None,
        layer_decay: float | None = None,
        frozen_norm: bool | None = None,
        ema_decay: float | None = None,
        channels_last: bool = False,
        compile: bool = False,
        mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
        std: Sequence[float] = IMAGENET_DEFAULT_STD,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, nn.Module):
            raise UserError(f"`backbone` (={backbone!r}) must be a torch.nn.Module.")
        if optimizer not in OPTIMIZERS:
            raise UserError(
                f"`optimizer` (={optimizer!r}) is not known; {near(str(optimizer), OPTIMIZERS)}"
            )
        require("lr", lr, lr > 0, "> 0")
        require("weight_decay", weight_decay, weight_decay >= 0, ">= 0")
        require("momentum", momentum, 0 <= momentum < 1, "in [0, 1)")
        slower = layer_decay is None or 0 < layer_decay < 1
        require("layer_decay", layer_decay, slower, "in (0, 1) or None")
        require("ema_decay", ema_decay, ema_decay is None or 0 < ema_decay < 1, "in (0, 1) or None")
        require("seed", seed, isinstance(seed, int) and seed >= 0, "an integer >= 0")
        self.backbone = backbone
        self.optimizer_name = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.schedule = Schedule(schedule, warmup_epochs, final_lr, tuple(milestones or ()))
        self.nesterov = nesterov is not False
        self.layer_decay = layer_decay
        self.frozen_norm = bool(frozen_norm)
        self.ema_decay = ema_decay
        self.channels_last = channels_last
        self.compile_backbone = compile
        self.normalize = Normalize(mean, std)
        self.seed = seed
        self._class_names: tuple[str, ...] | None = None
        self._unscored: int | None = None
        if channels_last:
            self.backbone.to(memory_format=torch.channels_last)

    # What a task implements.

    @abstractmethod
    def loss(self, batch: Any) -> dict[str, Tensor]:
        """Return the losses of a batch `(images, targets)` by name; their sum is trained."""

    @abstractmethod
    def predict(self, images: Tensor) -> Any:
        """Return the predictions for images (N, 3, H, W) in 0…1, without gradients."""

    @abstractmethod
    def inference_module(self) -> nn.Module:
        """Return what is timed end to end: a copy of backbone, head and post-processing.

        It takes images (N, 3, H, W) in 0…1, in evaluation mode and training form; for inference,
        `bench.backbones.fuse` it. Where its output is made of decisions, its method `compared`
        returns the maps before them, by which forms are compared.
        """

    @abstractmethod
    def reset_scores(self) -> None:
        """Forget all scored batches."""

    @abstractmethod
    def score(self, batch: Any) -> None:
        """Predict a batch and add it to the scores and outcomes."""

    @abstractmethod
    def scores(self) -> dict[str, float]:
        """Return the metrics over all scored batches, keys as in `metrics_info`."""

    @abstractmethod
    def per_class(self) -> dict[str, float]:
        """Return class → headline metric or its like, after validation."""

    @abstractmethod
    def outcomes(self) -> dict[str, np.ndarray]:
        """Return the per-sample outcomes, in the order of the scored split, after validation."""

    def sampling_error(self) -> float | None:
        """Return the standard error of the headline from the finite scored set, if known."""
        return None

    @property
    def behind(self) -> nn.Module | None:
        """What stands behind the backbone, by the names of its public checkpoints; None for none.

        Its weights are its own: those of the backbone are not among them.
        """
        return None

    # What a task uses.

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes by label: given, or those of the data, or 0, 1, 2, …."""
        data = getattr(self._trainer, "datamodule", None)
        names = self._class_names or getattr(data, "class_names", None)
        return tuple(names or map(str, range(self.num_classes)))

    def laid_out(self, images: Tensor) -> Tensor:
        """Return images in the memory layout asked for."""
        if self.channels_last:
            return images.contiguous(memory_format=torch.channels_last)
        return images

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluate without gradients; every module then gets back the mode that it had."""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(modes[0][1])
            for module, training in modes:
                module.training = training

    # What Lightning calls.

    def setup(self, stage: str) -> None:
        """Compile the backbone, where asked, before its first use."""
        if self.compile_backbone and stage == "fit":
            self.backbone.compile()

    def train(self, mode: bool = True) -> Self:
        """Train or evaluate; batch norms that are frozen always evaluate."""
        super().train(mode)
        if self.frozen_norm:
            _freeze_norms(self.backbone)
        return self

    def forward(self, images: Tensor) -> Any:
        """Predict: the same as `predict`."""
        return self.predict(images)

    def on_train_epoch_start(self) -> None:
        """Freeze norms, where asked: Lightning does not call `train`."""
        if self.frozen_norm:
            _freeze_norms(self.backbone)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Make the draws of this step a function of the seed, the step and the process."""
        torch.manual_seed(
            derive(self.seed, "step", self.current_epoch, batch_idx, self.global_rank)
        )

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the sum of the losses, and log it."""
        losses = self.loss(batch)
        total = torch.stack(list(losses.values())).sum()
        size = len(batch[0])
        self.log(
            "train/loss",
            total.detach(),
            batch_size=size,
            on_step=True,
            on_epoch=True,
            prog_bar=True,
            sync_dist=True,
        )
        if len(losses) > 1:
            parts = {f"train/{name}": value.detach() for name, value in losses.items()}
            self.log_dict(parts, batch_size=size, on_step=False, on_epoch=True, sync_dist=True)
        return total

    def on_validation_epoch_start(self) -> None:
        """Start scoring."""
        self._start_scoring()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Score one batch."""
        self._score_share(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the epoch."""
        self._log_scores("val")

    def on_test_epoch_start(self) -> None:
        """Start scoring."""
        self._start_scoring()

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Score one batch."""
        self._score_share(batch)

    def on_test_epoch_end(self) -> None:
        """Log the metrics."""
        self._log_scores("test")

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        """Predict the images of a batch."""
        return self.predict(batch[0] if isinstance(batch, (tuple, list)) else batch)

    def _start_scoring(self) -> None:
        self.reset_scores()
        self._unscored = None
        if self.trainer.world_size > 1:
            loader: Any = self.trainer.val_dataloaders
            if self.trainer.testing:
                loader = self.trainer.test_dataloaders
            samples = len(loader.dataset)
            self._unscored = share_of(samples, self.global_rank, self.trainer.world_size)

    def _score_share(self, batch: Any) -> None:
        """Score a batch without what a sampler repeats at the end, to fill up every process."""
        images, targets = batch
        if self._unscored is not None:
            count = min(len(images), self._unscored)
            self._unscored -= count
            images, targets = images[:count], targets[:count]
        if len(images):
            self.score((images, targets))

    def _log_scores(self, stage: str) -> None:
        for name, value in self.scores().items():
            # All processes agree already: the largest of equal numbers is exact, a mean may not be.
            in_bar = name == self.headline
            self.log(f"{stage}/{name}", value, prog_bar=in_bar, sync_dist=True, reduce_fx="max")

    def configure_optimizers(self) -> Any:
        """AdamW or SGD with linear warm-up and its schedule, step by step."""
        trainer = self.trainer
        rates = None if self.layer_decay is None else rates_of(self.backbone, self.layer_decay)
        groups = parameter_groups(self, self.weight_decay, self.lr, rates)
        fused = can_fuse(
            [parameter for group in groups for parameter in group["params"]],
            trainer.precision_plugin,
            clipped=bool(trainer.gradient_clip_val),
        )
        optimizer = make_optimizer(
            self.optimizer_name,
            groups,
            lr=self.lr,
            momentum=self.momentum,
            fused=fused,
            nesterov=self.nesterov,
        )
        steps = trainer.estimated_stepping_batches
        if math.isinf(steps):
            raise UserError(
                f"`trainer.max_epochs` (={trainer.max_epochs!r}) or `trainer.max_steps` "
                f"(={trainer.max_steps!r}) must be set: the learning rate hangs on the last step."
            )
        trainer.fit_loop.setup_data()  # Lightning leaves it for later where it knows the steps
        # not `max_epochs`, which `max_steps` may end before, or stand in the place of
        epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        total, epochs = int(steps), steps / epoch or 1
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.schedule.factor(step, total, epochs)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def configure_callbacks(self) -> Any:
        """Average the weights, where asked, on the device on which they will train."""
        if self.ema_decay is None:
            return []
        return [Averaging(self.ema_decay, self.trainer.strategy.root_device)]


def _freeze_norms(module: nn.Module) -> None:
    """Let batch norms evaluate, but those inside operators, which may be fresh."""
    for child in module.children():
        if isinstance(child, _BatchNorm):
            child.eval()
        elif not isinstance(child, Operator):
            _freeze_norms(child)
