"""How a model was made: noted on the model as it is built, swapped and fused, for `saved`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

_NAME = "_convboard_recipe"


def recipe_of(model: nn.Module) -> dict[str, Any]:
    """Return what is noted: `build`, arguments of `build` or None; `swaps`; whether it is `fused`.

    Example:
        >>> recipe_of(nn.Identity())
        {'build': None, 'swaps': [], 'fused': False}
    """
    noted = getattr(model, _NAME, None)
    start: dict[str, Any] = {"build": None, "swaps": [], "fused": False}
    return copy.deepcopy(noted) if isinstance(noted, dict) else start


def note_build(model: nn.Module, arguments: Mapping[str, Any]) -> None:
    """Note that a model is what `build` makes of these arguments, its swap included."""
    _note(model, {"build": dict(arguments), "swaps": [], "fused": False})


def note_swap(model: nn.Module, arguments: Mapping[str, Any]) -> None:
    """Note one more call of `swap`."""
    recipe = recipe_of(model)
    recipe["swaps"].append(dict(arguments))
    _note(model, recipe)


def note_fused(model: nn.Module) -> None:
    """Note that a model is in its form for inference."""
    _note(model, {**recipe_of(model), "fused": True})


def _note(model: nn.Module, recipe: dict[str, Any]) -> None:
    setattr(model, _NAME, recipe)
