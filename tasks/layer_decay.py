"""Layer-wise learning rates: the nearer to the image, the slower (of BEiT and ConvNeXt)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from bench.errors import UserError

BLOCKS = 3
"""Blocks in a row that make a layer, as in ConvNeXt's recipes."""
_BLOCK = re.compile(
    r"(?:^|[._])(?:stages?|layers?|blocks?|features?)[._]?(\d+)[._](?:blocks?[._])?(\d+)[._]"
)


def layers_of(names: Sequence[str]) -> list[int]:
    """Return the layer of each parameter of a backbone, in the order in which it is run.

    The stem is layer 0; three blocks in a row make a layer; what leads to a stage goes with its
    first block; what stands behind the blocks is the last layer.

    Args:
        names: of the parameters, as `named_parameters` orders them.

    Raises:
        UserError: no blocks are told by the names.

    Example:
        >>> layers_of(["stem.weight", "stages.0.blocks.0.w", "stages.0.blocks.1.w", "norm.weight"])
        [0, 1, 1, 2]
        >>> layers_of([f"layer1.{block}.conv1.weight" for block in range(5)])
        [1, 1, 1, 2, 2]
    """
    blocks = [_block(name) for name in names]
    order = {block: place for place, block in enumerate(dict.fromkeys(filter(None, blocks)))}
    if not order:
        raise UserError(
            "`layer_decay` must be None for this backbone: its parameters' names tell no blocks."
        )
    first = next(index for index, block in enumerate(blocks) if block)
    last = max(index for index, block in enumerate(blocks) if block)
    layers: list[int] = []
    for index, _ in enumerate(names):
        if index < first:
            layers.append(0)
        elif index > last:
            layers.append((len(order) - 1) // BLOCKS + 2)
        else:
            block = next(b for b in blocks[index:] if b)
            layers.append(order[block] // BLOCKS + 1)
    return layers


def rates_of(backbone: nn.Module, decay: float) -> dict[nn.Parameter, float]:
    """Return parameter → factor of its learning rate: decay ** (layers behind it).

    What stands behind the backbone learns at factor 1, as does a norm behind its last block.

    Example:
        >>> import timm
        >>> net = timm.create_model("test_convnext", features_only=True)
        >>> sorted({round(rate, 3) for rate in rates_of(net, 0.5).values()})
        [0.062, 0.125, 0.25, 0.5]
    """
    named = list(backbone.named_parameters())
    layers = layers_of([name for name, _ in named])
    head = (len({*filter(None, (_block(name) for name, _ in named))}) - 1) // BLOCKS + 2
    return {
        parameter: decay ** (head - layer)
        for (_, parameter), layer in zip(named, layers, strict=True)
    }


def _block(name: str) -> tuple[str, str] | None:
    """Return stage and block of a parameter; None where it is in none."""
    match = _BLOCK.search(name)
    return (match[1], match[2]) if match else None
