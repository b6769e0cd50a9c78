"""A trained network in one file: its weights in safetensors, and the recipe that it is built by.

The file is data: what it names are classes of `tasks` and `bench.backbones.build`, nothing in it is
executed, and a head or a host that is code is refused unless it is trusted (`bench.config.trust`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from bench.backbones.tensors import read_tensors, write_tensors
from bench.config.cell import without_start
from bench.errors import UserError

KEY = "convboard.network"


@dataclass(frozen=True)
class About:
    """What a file says of its network.

    Attributes:
        model: the part `model` of the resolved configuration that builds it.
        class_names: by label.
        input_size: height and width of the images, in pixels.
        fused: whether the weights are of the form for inference.
    """

    model: dict[str, Any]
    class_names: Sequence[str]
    input_size: Sequence[int]
    fused: bool


def save(network: nn.Module, about: About, path: Path) -> None:
    """Write a network: what `tasks.base.TaskModule.inference_module` gives, fused or not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(network.state_dict(), path, KEY, asdict(about))


def load(path: Path | str) -> tuple[nn.Module, About]:
    """Return the network of a file, to evaluate, and what the file says of it.

    It takes images (N, 3, H, W) in 0…1.

    Raises:
        UserError: no such file, or one that `save` did not write.
    """
    from bench.backbones import fuse
    from bench.config import lightning

    state, told = read_tensors(path, KEY)
    if told is None:
        raise UserError(
            f"`path` (={Path(path).name!r}) holds tensors without the recipe of a network."
        )
    about = About(**told)
    module = lightning.build_module(without_start(about.model), len(about.class_names))
    network = module.inference_module()
    if about.fused:
        network = fuse(network)
    network.load_state_dict(state)
    return network.eval(), about
