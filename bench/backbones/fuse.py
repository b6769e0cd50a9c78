"""A model's form for inference: every operator in its own."""

from __future__ import annotations

import copy

from torch import nn

from bench.backbones.unireplk_block import UniRepLKBlock
from bench.operators.base import Operator

# What has an inference form of its own; `fuse` does not look inside.
_FUSING = (Operator, UniRepLKBlock)
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


def fuse(model: nn.Module) -> nn.Module:
    """Return a copy of `model` for inference: evaluation mode, every operator in its fused form.

    Example:
        >>> import timm
        >>> from bench.backbones.swap import swap
        >>> model = swap(timm.create_model("test_resnet"), "conv", input_size=(64, 64))
        >>> fuse(model).training, model.training
        (False, True)
    """
    fused = copy.deepcopy(model).eval()
    if isinstance(fused, _FUSING):
        return fused.fuse()
    done: dict[nn.Module, nn.Module] = {}
    _fuse_children(fused, done)
    return fused


def _fuse_children(parent: nn.Module, done: dict[nn.Module, nn.Module]) -> None:
    for name, child in parent._modules.items():
        if isinstance(child, _FUSING):
            if child not in done:  # a shared module stays shared
                done[child] = child.fuse()
                take_hooks(done[child], child)
            parent._modules[name] = done[child]
        elif child is not None:
            _fuse_children(child, done)


def take_hooks(new: nn.Module, old: nn.Module) -> None:
    """Move the forward hooks over: timm's feature extractors may listen to a convolution."""
    for kind in _HOOKS:
        getattr(new, kind).update(getattr(old, kind))
