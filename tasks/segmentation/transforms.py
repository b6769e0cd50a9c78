"""Training and evaluation transforms that move an image and its mask together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from bench.errors import UserError
from tasks.segmentation.masks import IGNORED


class RandomScale(v2.Transform):
    """Resize so that the short side becomes `short_side` × u, u uniform in `scale`.

    Args:
        short_side: Short side in pixels at scale 1.
        scale: Smallest and largest factor.

    Example:
        >>> image, mask = tv_tensors.Image(torch.zeros(3, 20, 30)), tv_tensors.Mask(
        ...     torch.zeros(20, 30)
        ... )
        >>> image, mask = RandomScale(10, (2.0, 2.0))(image, mask)
        >>> image.shape, mask.shape
        (torch.Size([3, 20, 30]), torch.Size([20, 30]))
    """

    def __init__(self, short_side: int, scale: tuple[float, float]) -> None:
        super().__init__()
        if not 0 < scale[0] <= scale[1]:
            raise UserError(f"`scale` (={scale}) must be 0 < smallest ≤ largest.")
        self.short_side = short_side
        self.scale = scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the size."""
        factor = torch.empty(()).uniform_(*self.scale).item()
        size = v2.query_size(flat_inputs)
        return {"size": short_side_size(size, self.short_side * factor)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize one image (bilinear, antialiased) or mask (nearest)."""
        return self._call_kernel(F.resize, inpt, size=list(params["size"]), antialias=True)


class RandomCropByClass(v2.Transform):
    """Crop at random, but not where one class fills almost all of the crop.

    A place is drawn up to ten times until no class covers more than `largest_share` of the
    labelled pixels and there is more than one class (the rule of mmsegmentation's cat_max_ratio).
    Images smaller than the crop are padded at the right and below, by repeating the border; their
    masks with the ignored label. (A constant colour can be a constant map behind a convolution,
    at which layer norms multiply gradients by 1/√ε.)

    Args:
        size: (height, width) of the crop in pixels.
        largest_share: 1 takes the first place drawn.
    """

    tries = 10

    def __init__(self, size: tuple[int, int], largest_share: float = 0.75) -> None:
        super().__init__()
        if not 0 < largest_share <= 1:
            raise UserError(f"`largest_share` (={largest_share}) must be in (0, 1].")
        self.size = size
        self.largest_share = largest_share

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the place."""
        height, width = v2.query_size(flat_inputs)
        mask = next((x for x in flat_inputs if isinstance(x, tv_tensors.Mask)), None)
        params: dict[str, Any] = {
            "padding": [0, 0, max(self.size[1] - width, 0), max(self.size[0] - height, 0)],
        }
        rows, columns = max(height - self.size[0], 0) + 1, max(width - self.size[1], 0) + 1
        for _ in range(self.tries):
            top = int(torch.randint(rows, ()))
            left = int(torch.randint(columns, ()))
            params |= {"top": top, "left": left}
            if self.largest_share == 1 or mask is None or rows * columns == 1:
                break
            if self._is_varied(mask[..., top : top + self.size[0], left : left + self.size[1]]):
                break
        return params

    def _is_varied(self, crop: Tensor) -> bool:
        counts = torch.bincount(crop.flatten(), minlength=IGNORED + 1)[:IGNORED]
        share = counts.max() / counts.sum().clamp(min=1)
        return bool((counts > 0).sum() > 1 and share < self.largest_share)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Pad where needed and crop one image or mask."""
        if any(params["padding"]):
            is_mask = isinstance(inpt, tv_tensors.Mask)
            how = {"fill": IGNORED} if is_mask else {"padding_mode": "edge"}
            inpt = self._call_kernel(F.pad, inpt, padding=params["padding"], **how)
        height, width = self.size
        return self._call_kernel(
            F.crop, inpt, top=params["top"], left=params["left"], height=height, width=width
        )


class ResizeImage(v2.Transform):
    """Resize the image only: a mask stays at the size at which predictions are scored.

    Args:
        size: The short side in pixels, the aspect ratio kept; or (height, width).
        longest: No long side above this, or the short side gets shorter.
    """

    def __init__(self, size: int | tuple[int, int], longest: int | None = None) -> None:
        super().__init__()
        self.size = size
        self.longest = longest

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Find the size."""
        if not isinstance(self.size, int):
            return {"size": self.size}
        return {"size": short_side_size(v2.query_size(flat_inputs), self.size, self.longest)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize an image; hand back anything else."""
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        return self._call_kernel(F.resize, inpt, size=list(params["size"]), antialias=True)


def short_side_size(
    size: Sequence[int], short_side: float, longest: float | None = None
) -> tuple[int, int]:
    """Return the (height, width) that has this short side and the same aspect ratio.

    Example:
        >>> short_side_size((480, 640), 120)
        (120, 160)
        >>> short_side_size((100, 1000), 100, longest=500)
        (50, 500)
    """
    factor = short_side / min(size)
    if longest is not None:
        factor = min(factor, longest / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def training_transform(
    crop: tuple[int, int],
    *,
    scale: tuple[float, float] = (0.5, 2.0),
    largest_share: float = 0.75,
    flip: float = 0.5,
    photometric: bool = True,
) -> v2.Compose:
    """Return random scale, crop, flip and colour, then floats in 0…1 and labels as int64.

    Args:
        crop: (height, width) in pixels; at scale 1 the image's short side is the crop's.
        scale: Range of the scale, uniform.
        largest_share: See `RandomCropByClass`.
        flip: Chance of a left-right flip.
        photometric: Brightness ±12.5 %, contrast and saturation ±50 %, hue ±18°, each with
            chance 0.5.
    """
    steps: list[Any] = [RandomScale(min(crop), scale), RandomCropByClass(crop, largest_share)]
    if flip:
        steps.append(v2.RandomHorizontalFlip(flip))
    if photometric:
        jitters: tuple[dict[str, float], ...] = (
            {"brightness": 0.125}, {"contrast": 0.5}, {"saturation": 0.5}, {"hue": 0.05},
        )  # fmt: skip
        steps += [v2.RandomApply([v2.ColorJitter(**jitter)]) for jitter in jitters]
    return v2.Compose([*steps, _to_floats()])


def evaluation_transform(
    size: int | tuple[int, int] | None, longest: int | None = None
) -> v2.Compose:
    """Return the resize of the image alone, then floats in 0…1 and labels as int64.

    Args:
        size: Short side, (height, width), or None to leave images as they are.
        longest: Limit of the long side in pixels.
    """
    resize = [] if size is None else [ResizeImage(size, longest)]
    return v2.Compose([*resize, _to_floats()])


def _to_floats() -> v2.Transform:
    dtypes = {tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64, "others": None}
    return v2.ToDtype(dtypes, scale=True)
