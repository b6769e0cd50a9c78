"""The networks of the papers: which there are, and what each costs."""

from __future__ import annotations

from dataclasses import dataclass

import timm
import torch
from timm.models import model_entrypoint

from bench.backbones.cost import macs
from bench.backbones.fuse import fuse


@dataclass(frozen=True)
class Network:
    """What a network costs, counted from the network itself on one image.

    Attributes:
        name: what `timm.create_model` takes.
        input_size: height and width of the image, in pixels.
        params: learned parameters in training.
        params_fused: of the form for inference.
        gmacs: multiply-accumulates of the form for inference, in 10⁹.
        gmacs_training: of the form in training, forward only.
        status: "ok", or "incomplete" where `note` says what a counter could not confirm.
        note: why.
    """

    name: str
    input_size: tuple[int, int]
    params: int
    params_fused: int
    gmacs: float
    gmacs_training: float
    status: str
    note: str


def names() -> list[str]:
    """Return the names of the papers' networks, sorted.

    Example:
        >>> import bench.backbones
        >>> {"ac_alexnet", "ic_resnet50", "parcnet_s", "unireplknet_xl"} <= set(names())
        True
    """
    ours = f"{__package__}."
    return sorted(n for n in timm.list_models() if model_entrypoint(n).__module__.startswith(ours))


def measure(name: str) -> Network:
    """Count one network, on the meta device: nothing is allocated or computed.

    Example:
        >>> import bench.backbones
        >>> row = measure("ic_resnet50")
        >>> row.params, round(row.gmacs, 3), row.status
        (25557032, 4.089, 'ok')
    """
    with torch.device("meta"):
        model = timm.create_model(name)
    size = model.pretrained_cfg["input_size"][1:]
    fused = fuse(model)
    total, status, note = macs(fused, size)
    training, training_status, training_note = macs(model, size)
    return Network(
        name=name,
        input_size=(size[0], size[1]),
        params=sum(p.numel() for p in model.parameters()),
        params_fused=sum(p.numel() for p in fused.parameters()),
        gmacs=total / 1e9,
        gmacs_training=training / 1e9,
        status="ok" if status == training_status == "ok" else "incomplete",
        note="; ".join(dict.fromkeys(n for n in (note, training_note) if n)),
    )


def networks() -> list[Network]:
    """Count every network of the papers: some seconds in all."""
    return [measure(name) for name in names()]
