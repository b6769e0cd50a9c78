"""Load a public checkpoint, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

import bench.checkpoints.networks  # noqa: F401  (the rules for the networks)
from bench.backbones.read import read
from bench.backbones.weights import public_readers
from bench.checkpoints.operators import take_over
from bench.checkpoints.transfer import CheckpointError, Scope, Transfer

_Module = TypeVar("_Module", bound=nn.Module)


def load_official(
    module: _Module, source: Mapping[str, Any] | str | Path, *, allow: Sequence[str] = ()
) -> _Module:
    """Load the authors' weights into one of our operators or networks, in place.

    Every public tensor goes to one place of ours with exactly its values; where a public tensor
    has another shape of the same order (a linear layer for a 1×1 convolution), it is reshaped.
    A fused checkpoint goes into the fused module, `bench.backbones.fuse(network)`; only the
    merged Shiftwise form, whose norms are not folded, goes into the training form. Shiftwise gets
    the public networks' tables, whatever its own were.

    Known are the public names of ACB, UniRepLK, ParC, Shiftwise and IC-Conv, alone and in
    UniRepLKNet, the Shiftwise networks, ParC-ConvNeXt, and, by the names that torchvision and
    timm share, in ResNets; all else must have our own names.

    Args:
        module: operator or network, in the form of the checkpoint.
        source: a state_dict or a file (.pth, .pt, .bin, .ckpt, .safetensors; read without
            executing anything), plain, or under `model` or `state_dict`, or with `module.`
            before every key.
        allow: patterns (`*`, `?`) of public keys that may be left over or missing, such as
            "head.*" for a backbone; what is missing stays as it is.

    Returns:
        The module.

    Raises:
        CheckpointError: keys missing or unexpected, or shapes that differ, all named; the module
            is as it was. It is a UserError.
        UserError: the source is no state_dict.

    Example:
        >>> import torch
        >>> from bench.operators import create
        >>> op = create("parc", in_channels=4, out_channels=4, resolution=7, axis="height")
        >>> public = {"pe": torch.randn(1, 4, 7, 1), "gcc_conv.weight": torch.randn(4, 1, 7, 1),
        ...           "gcc_conv.bias": torch.randn(4)}
        >>> torch.equal(load_official(op, {"model": public}).axes[0].pe, public["pe"][0, :, :, 0])
        True
        >>> load_official(op, {**public, "gcc_conv.bias": torch.randn(5)})
        Traceback (most recent call last):
            ...
        bench.checkpoints.transfer.CheckpointError: the checkpoint does not fit, nothing was loaded:
          of another shape: gcc_conv.bias: (5,) in the checkpoint, (4,) here
    """
    transfer = Transfer(public=read(source), ours=module.state_dict())
    take_over(module, Scope(transfer))
    module.load_state_dict(transfer.finish(allow))
    return module


ENDS = ("head.*", "norm.*", "fc.*", "classifier.*", "feature_norms.*", "norm[0-9].*")
"""Public keys of what stands behind the stages: a backbone that is fine-tuned may lack them or have
its own, and a classifier may be of other classes."""


def start_from(module: nn.Module, public: Mapping[str, Tensor]) -> bool:
    """Load the authors' weights into a host that is trained further; say whether they are its.

    All stages must be there, whole; what stands behind them (`ENDS`) is taken where it fits.
    """
    try:
        load_official(module, _without_other_classes(module, public), allow=ENDS)
    except CheckpointError:
        return False
    return True


def _without_other_classes(module: nn.Module, public: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Leave out a classifier of other classes than the module's."""
    classes = getattr(module, "num_classes", 0)
    return {
        name: value
        for name, value in public.items()
        if not (name.startswith(("head.", "fc.", "classifier.")) and len(value) != classes)
    }


public_readers.append(start_from)
