"""Tensors in a .safetensors file, with JSON beside them that says what they are of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.errors import UserError


def write_tensors(state: Mapping[str, Tensor], path: Path, key: str, told: Any) -> None:
    """Write a state_dict, and under a key of the file's metadata what is told of it, as JSON."""
    # cloned, as safetensors refuses tensors that share memory
    alone = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    save_file(alone, path, metadata={key: json.dumps(told, sort_keys=True)})


def read_tensors(path: Path | str, key: str) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors of a file and what is told under a key; None where nothing is.

    Nothing in the file is executed.

    Raises:
        UserError: no such file, or one that is not safetensors.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"`path` (={str(path)!r}) must be a file.")
    try:
        with safe_open(file, "pt") as content:
            told = (content.metadata() or {}).get(key)
            state = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"`path` (={file.name!r}) is not safetensors: {error}") from None
    return state, None if told is None else json.loads(told)
