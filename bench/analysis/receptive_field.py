"""The effective receptive field: which pixels the centre of a network's last map listens to.

Paper: Luo et al., Understanding the Effective Receptive Field in Deep Convolutional Neural
Networks, NeurIPS 2016, arXiv 1701.04128. The area is read as in RepLKNet (CVPR 2022,
arXiv 2203.06717): the centred rectangle that holds a share of the field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from bench.backbones.wrapped import maps_of
from bench.errors import UserError
from bench.record import FieldArea

SHARES = (0.2, 0.5, 0.95)


def receptive_field(features: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> Tensor:
    """Measure the effective receptive field of the central feature.

    With f (C, h, w) the last map of one image x (C', H, W):

        field[y, x] = mean over images of Σ_c' | ∂/∂x[c', y, x] Σ_c relu(f[c, centre]) |

    The relu (RepLKNet's choice) keeps the sum over channels from being constant behind a layer
    norm, where plain sums have no gradient at all; behind a relu it changes nothing. A map with an
    even side has no central feature: the two in the middle are taken together, so that the field
    is always centred on the image.

    Args:
        features: images (N, C', H, W) → the last map (N, C, h, w); in evaluation mode, so that
            images do not mix.
        batches: images as `features` takes them, all of one height and width.

    Returns:
        (H, W) float64, each value ≥ 0.

    Raises:
        ValueError: no image, images of several sizes, or features that are no maps.

    Example:
        >>> conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        >>> field = receptive_field(conv, [torch.rand(2, 3, 9, 9)])
        >>> [int(n) for n in (field > 0).sum(0)]
        [0, 0, 0, 3, 3, 3, 0, 0, 0]
    """
    total: Tensor | None = None
    count = 0
    for images in batches:
        x = images.detach().requires_grad_(True)
        with torch.enable_grad():
            maps = features(x)
            if maps.ndim != 4:
                raise UserError(f"`features` must give maps (N, C, h, w), not {tuple(maps.shape)}.")
            (gradient,) = torch.autograd.grad(_centre(maps).relu().sum(), x)
        # One image's gradient is its own: the sum over the batch mixes nothing.
        field = gradient.detach().abs().double().sum(dim=(0, 1)).cpu()
        if total is not None and total.shape != field.shape:
            raise UserError(
                f"`batches` must be of one size, not {tuple(total.shape)} and {tuple(field.shape)}."
            )
        total = field if total is None else total + field
        count += len(images)
    if total is None:
        raise UserError("`batches` must hold at least one image.")
    return total / count


def _centre(maps: Tensor) -> Tensor:
    """Cut the central position of each axis, or the two in the middle of an even one."""
    for axis in (2, 3):
        side = maps.shape[axis]
        maps = maps.narrow(axis, (side - 1) // 2, 2 - side % 2)
    return maps


def areas(field: Tensor, shares: Sequence[float] = SHARES) -> list[FieldArea]:
    """Find the smallest centred rectangles that hold the given shares of a field.

    The rectangles have the image's aspect ratio (on a square image they are squares) and hold
    whole pixels.

    Args:
        field: (H, W), values ≥ 0.
        shares: of the field's sum, each in (0, 1].

    Raises:
        ValueError: a share out of its range, or a field without any contribution.

    Example:
        >>> field = torch.zeros(5, 5)
        >>> field[2, 2], field[1, 2] = 3, 1
        >>> [(area.height_px, round(area.area, 2)) for area in areas(field, (0.75, 1.0))]
        [(1.0, 0.04), (3.0, 0.36)]
    """
    height, width = field.shape
    total = field.double().sum()
    if not (torch.isfinite(total) and total > 0):
        raise UserError(f"`field` (of sum {float(total)}) must have a finite sum > 0.")
    scale = torch.maximum(_edges(height)[:, None], _edges(width)[None, :]).flatten()
    order = scale.argsort(stable=True)
    held = field.double().flatten()[order].cumsum(0) / total
    found = []
    for share in shares:
        if not 0 < share <= 1:
            raise UserError(f"`shares` (={tuple(shares)}) must each be in (0, 1].")
        # Sums of doubles can miss their total by some 1e-12.
        first = int((held < share - 1e-9).sum())
        side = float(scale[order[first]])
        found.append(
            FieldArea(
                share=float(share),
                area=side * side,
                height_px=side * height,
                width_px=side * width,
            )
        )
    return found


def _edges(length: int) -> Tensor:
    """Return how far each pixel's outer edge is from the middle, as a share of half the length."""
    centre = (length - 1) / 2
    return ((torch.arange(length, dtype=torch.float64) - centre).abs() + 0.5) / (length / 2)


def last_map(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return images → the last map (N, C, h, w) of a network.

    That is the map of a timm model in front of its head, or the last of those that a network gives;
    of a network that gives classes alone, its coarsest (`bench.backbones.wrapped.maps_of`).

    Raises:
        ValueError: when called, if the network makes none.

    Example:
        >>> import timm
        >>> last_map(timm.create_model("test_convnext"))(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 64, 2, 2])
    """
    whole = getattr(network, "forward_features", None)
    within: list[str] = []

    def features(images: Tensor) -> Tensor:
        if within:
            return output_of(network, within[0], images)
        made = whole(images) if callable(whole) else network(images)
        last: object = made[-1] if isinstance(made, list | tuple) else made
        if isinstance(last, Tensor) and last.ndim == 4:
            return last
        if images.ndim != 4 or callable(whole):
            raise UserError(
                f"`network` (a {type(network).__name__}) must give maps (N, C, h, w): "
                "a timm model, or one made with features_only=True."
            )
        height, width = images.shape[-2:]
        within.append(maps_of(network, (height, width))[-1].module)
        return features(images)

    return features


def output_of(network: nn.Module, module: str, images: Tensor) -> Tensor:
    """Return what a module of a network makes of images, with its gradient."""
    outputs: list[Tensor] = []
    hook = network.get_submodule(module).register_forward_hook(lambda _, __, y: outputs.append(y))
    try:
        network(images)
    finally:
        hook.remove()
    return outputs[-1]
