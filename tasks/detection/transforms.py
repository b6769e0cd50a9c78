"""Transforms that move an image, its boxes and its masks together.

A sample is a dict: `image` (tv_tensors.Image, uint8), `boxes` (tv_tensors.BoundingBoxes, XYXY),
`labels`, `iscrowd` and, where wanted, `masks` (tv_tensors.Mask). Draws come from torch's global
generator, which the data set seeds for every sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

Sample = dict[str, Any]
MOVED = ("image", "boxes", "masks")
SMALLEST = 1.0
"""Shorter sides, in pixels, are left out."""


def each(sample: Sample, move: Callable[[Any], Any]) -> Sample:
    """Apply one movement to everything that has a place."""
    return {key: move(value) if key in MOVED else value for key, value in sample.items()}


def size_of(sample: Sample) -> tuple[int, int]:
    """Return (height, width)."""
    height, width = sample["image"].shape[-2:]
    return int(height), int(width)


def fitted_size(
    size: tuple[int, int], frame: tuple[int, int], factor: float = 1.0
) -> tuple[int, int]:
    """Return the size that fits the frame, the aspect ratio kept, times a factor.

    Example:
        >>> fitted_size((480, 640), (320, 320)), fitted_size((480, 640), (320, 320), 0.5)
        ((240, 320), (120, 160))
    """
    scale = factor * min(frame[0] / size[0], frame[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def is_turned(size: Sequence[int], frame: tuple[int, int]) -> bool:
    """Say whether an image stands where the frame lies, or lies where it stands.

    Example:
        >>> is_turned((640, 480), (320, 480)), is_turned((480, 640), (320, 480))
        (True, False)
    """
    return (size[0] > size[1]) != (frame[0] > frame[1])


def letterbox(sample: Sample, frame: tuple[int, int], factor: float = 1.0) -> Sample:
    """Resize to `fitted_size`."""
    target = fitted_size(size_of(sample), frame, factor)
    if target == size_of(sample):
        return sample
    return each(sample, lambda x: F.resize(x, list(target), antialias=True))


def sane(sample: Sample) -> Sample:
    """Cut boxes at the border of the image, and leave out those that have become too small."""
    sample = sample | {"boxes": F.clamp_bounding_boxes(sample["boxes"])}
    boxes = sample["boxes"].as_subclass(Tensor)
    keep = ((boxes[:, 2:] - boxes[:, :2]) >= SMALLEST).all(dim=1)
    if bool(keep.all()):
        return sample
    return {
        key: value if key == "image" else tv_tensors.wrap(value[keep], like=value)
        for key, value in sample.items()
    }


def crop(sample: Sample, top: int, left: int, height: int, width: int) -> Sample:
    """Cut out a region, with its part of the boxes."""
    return sane(each(sample, lambda x: F.crop(x, top, left, height, width)))


def random_region(size: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int, int, int]:
    """Draw (top, left, height, width) of a region no larger than the frame, anywhere."""
    (height, width), h, w = size, min(size[0], frame[0]), min(size[1], frame[1])
    if (h, w) == (height, width):
        return 0, 0, h, w
    return int(torch.randint(height - h + 1, ())), int(torch.randint(width - w + 1, ())), h, w


def random_crop(sample: Sample, frame: tuple[int, int]) -> Sample:
    """Cut a region no larger than the frame, anywhere."""
    region = random_region(size_of(sample), frame)
    return sample if region[2:] == size_of(sample) else crop(sample, *region)


def mosaic(samples: Sequence[Sample], frame: tuple[int, int], factors: Sequence[float]) -> Sample:
    """Put four images around a random point of a canvas of twice the frame (YOLOv4's mosaic).

    Args:
        samples: four of them; each is fitted to the frame times its factor.
        frame: (height, width).
        factors: four.
    """
    height, width = 2 * frame[0], 2 * frame[1]
    y = int(torch.randint(frame[0] // 2, 3 * frame[0] // 2 + 1, ()))
    x = int(torch.randint(frame[1] // 2, 3 * frame[1] // 2 + 1, ()))
    canvas = torch.zeros(3, height, width, dtype=torch.uint8)
    parts: list[Sample] = []
    for index, (sample, factor) in enumerate(zip(samples, factors, strict=True)):
        piece = letterbox(sample, frame, factor)
        h, w = size_of(piece)
        # Its corner at (y, x) is the one that points to the middle of the mosaic.
        top = y - h if index < 2 else y
        left = x - w if index % 2 == 0 else x
        # Padding or cutting each side puts the piece into the coordinates of the canvas.
        piece = crop(piece, -top, -left, height, width)
        rows = slice(max(0, top), max(0, min(height, top + h)))
        columns = slice(max(0, left), max(0, min(width, left + w)))
        canvas[:, rows, columns] = piece["image"].as_subclass(Tensor)[:, rows, columns]
        parts.append(piece)
    joined: Sample = {"image": tv_tensors.Image(canvas)}
    for key in parts[0]:
        if key != "image":
            whole = torch.cat([part[key].as_subclass(Tensor) for part in parts])
            joined[key] = tv_tensors.wrap(whole, like=parts[0][key])
    return joined


class Augmentation:
    """Random scale, crop, mirror image and colours.

    Args:
        scale: range of the factor by which the image is larger than what fits the frame.
        flip: chance of a mirror image.
        photometric: whether brightness, contrast, saturation and hue are changed.
    """

    def __init__(self, scale: tuple[float, float], flip: float, photometric: bool) -> None:
        self.scale = scale
        self.flip = flip
        self.jitter = (
            v2.ColorJitter(brightness=0.125, contrast=0.5, saturation=0.5, hue=0.05)
            if photometric
            else None
        )

    def factor(self) -> float:
        """Draw a factor, log-uniform, so that halves and doubles are as likely."""
        low, high = torch.tensor(self.scale).log()
        return float(torch.exp(low + (high - low) * torch.rand(())))

    def __call__(self, sample: Sample, frame: tuple[int, int]) -> Sample:
        """Return the changed sample, no larger than the frame."""
        sample = random_crop(letterbox(sample, frame, self.factor()), frame)
        if float(torch.rand(())) < self.flip:
            sample = each(sample, F.horizontal_flip)
        if self.jitter is not None:
            sample = sample | {"image": self.jitter(sample["image"])}
        return sane(sample)
