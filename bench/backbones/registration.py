"""What the networks of the papers share on their way into timm's registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import timm
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import generate_default_cfgs
from torch import nn

from bench.backbones.slots import Slot, find_slots
from bench.backbones.swap import exchange
from bench.errors import UserError


def config(**changes: Any) -> dict[str, Any]:
    """Return timm's description of a network without weights; `changes` as timm names them."""
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        **changes,
    }


def configs(networks: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return timm's table of descriptions for the networks of one file."""
    return generate_default_cfgs({name: config(**changes) for name, changes in networks.items()})


def hosted(name: str, host: str, pretrained: bool, kwargs: Mapping[str, Any]) -> nn.Module:
    """Create timm's `host` on the way to the network `name`.

    Raises:
        ValueError: `pretrained`: there are no weights of this network; `bench.checkpoints` reads
            the public ones.
    """
    if pretrained:
        raise UserError(
            f"`pretrained` (=True): timm has no weights of {name!r}; create it without, and load "
            "a public checkpoint with bench.checkpoints.load_official."
        )
    model: nn.Module = timm.create_model(host, **kwargs)
    # A plain dict to timm, whatever torch says of a module's attributes.
    description: Any = {**vars(model)["pretrained_cfg"]}
    description.update(architecture=name, tag="", hf_hub_id=None, url="")
    model.pretrained_cfg = model.default_cfg = description
    return model


def matching(model: nn.Module, *patterns: str) -> list[Slot]:
    """Return the slots that match one of the patterns; a cut feature extractor may lack them.

    `?` in a pattern stands for both separators that timm uses, `stages.2` and `stages_2`.
    """
    return [slot for slot in find_slots(model) if any(fnmatchcase(slot.name, p) for p in patterns)]


def put(
    model: nn.Module, operator: str, selection: Sequence[tuple[Slot, Mapping[str, Any]]]
) -> None:
    """Put `operator` into the slots of `selection`, each with its options, newly initialised.

    Raises:
        ValueError: a slot cannot hold it: the network would not be the one that it is named for.
    """
    exchange(model, operator, selection, carry=False, strict=True)
