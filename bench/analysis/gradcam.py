"""Grad-CAM: where a classifier looks for a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.backbones.wrapped import maps_of

POSITIONS = 7
"""A heat map with fewer positions a side says nothing of where."""


def gradcam(
    network: nn.Module, images: Tensor, classes: Tensor | None = None, stage: str | None = None
) -> Tensor:
    """Explain a classifier's decisions by a map.

    Paper: Selvaraju et al., Grad-CAM, ICCV 2017, arXiv 1610.02391: relu(Σ_c α_c f[c]), where α_c
    is the mean of the class's gradient over channel c of the map f; resized to the image.

    Args:
        network: a classifier, in evaluation mode; it is left as it was.
        images: (N, C', H, W) as the network takes them.
        classes: (N) labels to explain; None for the predicted ones.
        stage: name of the module whose output is f; None for `deepest_stage`.

    Returns:
        (N, H, W), each image scaled to 0…1 from its least to its largest value; all 0 where nothing
        speaks for the class.

    Raises:
        ValueError: a network that makes no maps, where `stage` is not given.

    Example:
        >>> import timm
        >>> network = timm.create_model("test_convnext", num_classes=4).eval()
        >>> gradcam(network, torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 64, 64])
    """
    name = deepest_stage(network, images.shape[-2:]) if stage is None else stage
    maps: list[Tensor] = []
    hook = network.get_submodule(name).register_forward_hook(lambda _, __, f: maps.append(f))
    try:
        with torch.enable_grad():
            # of an input that asks for it the gradient is there in a frozen network too
            logits = network(images.detach().requires_grad_())
            labels = logits.argmax(1) if classes is None else classes.to(logits.device)
            (slopes,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), maps)
    finally:
        hook.remove()
    heat = (slopes.mean((2, 3), keepdim=True) * maps[0].detach()).sum(1, keepdim=True).relu()
    heat = F.interpolate(heat.float(), images.shape[-2:], mode="bilinear")[:, 0].cpu()
    low, high = heat.amin((1, 2), keepdim=True), heat.amax((1, 2), keepdim=True)
    return (heat - low) / (high - low).clamp_min(torch.finfo(heat.dtype).tiny)


def deepest_stage(network: nn.Module, size: Sequence[int]) -> str:
    """Name the deepest stage whose map has POSITIONS a side, or the finest if none has.

    Args:
        network: a timm model, or any network of images.
        size: (height, width) of the image.

    Raises:
        ValueError: a network that makes no maps.

    Example:
        >>> import timm
        >>> network = timm.create_model("test_convnext")
        >>> deepest_stage(network, (224, 224)), deepest_stage(network, (64, 64))
        ('stages.3', 'stages.1')
    """
    info: Any = getattr(network, "feature_info", None)
    if info:
        stages = [(info[i]["module"], info[i]["reduction"]) for i in range(len(info))]
    else:
        stages = [(m.module, m.stride) for m in maps_of(network, (size[0], size[1]))]
    fine = [name for name, stride in stages if min(size) // stride >= POSITIONS]
    name: str = fine[-1] if fine else stages[0][0]
    return name
