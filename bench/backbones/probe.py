"""One forward pass of any model on a blank image that leaves the model as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bench.errors import UserError
from bench.operators.base import pair

# What a model that is configured for no size raises on one that does not suit it.
_OF_A_SIZE = (RuntimeError, AssertionError, ValueError, IndexError)


@contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; training flags, buffers and generators restored afterwards."""
    training = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    first = next(model.parameters(), None)
    device = torch.device("cpu") if first is None else first.device
    cuda = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=cuda), torch.no_grad():
            model.eval()
            yield
    finally:
        for module, flag in training:
            module.training = flag
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def _channel_guesses(model: nn.Module) -> list[int]:
    """Likely numbers of input channels: the first convolution's, then the configuration's."""
    guesses = [m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)][:1]
    config = getattr(model, "pretrained_cfg", None) or {}
    guesses.append(int((config.get("input_size") or (3,))[0]))
    return list(dict.fromkeys(guesses))


def blank_forward(model: nn.Module, input_size: tuple[int, int]) -> None:
    """Run `model` once on one blank image of `input_size` (height, width) pixels.

    Training flags, buffers and the random generators are as before afterwards. The number of
    input channels is that of the model's first convolution; where the model rearranges pixels
    into channels before it, that of its timm configuration.

    Raises:
        UserError: the model does not run on this size, but on the one that timm configures it
            for, or none is configured. A model that runs on neither is at fault itself: its error
            passes as it is.
    """
    size = pair("input_size", input_size, 1)
    with _as_it_was(model):
        error = _attempt(model, size)
        if error is None:
            return
        own_size = _own_size(model)
        if own_size is None:
            if not isinstance(error, _OF_A_SIZE):
                raise error
        elif own_size == size or _attempt(model, own_size) is not None:
            raise error
    such_as = "" if own_size is None else f", such as {own_size}"
    raise UserError(
        f"`input_size` (={size}) must be a size that the model runs on{such_as}: {error}"
    ) from error


def _attempt(model: nn.Module, size: tuple[int, int]) -> Exception | None:
    """Run the model on one blank image; return the first error where no channel count works."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    errors: list[Exception] = []
    for channels in _channel_guesses(model):
        image: Tensor = torch.zeros(1, channels, *size, dtype=like.dtype, device=like.device)
        try:
            model(image)
        except Exception as error:
            errors.append(error)
        else:
            return None
    return errors[0]


def _own_size(model: nn.Module) -> tuple[int, int] | None:
    """Height and width that timm configures the model for; None where it does not."""
    config = getattr(model, "pretrained_cfg", None) or {}
    input_size = config.get("input_size")
    return None if input_size is None else (int(input_size[1]), int(input_size[2]))
