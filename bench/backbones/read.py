"""Read a checkpoint's tensors without executing anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.errors import UserError

_WRAPPERS = ("model", "state_dict")
_PICKLED = (".pth", ".pt", ".bin", ".ckpt")


def read(source: Mapping[str, Any] | str | Path) -> dict[str, Tensor]:
    """Return the state_dict in `source`, without wrappers and `module.` prefixes.

    Args:
        source: a state_dict, or a file: .safetensors, or .pth, .pt, .bin and .ckpt, which are
            read with weights_only=True, so that nothing in them is executed. The state_dict may
            lie under `model` or `state_dict`.

    Raises:
        ValueError: no such file, another kind of file, or something in it that is no tensor.
    """
    content: Any = source if isinstance(source, Mapping) else _read_file(Path(source))
    wrapped = True
    while wrapped:
        if not isinstance(content, Mapping):
            raise UserError(f"`source` must hold a state_dict, not a {type(content).__name__}.")
        wrapper = next((w for w in _WRAPPERS if isinstance(content.get(w), Mapping)), None)
        wrapped = wrapper is not None
        content = content if wrapper is None else content[wrapper]
    if not content:
        raise UserError("`source` must hold tensors: it is empty.")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise UserError(f"`source` must hold tensors: {name!r} is a {type(value).__name__}.")
    while all(name.startswith("module.") for name in content):
        content = {name.removeprefix("module."): value for name, value in content.items()}
    return dict(content)


def _read_file(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"`source` (={str(path)!r}) must be a file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix in _PICKLED:
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # what a broken file makes an unpickler raise is any exception
        raise UserError(
            f"`source` (={str(path)!r}) must be a checkpoint of tensors: {error}"
        ) from error
    raise UserError(
        f"`source` (={str(path)!r}) must end with .safetensors or one of {', '.join(_PICKLED)}."
    )
