"""One forward pass of any model on a blank image that leaves the model as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bench.errors import UserError
from bench.operators.base import pair


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
        ValueError: the model does not run on an image of this size.
    """
    h, w = pair("input_size", input_size, 1)
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    failures: list[Exception] = []
    with _as_it_was(model):
        for channels in _channel_guesses(model):
            image: Tensor = torch.zeros(1, channels, h, w, dtype=like.dtype, device=like.device)
            try:
                model(image)
            except (RuntimeError, AssertionError, ValueError, IndexError) as error:
                failures.append(error)
            else:
                return
    raise UserError(
        f"`input_size` (=({h}, {w})) must be a size that the model runs on: {failures[0]}"
    ) from failures[0]
