"""Images in 0…1 to what a backbone was made for: mean 0 and deviation 1, per channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.errors import require


class Normalize(nn.Module):
    """(x − mean) / std, per channel of images (N, 3, H, W) or (3, H, W).

    Args:
        mean: of each channel, in 0…1.
        std: of each channel, > 0.

    Raises:
        ValueError: not three numbers, or a deviation that is not positive.

    Example:
        >>> Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.25))(torch.ones(3, 1, 1)).flatten().tolist()
        [1.0, 1.0, 2.0]
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        require("mean", mean, len(mean) == 3, "three numbers, one per channel")
        require("std", std, len(std) == 3 and min(std) > 0, "three numbers > 0, one per channel")
        # Buffers, so that no numbers go to the device with every batch; they are no weights.
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the normalised images."""
        return (images - self.mean) / self.std
