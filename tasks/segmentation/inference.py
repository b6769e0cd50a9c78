"""Ways to run a segmentation network over an image: sliding windows, several scales, flips.

Pure functions over a network given as a callable from images (N, 3, H, W) to logits (N, C, H, W)
of the same height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import UserError

Network = Callable[[Tensor], Tensor]


def windows(length: int, window: int, stride: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of the windows along one axis; the last is moved back inside.

    Example:
        >>> list(windows(10, 4, 3))
        [(0, 4), (3, 7), (6, 10)]
        >>> list(windows(9, 4, 3))
        [(0, 4), (3, 7), (5, 9)]
        >>> list(windows(3, 4, 3))
        [(0, 3)]
    """
    steps = -(-max(length - window, 0) // stride) + 1
    for step in range(steps):
        stop = min(step * stride + window, length)
        yield max(stop - window, 0), stop


def slide(
    network: Network, images: Tensor, window: tuple[int, int], stride: tuple[int, int]
) -> Tensor:
    """Run a network window by window and average the logits where windows overlap.

    Args:
        network: From crops to logits of the crops' size.
        images: (N, 3, H, W); where they are smaller than the window, one smaller window is used.
        window: (height, width) in pixels.
        stride: Step between windows, no longer than the window, so that every pixel is covered.

    Returns:
        Logits (N, C, H, W).
    """
    total: Tensor | None = None
    height, width = images.shape[-2:]
    visits = images.new_zeros(1, 1, height, width)
    for top, bottom in windows(height, window[0], stride[0]):
        for left, right in windows(width, window[1], stride[1]):
            logits = network(images[..., top:bottom, left:right])
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], height, width)
            total[..., top:bottom, left:right] += logits
            visits[..., top:bottom, left:right] += 1
    assert total is not None
    return total / visits


def augmented(
    network: Network,
    images: Tensor,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    size: Sequence[int] | None = None,
) -> Tensor:
    """Average the probabilities over several scales of the image and its mirror image.

    Args:
        network: From images of any size to logits of the same size.
        images: (N, 3, H, W).
        scales: Factors of the size, e.g. (0.5, 0.75, 1.0, 1.25, 1.5, 1.75).
        flip: Whether to add the left-right mirror image at every scale.
        size: (height, width) of the result; None for the images'.

    Returns:
        Probabilities (N, C, H, W); with C = 1 those of the one class.
    """
    size = images.shape[-2:] if size is None else size
    total: Tensor | None = None
    for scale in scales:
        scaled = images
        if scale != 1:
            target = [max(1, round(side * scale)) for side in images.shape[-2:]]
            scaled = F.interpolate(images, target, mode="bilinear", antialias=scale < 1)
        for mirrored in (False, True) if flip else (False,):
            logits = network(scaled.flip(-1) if mirrored else scaled)
            logits = resize(logits.flip(-1) if mirrored else logits, size)
            probabilities = logits.softmax(1) if logits.shape[1] > 1 else logits.sigmoid()
            total = probabilities if total is None else total + probabilities
    assert total is not None
    return total / (len(scales) * (2 if flip else 1))


def resize(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Resize logits (N, C, H, W) to `size` bilinearly; the same size is handed back as it is."""
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Inference:
    """How labels are made of an image; called with a network, images and the size of the labels.

    Attributes:
        window: (height, width) of sliding windows in pixels; None runs the whole image at once.
        stride: Step between windows; None for two thirds of the window.
        scales: Factors of the image's size, over which probabilities are averaged.
        flip: Whether mirror images are averaged too.
        threshold: Probability from which a pixel is class 1 where the network has one channel.

    Raises:
        ValueError: If a value breaks a rule.
    """

    window: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if self.stride is not None and self.window is None:
            raise UserError(f"`window_stride` (={self.stride}) needs a `window`.")
        if self.window is not None:
            if min(self.window) < 1:
                raise UserError(f"`window` (={self.window}) must be (height, width) ≥ 1.")
            for step, side in zip(self.steps(), self.window, strict=True):
                if not 1 <= step <= side:
                    raise UserError(
                        f"`window_stride` (={self.stride}) must be at least 1 and at most the "
                        f"`window` (={self.window}), or pixels are left out."
                    )
        if not self.scales or min(self.scales) <= 0:
            raise UserError(f"`scales` (={self.scales}) must be one or more factors > 0.")

    def steps(self) -> tuple[int, int]:
        """Return the step between windows, (vertical, horizontal)."""
        if self.stride is not None:
            return self.stride
        assert self.window is not None
        return max(1, self.window[0] * 2 // 3), max(1, self.window[1] * 2 // 3)

    def __call__(self, network: Network, images: Tensor, size: Sequence[int]) -> Tensor:
        """Return labels (N, *size), int64."""

        def one_view(view: Tensor) -> Tensor:
            if self.window is None:
                return network(view)
            return slide(network, view, self.window, self.steps())

        if self.scales == (1.0,) and not self.flip:
            scores = resize(one_view(images), size)
            if scores.shape[1] == 1:
                scores = scores.sigmoid()
        else:
            scores = augmented(one_view, images, self.scales, self.flip, size)
        if scores.shape[1] == 1:
            return (scores[:, 0] > self.threshold).to(torch.int64)
        return scores.argmax(1)


def shipped_inference(config: Mapping[str, Any]) -> Inference:
    """Return how an mmsegmentation config wants to be run: whole or in windows, its threshold.

    Example:
        >>> slide = {"mode": "slide", "crop_size": (64, 64), "stride": (32, 32)}
        >>> shipped_inference({"decode_head": {}, "test_cfg": slide}).window
        (64, 64)
    """
    last = config["decode_head"]
    last = last[-1] if isinstance(last, (list, tuple)) else last
    threshold = last.get("threshold")
    threshold = 0.3 if threshold is None else threshold  # mmsegmentation's own default
    test = config.get("test_cfg") or {}
    if test.get("mode") != "slide":
        return Inference(threshold=threshold)
    (top, left), (down, right) = test["crop_size"], test["stride"]
    return Inference((top, left), (down, right), threshold=threshold)
