"""Grad-CAM: where a classifier looks for a class; the library grad-cam, imported here alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import UserError

POSITIONS = 7
"""A heat map with fewer positions a side says nothing of where."""


def gradcam(
    network: nn.Module, images: Tensor, classes: Tensor | None = None, stage: str | None = None
) -> Tensor:
    """Explain a classifier's decisions by a map.

    Paper: Selvaraju et al., Grad-CAM, ICCV 2017, arXiv 1610.02391: relu(Σ_c α_c f[c]), where α_c
    is the mean of the class's gradient over channel c of the map f; resized to the image.

    Args:
        network: a timm classifier, in evaluation mode; it is left as it was.
        images: (N, C', H, W) as the network takes them.
        classes: (N) labels to explain; None for the predicted ones.
        stage: name of the module whose output is f; None for `deepest_stage`.

    Returns:
        (N, H, W), each image scaled to 0…1 from its least to its largest value; all 0 where nothing
        speaks for the class.

    Raises:
        ValueError: a network without timm's `feature_info`, where `stage` is not given.

    Example:
        >>> import timm
        >>> network = timm.create_model("test_convnext", num_classes=4).eval()
        >>> gradcam(network, torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 64, 64])
    """
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    name = deepest_stage(network, images.shape[-2:]) if stage is None else stage
    targets = None
    if classes is not None:
        targets = [ClassifierOutputTarget(int(label)) for label in classes]
    gradients = [parameter.grad for parameter in network.parameters()]
    try:
        with GradCAM(model=network, target_layers=[network.get_submodule(name)]) as explain:
            heat = torch.from_numpy(explain(input_tensor=images.detach(), targets=targets))
    finally:
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter.grad = gradient
    return heat


def deepest_stage(network: nn.Module, size: Sequence[int]) -> str:
    """Name the deepest stage whose map has POSITIONS a side, or the finest if none has.

    Args:
        network: a timm model.
        size: (height, width) of the image.

    Raises:
        ValueError: a network without timm's `feature_info`.

    Example:
        >>> import timm
        >>> network = timm.create_model("test_convnext")
        >>> deepest_stage(network, (224, 224)), deepest_stage(network, (64, 64))
        ('stages.3', 'stages.1')
    """
    info: Any = getattr(network, "feature_info", None)
    if not info:
        raise UserError(
            f"`network` (a {type(network).__name__}) must have timm's `feature_info` for Grad-CAM."
        )
    stages = [info[i] for i in range(len(info))]
    fine = [s for s in stages if min(size) // s["reduction"] >= POSITIONS] or stages[:1]
    name: str = fine[-1]["module"]
    return name
