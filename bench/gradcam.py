"""Grad-CAM: where a classifier looks for a class; the library grad-cam, imported here alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.erf import last_map


class _AtLastMap(nn.Module):
    """A timm classifier with a place at its last map where Grad-CAM can listen."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.features = last_map(network)
        self.maps = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        network: Any = self.network
        logits: Tensor = network.forward_head(self.maps(self.features(images)))
        return logits


def gradcam(network: nn.Module, images: Tensor, classes: Tensor | None = None) -> Tensor:
    """Explain a classifier's decisions by its last map.

    Paper: Selvaraju et al., Grad-CAM, ICCV 2017, arXiv 1610.02391: relu(Σ_c α_c f[c]), where α_c
    is the mean of the class's gradient over channel c of the last map; resized to the image.

    Args:
        network: a timm classifier, in evaluation mode; it is left as it was.
        images: (N, C', H, W) as the network takes them.
        classes: (N) labels to explain; None for the predicted ones.

    Returns:
        (N, H, W) in 0…1, each image scaled by its own largest value.

    Raises:
        ValueError: a network without timm's `forward_features` and `forward_head`.

    Example:
        >>> import timm
        >>> network = timm.create_model("test_convnext", num_classes=4).eval()
        >>> gradcam(network, torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 64, 64])
    """
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    for method in ("forward_features", "forward_head"):
        if not callable(getattr(network, method, None)):
            raise ValueError(
                f"`network` (a {type(network).__name__}) must have timm's `{method}` for Grad-CAM."
            )
    split = _AtLastMap(network)
    targets = None
    if classes is not None:
        targets = [ClassifierOutputTarget(int(label)) for label in classes]
    gradients = [parameter.grad for parameter in network.parameters()]
    mode = network.training
    with GradCAM(model=split, target_layers=[split.maps]) as method_:
        shown = torch.from_numpy(method_(input_tensor=images.detach(), targets=targets))
    network.train(mode)
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        parameter.grad = gradient
    return shown
