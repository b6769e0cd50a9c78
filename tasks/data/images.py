"""How an image file becomes RGB pixels, for all tasks: upright, eight bits, nothing see-through."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageCms

from bench.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

ORIENTATION = 0x0112
"""EXIF's tag of how a camera was held; 1 is upright, from 5 on width and height change places."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LARGEST = (2**16 - 1, 2**16 - 1)
"""Height and width of the largest image that is read, in pixels."""
DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
DEEP = "grey image of more than 8 bits, stretched from its least to its greatest value"
TRANSPARENT = "image with transparent parts, laid on white"
PRINT = "image in colours of print (CMYK or LAB), converted"
FRAMES = "image of several frames, of which the first is taken"


def orientation(image: Image.Image) -> int:
    """Return how the camera was held, a key of `TURNS`, or 1 for upright; damaged EXIF is none."""
    try:
        held = image.getexif().get(ORIENTATION, 1)
    except Exception:
        return 1
    return held if held in TURNS else 1


def upright_size(size: tuple[int, int], held: int) -> tuple[int, int]:
    """Return (height, width) of an image once it is turned.

    Example:
        >>> upright_size((3, 4), 1), upright_size((3, 4), 6)
        ((3, 4), (4, 3))
    """
    return size[::-1] if held >= 5 else size


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) out of the head of an image file, as it stands upright.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            return upright_size((height, width), orientation(image))
    except Exception as error:
        raise DataError(f"{path.name} in {path.parent} cannot be read: {error}") from None


def size_or_largest(path: Path) -> tuple[int, int]:
    """Return (height, width) as `image_size` does; of an image that cannot be read, the largest.

    No place lies outside of it, so that a set whose boxes need sizes can be read as far as to where
    all of its files are checked, and damaged ones are counted and left out, or refused.
    """
    try:
        return image_size(path)
    except DataError:
        return LARGEST


def oddities(image: Image.Image) -> tuple[str, ...]:
    """Return what is done to an image beyond reading it; its orientation is told apart."""
    odd = []
    if image.mode in DEEP_MODES:
        odd.append(DEEP)
    if image.mode in ("CMYK", "LAB"):
        odd.append(PRINT)
    if image.format in ("GIF", "PNG", "TIFF", "WEBP") and getattr(image, "n_frames", 1) > 1:
        odd.append(FRAMES)
    if image.has_transparency_data and np.asarray(_alpha(image)).min(initial=255) < 255:
        odd.append(TRANSPARENT)
    return tuple(odd)


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an image as RGB.

    `convert("RGB")` alone cuts what is above 255, which makes 16-bit images white and floats of
    0…1 black, and shows the colours that lie hidden under transparent parts.
    """
    if image.mode in DEEP_MODES:
        return _stretched(image).convert("RGB")
    if image.mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")
        assert converted is not None
        return converted
    if image.has_transparency_data:
        seen = _with_alpha(image)
        white = Image.new("RGBA", seen.size, "white")
        return Image.alpha_composite(white, seen).convert("RGB")
    return image.convert("RGB")


def _with_alpha(image: Image.Image) -> Image.Image:
    # Pillow has no way from grey with premultiplied alpha to RGBA but this.
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


def _alpha(image: Image.Image) -> Image.Image:
    return _with_alpha(image).getchannel("A")


def _stretched(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return Image.new("L", image.size)
    low, high = values[finite].min(), values[finite].max()
    values = np.where(finite, values, low)
    grey = (values - low) * (255 / (high - low) if high > low else 0)
    return Image.fromarray(grey.round().astype(np.uint8))


def read_image(path: Path, short_side: int | None = None, *, upright: bool = True) -> Tensor:
    """Read an image as RGB, uint8 (3, H, W), shrunk to `short_side` pixels where it is larger.

    Args:
        path: of the file.
        short_side: in pixels; None for the size of the file.
        upright: whether it is turned as its EXIF says; not where its labels lie as it is stored.
    """
    import torch  # the sizes of images are looked up without

    with Image.open(path) as image:
        held = orientation(image) if upright else 1
        if short_side is not None:
            image.draft("RGB", (short_side, short_side))
        rgb = as_rgb(image)
    if held in TURNS:
        rgb = rgb.transpose(TURNS[held])
    if short_side is not None and min(rgb.size) > short_side:
        scale = short_side / min(rgb.size)
        width, height = (max(short_side, round(scale * side)) for side in rgb.size)
        rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)
