"""The forms of an arm in a worker: inputs, the fp32 training form, and the form that is timed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.backbones.fuse import fastest
from bench.operators import forms
from bench.operators.choices import Choices
from bench.speed import exported
from bench.speed.gate import randomise
from bench.speed.job import Job
from bench.speed.protocol import EXPORTED, Settings
from bench.speed.training import TrainingStep, gradients

Prepare = Callable[[nn.Module], nn.Module]


def configure(settings: Settings) -> None:
    """Set threads, denormals and precision by the protocol, before anything is computed."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(settings.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if settings.device == "cuda":
        torch.backends.cudnn.benchmark = True
    if settings.engine == "compile":
        # The arms of a race share code, which is compiled for each anew; else from the ninth on
        # they would be run as they are, without a word.
        dynamo = torch._dynamo.config
        dynamo.recompile_limit = dynamo.accumulated_recompile_limit = 1 << 20
        dynamo.fail_on_recompile_limit_hit = True


def conditions(settings: Settings) -> dict[str, Any]:
    """Return what is in force in this process, as fields of `bench.record.Conditions`."""
    return {
        "min_block_ms": settings.min_block_ms,
        "warmup_min_ms": settings.warmup_min_ms,
        "warmup_cap_ms": settings.warmup_cap_ms,
        "forms": settings.forms,
        "tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32,
        "torch_threads": torch.get_num_threads(),
        "torch_interop_threads": torch.get_num_interop_threads(),
        "omp_num_threads": _environment("OMP_NUM_THREADS"),
        "mkl_num_threads": _environment("MKL_NUM_THREADS"),
    }


def _environment(name: str) -> int | None:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else None


def synchronise(settings: Settings) -> None:
    """Wait for the device."""
    if settings.device == "cuda":
        torch.cuda.synchronize()


def inputs(job: Job, batch: int) -> Tensor:
    """Return the fixed input (batch, in_channels, H, W) in float32, equal everywhere.

    That is the job's images, over and over where there are fewer than a batch, or noise from
    N(0, 1).
    """
    settings = job.settings
    images = job.images_of(batch)
    if images is not None:
        return torch.from_numpy(images).to(settings.device)
    generator = torch.Generator().manual_seed(settings.seed)
    shape = (batch, settings.in_channels, *settings.input_size)
    return torch.randn(shape, generator=generator).to(settings.device)


def training_form(factory: Callable[[], nn.Module], settings: Settings) -> nn.Module:
    """Build the reference: fp32, deterministic, in eval mode unless training steps are timed.

    End to end the weights are trained, and are kept; else nothing is left at its identity.
    """
    torch.manual_seed(settings.seed)
    model = factory()
    if settings.scope != "end_to_end":
        randomise(model, settings.seed)
    model = model.float().train(settings.training).to(settings.device)
    return model if settings.training else model.requires_grad_(False)


def timed_form(
    model: nn.Module, prepare: Prepare | None, examples: Sequence[Tensor], settings: Settings
) -> nn.Module:
    """Turn the training form into the timed one: by `prepare`, dtype, forms, layout and compiler.

    Exact forms are chosen for inference by torch itself, on what it is timed on; a training step
    chooses its own as it runs (`mode`).
    """
    timed = model if prepare is None else prepare(model)
    timed = timed.train(settings.training).to(dtype=getattr(torch, settings.dtype))
    if settings.forms == "measured" and settings.engine == "torch" and not settings.training:
        return fastest(timed, *examples, layout=settings.layout)
    if settings.layout == "channels_last":
        timed = timed.to(memory_format=torch.channels_last)
    if settings.engine == "compile":
        timed.compile(dynamic=False)
    return timed


def laid_out(settings: Settings) -> dict[str, str]:
    """Return the layout of what is timed, as `chosen` says it where one was measured."""
    return {"layout": "channels_last" if settings.layout == "channels_last" else "contiguous"}


def timed_input(x: Tensor, settings: Settings) -> Tensor:
    """Bring an input to the dtype and layout of the timed form."""
    x = x.to(getattr(torch, settings.dtype))
    channels_last = settings.layout == "channels_last"
    return x.contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )


@contextmanager
def mode(settings: Settings) -> Iterator[Choices | None]:
    """Be where forms are called: gradients are recorded in training alone, in measured forms."""
    if not settings.training:
        with torch.inference_mode():
            yield None
        return
    measured = settings.forms == "measured" and settings.engine == "torch"
    with torch.enable_grad(), forms.fastest() if measured else nullcontext() as choices:
        yield choices


def iteration(timed: nn.Module, x: Tensor, settings: Settings) -> Callable[[], Any]:
    """Return what is timed: one inference on the input by the engine, or one training step."""
    if settings.training:
        return TrainingStep(timed, x)
    if settings.engine in EXPORTED:
        return exported.iteration(timed, x, settings.engine, settings.threads)
    return partial(timed, x)


def compared(model: nn.Module, settings: Settings) -> Callable[[Tensor], Any]:
    """Return what the gate compares: the output, or what `model.compared` returns, if it has that.

    Labels and boxes that are kept or dropped hang on the last bit; the maps before them do not.
    Of a training step loss and gradients are compared.
    """
    if settings.training:
        return partial(gradients, model)
    return getattr(model, "compared", model)
