"""How images of classification are changed in training, and cut when they are scored."""

from __future__ import annotations

import random
from typing import Any, Literal

import numpy as np
import torch
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from bench.errors import UserError, require

Interpolation = Literal["bilinear", "bicubic"]
TRANSLATED = 0.45
"""Largest share of the side by which timm's RandAugment moves an image, as timm has it."""


class TimmAugment(nn.Module):
    """timm's RandAugment (arXiv 1909.13719), by its own words, as papers' recipes give it.

    timm draws from Python's and NumPy's generators; they are seeded from torch's here, and left as
    they were.

    Args:
        words: e.g. "rand-m9-mstd0.5-inc1": magnitude 9 of 10, with a spread of 0.5, every change
            stronger with it.
        size: side of the images, in pixels.

    Raises:
        UserError: words that timm does not know.

    Example:
        >>> augment = TimmAugment("rand-m9-mstd0.5-inc1", 32)
        >>> _ = torch.manual_seed(0)
        >>> augment(torch.zeros(3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([3, 32, 32])
    """

    def __init__(self, words: str, size: int) -> None:
        super().__init__()
        grey = (124, 116, 104)  # ImageNet's mean, of which what an image leaves bare is
        known = {"translate_const": int(size * TRANSLATED), "img_mean": grey}
        try:
            self.augment = rand_augment_transform(words, known)
        except Exception as error:  # an assertion, or whatever parsing raises
            raise UserError(
                f"`auto_augment` (={words!r}) must be timm's words for RandAugment, such as "
                "'rand-m9-mstd0.5-inc1'."
            ) from error

    def forward(self, image: Tensor) -> Tensor:
        """Change an image, uint8 (3, H, W)."""
        seed = int(torch.randint(2**31, ()))
        before: tuple[Any, Any] = random.getstate(), np.random.get_state()  # noqa: NPY002  timm's
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            changed = self.augment(F.to_pil_image(image))
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
        tensor: Tensor = F.pil_to_tensor(changed)
        return tensor


def augmentation(
    size: int,
    *,
    crop: float = 1.0,
    pad: int = 0,
    flip: bool = False,
    randaugment: int = 0,
    auto_augment: str | None = None,
    erasing: float = 0.0,
    interpolation: Interpolation | None = None,
) -> nn.Module:
    """Return the training transform, uint8 (3, H, W) → (3, size, size).

    Args:
        size: side of the result.
        crop: smallest share of the area that RandomResizedCrop keeps; 1 resizes and takes the
            middle.
        pad: pixels of padding on each side, of which a random crop is taken (CIFAR's recipe).
        flip: flip half of the images left to right.
        randaugment: magnitude of torchvision's RandAugment; 0 is none.
        auto_augment: see `TimmAugment`; None is none.
        erasing: share of the images in which a rectangle is erased.
        interpolation: of the crop; None for "bilinear".

    Raises:
        UserError: two augmentations in place of one, or one that timm does not know.
    """
    one = auto_augment is None or not randaugment
    require("auto_augment", auto_augment, one, "None where `randaugment` is given")
    mode = InterpolationMode(interpolation or "bilinear")
    steps: list[nn.Module] = []
    if crop < 1:
        steps.append(
            v2.RandomResizedCrop(size, scale=(crop, 1.0), interpolation=mode, antialias=True)
        )
    else:
        steps += [v2.Resize(size, interpolation=mode, antialias=True), v2.CenterCrop(size)]
    if pad:
        steps.append(v2.RandomCrop(size, padding=pad))
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    if randaugment:
        steps.append(v2.RandAugment(magnitude=randaugment))
    if auto_augment is not None:
        steps.append(TimmAugment(auto_augment, size))
    if erasing:
        steps.append(v2.RandomErasing(p=erasing))
    transform: nn.Module = v2.Compose(steps)
    return transform


def scoring(size: int, centre: float, interpolation: Interpolation | None = None) -> nn.Module:
    """Return the transform for scoring: the short side to size / centre, then the middle."""
    mode = InterpolationMode(interpolation or "bilinear")
    transform: nn.Module = v2.Compose(
        [
            v2.Resize(round(size / centre), interpolation=mode, antialias=True),
            v2.CenterCrop(size),
        ]
    )
    return transform
