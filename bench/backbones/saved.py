"""Swapped and fused models in a file: safetensors, with the recipe of the swap inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from bench.backbones.build import build
from bench.backbones.fuse import fuse
from bench.backbones.recipe import recipe_of
from bench.backbones.swap import swap
from bench.backbones.tensors import read_tensors, write_tensors
from bench.errors import UserError
from bench.host_code import UNPICKLED

KEY = "convboard.backbone"


def save(model: nn.Module, path: Path | str, **host: Any) -> None:
    """Write a model that was built, swapped or fused here into one .safetensors file.

    Args:
        model: made by `build`, or any model that `swap` or `fuse` has changed.
        path: of the file, which must end in .safetensors.
        **host: arguments of `build` that make the host (`host`, `host_options`, `features_only`,
            `input_size`); needed where `build` did not make it.

    Raises:
        UserError: another ending, or a model of which nobody knows how its host is made.

    Example:
        >>> import timm, torch
        >>> from tempfile import TemporaryDirectory
        >>> model = swap(timm.create_model("test_resnet"), "acb", input_size=(64, 64)).eval()
        >>> x = torch.rand(1, 3, 64, 64)
        >>> with TemporaryDirectory() as folder:
        ...     save(fuse(model), f"{folder}/fused.safetensors", host="test_resnet")
        ...     fused = load(f"{folder}/fused.safetensors")
        >>> torch.allclose(fused(x), model(x), rtol=1e-3, atol=1e-4)
        True
    """
    file = Path(path)
    if file.suffix != ".safetensors":
        raise UserError(f"`path` (={str(path)!r}) must end in .safetensors.")
    recipe = recipe_of(model)
    if host:
        recipe["build"] = {**(recipe["build"] or {}), **host}
    if recipe["build"] is None:
        raise UserError(
            f"`model` (a {type(model).__name__}) was not made by bench.backbones.build: say what "
            "its host is, save(model, path, host='resnet18')."
        )
    recipe["num_classes"] = getattr(model, "num_classes", None)
    write_tensors(model.state_dict(), file, KEY, recipe)


def load(path: Path | str, *, trust: bool = False) -> nn.Module:
    """Return the model of a file that `save` wrote, to evaluate.

    Nothing in the file is executed: it holds tensors, and names of timm's models and of operators.

    Args:
        path: of the file.
        trust: whether a host that is code, or lies elsewhere, may be run; see `build`.

    Raises:
        UserError: no such file, not one of ours, or a host that is code and not trusted.
    """
    state, recipe = read_tensors(path, KEY)
    if recipe is None:
        raise UserError(
            f"`path` (={Path(path).name!r}) holds no recipe: bench.backbones.save wrote none."
        )
    arguments = {**recipe["build"], "pretrained": False, "weights": None}
    _refuse_code(arguments, trust)
    model = build(**arguments)
    for step in recipe["swaps"]:
        options = step.pop("options")
        model = swap(model, **step, carry=False, **options)
    classes = recipe["num_classes"]
    if classes is not None and getattr(model, "num_classes", classes) != classes:
        model.reset_classifier(classes)  # type: ignore[operator]
    model = fuse(model) if recipe["fused"] else model
    model.load_state_dict(state)
    return model.eval()


def _refuse_code(arguments: dict[str, Any], trust: bool) -> None:
    """UserError where a file asks for more than timm's models by name."""
    host = str(arguments.get("host"))
    asked = [name for name in UNPICKLED if name in (arguments.get("host_options") or {})]
    if not trust and (":" in host or asked):
        what = f"`host` (={host!r})" if ":" in host else f"`host_options.{asked[0]}`"
        raise UserError(f"{what} of the file would run code: if you trust it, say trust=True.")
