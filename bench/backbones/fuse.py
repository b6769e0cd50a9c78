"""A model's form for inference: every operator in its own."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.backbones.recipe import note_fused
from bench.backbones.unireplk_block import UniRepLKBlock
from bench.hashing import digest
from bench.operators import forms
from bench.operators.base import Operator
from bench.operators.choices import Choices, problem, quickest

# What has an inference form of its own; `fuse` does not look inside.
_FUSING = (Operator, UniRepLKBlock)
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


def fuse(model: nn.Module, *examples: Tensor, inplace: bool = False) -> nn.Module:
    """Return a copy of `model` for inference: evaluation mode, every operator in its fused form.

    Args:
        model: any model.
        inplace: use the model up, in place of copying it.
        examples: inputs of the shapes that it is meant for, on the device and in the dtype that
            are meant: see `fastest`. Without one the rule chooses the forms.

    Example:
        >>> import timm
        >>> from bench.backbones.swap import swap
        >>> model = swap(timm.create_model("test_resnet"), "conv", input_size=(64, 64))
        >>> fuse(model).training, model.training
        (False, True)
    """
    fused = (model if inplace else copy.deepcopy(model)).eval()
    if isinstance(fused, _FUSING):
        fused = fused.fuse()
    else:
        _fuse_children(fused, {})
    note_fused(fused)
    return fastest(fused, *examples) if examples else fused


def fastest(
    model: nn.Module,
    *examples: Tensor,
    layout: Layout = "fastest",
    choices: Choices | None = None,
) -> nn.Module:
    """Return a model in its fastest exact forms and layout for inputs like the examples.

    The forms of every operator are measured where it stands, and so is the layout of the whole
    network, channels last or not; over several examples the geometric mean decides. What was
    measured is kept, so that the next call, in another process too, takes the same.

    Args:
        model: for inference; it is used up.
        examples: inputs, on the device and in the dtype that are meant.
        layout: of the weights, and so of all maps; "fastest" measures it.
        choices: where what was measured is kept; by default a file in the user's cache.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from bench.operators import create
        >>> model = nn.Sequential(create("dwconv", in_channels=4, out_channels=4, kernel_size=7))
        >>> x = torch.zeros(1, 4, 8, 8)
        >>> with TemporaryDirectory() as folder:
        ...     choices = Choices(Path(folder) / "forms.json")
        ...     sorted(chosen(fastest(fuse(model), x, choices=choices), 1))
        ['0.conv', 'layout']
    """
    choices = choices or Choices()
    if layout != "fastest":
        return _in_layout(model, layout, examples, choices)
    models: dict[str, nn.Module] = {}

    def laid(name: str) -> nn.Module:
        """Return the model in a layout, made as it is measured."""
        if name not in models:
            models[name] = _in_layout(copy.deepcopy(model), name, examples, choices)
        return models[name]

    totals = dict.fromkeys(_MEMORY_FORMAT, 0.0)
    for x in examples:
        candidates = {name: partial(_whole, laid, name, x) for name in _MEMORY_FORMAT}
        of = problem("network", x, model=digest(_shape_of(model))[:16])
        for name, ms in choices.times(of, candidates).items():
            totals[name] += math.log(ms) / len(examples)
    best = quickest({name: math.exp(total) for name, total in totals.items()})
    return models[best] if best in models else _in_layout(model, best, examples, choices)


def chosen(model: nn.Module, batch: int) -> dict[str, str]:
    """Return name of a module → form that it takes for a batch, as far as chosen, and the layout.

    Example:
        >>> import torch
        >>> from bench.operators import create
        >>> chosen(nn.Sequential(create("dwconv", in_channels=4, out_channels=4)), 1)
        {}
    """
    taken = {
        name: form
        for name, module in model.named_modules()
        if isinstance(module, forms.Formed)
        for form in module.chosen(batch)
    }
    layout = vars(model).get("layout_taken")
    return {"layout": layout, **taken} if layout else taken


Layout = Literal["fastest", "contiguous", "channels_last"]
_MEMORY_FORMAT = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def _in_layout(
    model: nn.Module, layout: str, examples: Sequence[Tensor], choices: Choices
) -> nn.Module:
    """Bring a model into a layout, and choose the forms of its operators there."""
    model = model.to(memory_format=_MEMORY_FORMAT[layout])
    model.layout_taken = layout  # type: ignore[assignment]
    for x in examples:
        forms.choose(model, x, choices)
    return model


@torch.inference_mode()
def _whole(laid: Callable[[str], nn.Module], name: str, x: Tensor) -> Tensor:
    """Run a model; what it returns is compared by the gate of a speed run, and not here."""
    laid(name)(x)
    return x


def _shape_of(model: nn.Module) -> list[Any]:
    """Return what tells networks apart: of what modules they are, and what computes in them."""
    formed = [m.described() for m in model.modules() if isinstance(m, forms.Formed)]
    return [str(model), [list(p.shape) for p in model.parameters()], formed]


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
