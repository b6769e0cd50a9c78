"""Transforms that move an image, its key points and what is not learnt together.

A sample is a dict: `image` (tv_tensors.Image, uint8), `points` (tv_tensors.KeyPoints, (n, K, 2)),
`visible` (n, K) as COCO has it, and `ignored` (tv_tensors.Mask, (1, H, W)). A pixel's middle has
whole coordinates. Draws come from torch's global generator, which the data set seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from tasks.detection.transforms import Sample, fitted_size, random_region, size_of

MOVED = ("image", "points", "ignored")


def each(sample: Sample, move: Callable[[Any], Any]) -> Sample:
    """Apply one movement of pixels to everything that has a place."""
    return {key: move(value) if key in MOVED else value for key, value in sample.items()}


def scaled(sample: Sample, move: Callable[[Any], Any]) -> Sample:
    """Apply a movement that measures from the corner of the image, not from a pixel's middle."""
    moved = each(sample | {"points": _shifted(sample["points"], 0.5)}, move)
    return moved | {"points": _shifted(moved["points"], -0.5)}


def _shifted(points: tv_tensors.KeyPoints, by: float) -> tv_tensors.KeyPoints:
    return tv_tensors.wrap(points.as_subclass(Tensor) + by, like=points)


def fit(sample: Sample, frame: tuple[int, int], factor: float = 1.0) -> Sample:
    """Resize to `fitted_size`."""
    target = fitted_size(size_of(sample), frame, factor)
    if target == size_of(sample):
        return sample
    return scaled(sample, lambda x: F.resize(x, list(target), antialias=True))


def flipped(sample: Sample, mirror: Sequence[int]) -> Sample:
    """Mirror left and right, in which a left key point becomes a right one.

    Args:
        sample: to be mirrored.
        mirror: see `tasks.pose.names.mirrored`.
    """
    moved = each(sample, F.horizontal_flip)
    order = list(mirror)
    points = moved["points"].as_subclass(Tensor)[:, order]
    return moved | {
        "points": tv_tensors.wrap(points, like=moved["points"]),
        "visible": moved["visible"][:, order],
    }


def random_crop(sample: Sample, frame: tuple[int, int]) -> Sample:
    """Cut a region no larger than the frame, anywhere."""
    region = random_region(size_of(sample), frame)
    whole = region[2:] == size_of(sample)
    return sample if whole else each(sample, lambda x: F.crop(x, *region))


def inside(sample: Sample) -> Sample:
    """Take the key points that have left the image for not labelled."""
    height, width = size_of(sample)
    points = sample["points"].as_subclass(Tensor)
    high = torch.tensor([width - 0.5, height - 0.5])
    seen = ((points >= -0.5) & (points < high)).all(dim=-1)
    return sample | {"visible": sample["visible"] * seen}


class Augmentation:
    """Random turn, scale, crop, mirror image and colours.

    Args:
        mirror: see `tasks.pose.names.mirrored`.
        scale: range of the factor by which the image is larger than what fits the frame.
        rotate: largest turn to either side, in degrees.
        flip: chance of a mirror image.
        photometric: whether brightness, contrast, saturation and hue are changed.
    """

    def __init__(
        self,
        mirror: Sequence[int],
        scale: tuple[float, float],
        rotate: float,
        flip: float,
        photometric: bool,
    ) -> None:
        self.mirror = mirror
        self.scale = scale
        self.rotate = rotate
        self.flip = flip
        self.jitter = (
            v2.ColorJitter(brightness=0.125, contrast=0.5, saturation=0.5, hue=0.05)
            if photometric
            else None
        )

    def __call__(self, sample: Sample, frame: tuple[int, int]) -> Sample:
        """Return the changed sample, no larger than the frame."""
        low, high = torch.tensor(self.scale).log()
        factor = float(torch.exp(low + (high - low) * torch.rand(())))
        sample = fit(sample, frame, factor)
        if self.rotate:
            angle = self.rotate * float(2 * torch.rand(()) - 1)
            sample = scaled(sample, lambda x: _turned(x, angle))
        sample = random_crop(sample, frame)
        if float(torch.rand(())) < self.flip:
            sample = flipped(sample, self.mirror)
        if self.jitter is not None:
            sample = sample | {"image": self.jitter(sample["image"])}
        return inside(sample)


def _turned(value: Any, angle: float) -> Any:
    bilinear = F.InterpolationMode.BILINEAR
    nearest = F.InterpolationMode.NEAREST
    mode = bilinear if isinstance(value, tv_tensors.Image) else nearest
    return F.rotate(value, angle, interpolation=mode)
