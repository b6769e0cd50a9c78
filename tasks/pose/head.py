"""A small head for bottom-up pose: a feature pyramid, heatmaps and tags, then finer heatmaps.

The finest map of a top-down pyramid (Lin et al. 2017) gives heatmaps and tags; transposed
convolutions over it and its own first maps give heatmaps of half the stride each, as in
HigherHRNet (Cheng et al. 2020, arXiv 1908.10357).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.feature_maps import FeatureMap


def _block(inner: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(inner, nn.BatchNorm2d(width), nn.ReLU())


class PoseHead(nn.Module):
    """Feature maps to heatmaps at one or more strides, and tags at the first.

    Args:
        maps: what the backbone gives, finest first.
        keypoints: K.
        width: channels of pyramid and head.
        upsamplings: transposed convolutions, each of which halves the stride.

    Attributes:
        strides: of the heatmaps, coarsest first; tags have the first.
    """

    def __init__(
        self, maps: Sequence[FeatureMap], keypoints: int, width: int, upsamplings: int
    ) -> None:
        super().__init__()
        self.indices = [m.index for m in maps]
        self.strides = [maps[0].stride // 2**i for i in range(upsamplings + 1)]
        self.keypoints = keypoints
        self.lateral = nn.ModuleList(nn.Conv2d(m.channels, width, 1) for m in maps)
        self.smooth = _block(nn.Conv2d(width, width, 3, padding=1, bias=False), width)
        self.first = nn.Conv2d(width, 2 * keypoints, 1)
        entering = [width + 2 * keypoints, *[width] * (upsamplings - 1)][:upsamplings]
        self.up = nn.ModuleList(
            nn.Sequential(
                _block(nn.ConvTranspose2d(c, width, 4, 2, 1, bias=False), width),
                _block(nn.Conv2d(width, width, 3, padding=1, bias=False), width),
            )
            for c in entering
        )
        self.finer = nn.ModuleList(nn.Conv2d(width, keypoints, 1) for _ in range(upsamplings))
        for last in (self.first, *self.finer):
            # Near to what most pixels want, as heatmaps are 0 but for a few.
            nn.init.normal_(last.weight, std=0.001)
            nn.init.zeros_(last.bias)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return the heatmaps [(N, K, h, w), (N, K, 2h, 2w), …], and the tags (N, K, h, w)."""
        chosen = [features[i] for i in self.indices]
        x = self.lateral[-1](chosen[-1])
        for lateral, feature in zip(self.lateral[-2::-1], chosen[-2::-1], strict=True):
            finer = lateral(feature)
            x = finer + F.interpolate(x, finer.shape[-2:], mode="nearest")
        x = self.smooth(x)
        both = self.first(x)
        heat, tags = both.split(self.keypoints, dim=1)
        maps = [heat]
        for index, (up, last) in enumerate(zip(self.up, self.finer, strict=True)):
            x = up(torch.cat([x, both], dim=1) if index == 0 else x)
            maps.append(last(x))
        return maps, tags
