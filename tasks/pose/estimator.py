"""A pose estimator: images in 0…1 to losses or figures, behind any backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import UserError
from tasks.pose.grouping import Grouping
from tasks.pose.head import PoseHead
from tasks.pose.losses import heatmap_loss, heatmaps, tag_losses

Figures = dict[str, Tensor]


class Estimator(nn.Module):
    """A pose head with normalisation, padding, losses and grouping; the backbone is handed in.

    Args:
        head: feature maps → heatmaps and tags.
        normalize: images in 0…1 → what the backbone was made for.
        grouping: how figures are read off the maps.
        stride: of the coarsest feature map: images are padded to multiples.
        sigma: of the wanted Gaussians, in pixels of each heatmap.
        tag_weight: of pull and push, against the heatmaps' error.
        flip: whether predictions average mirror images.

    Attributes:
        mirror: (K), see `tasks.pose.names.mirrored`.
        joins: (K, K), 1 where a line of the skeleton joins two key points.
    """

    mirror: Tensor
    joins: Tensor

    def __init__(
        self,
        head: PoseHead,
        normalize: nn.Module,
        grouping: Grouping,
        *,
        stride: int,
        sigma: float,
        tag_weight: float,
        flip: bool,
    ) -> None:
        super().__init__()
        self.head = head
        self.normalize = normalize
        self.grouping = grouping
        self.stride = stride
        self.sigma = sigma
        self.tag_weight = tag_weight
        self.flip = flip
        # In the weights' file, so that a network without its data is as exact and can be drawn.
        self.register_buffer("mirror", torch.arange(head.keypoints))
        joins = torch.zeros(head.keypoints, head.keypoints, dtype=torch.uint8)
        self.register_buffer("joins", joins)

    @property
    def finest(self) -> int:
        """Stride of the finest heatmap, and of what figures are read off."""
        return int(self.head.strides[-1])

    @property
    def skeleton(self) -> list[tuple[int, int]]:
        """Pairs of key points, by place, that a line joins."""
        return [(int(a), int(b)) for a, b in self.joins.nonzero().tolist()]

    def note(self, mirror: Sequence[int], skeleton: Sequence[tuple[int, int]]) -> None:
        """Keep what the set says of its key points."""
        self.mirror.copy_(torch.tensor(mirror))
        self.joins.zero_()
        for a, b in skeleton:
            self.joins[a, b] = 1

    def _maps(self, backbone: nn.Module, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return heatmaps, coarsest first, and tags, of images padded below and at the right.

        The padding repeats the border: zeros would be constant maps, in which layer norms blow
        gradients up.
        """
        x: Tensor = self.normalize(images)
        height, width = x.shape[-2:]
        room = (0, -width % self.stride, 0, -height % self.stride)
        heat, tags = self.head(backbone(F.pad(x, room, mode="replicate") if any(room) else x))
        return heat, tags

    def loss(
        self, backbone: nn.Module, images: Tensor, targets: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the losses by name.

        Args:
            backbone: images → feature maps.
            images: (N, 3, H, W) in 0…1.
            targets: N of them: `keypoints` (n, K, 3) and perhaps `ignored` (H, W).

        Raises:
            ValueError: targets that do not fit the images or the head.
        """
        self._check(images, targets)
        keypoints = [target["keypoints"].to(images.dtype) for target in targets]
        nothing = torch.zeros(images.shape[-2:], dtype=torch.bool, device=images.device)
        ignored = torch.stack([target.get("ignored", nothing) for target in targets])
        heat, tags = self._maps(backbone, images)
        total = images.new_zeros(())
        for maps, stride in zip(heat, self.head.strides, strict=True):
            maps = _cut(maps, images.shape, stride)
            wanted = heatmaps(keypoints, maps.shape[-2:], stride, self.sigma)
            left_out = F.max_pool2d(ignored[:, None].float(), stride, ceil_mode=True)[:, 0] > 0
            total = total + heatmap_loss(maps.float(), wanted, ~left_out)
        pull, push = tag_losses(tags.float(), keypoints, self.head.strides[0])
        return {"heatmap": total, "pull": self.tag_weight * pull, "push": self.tag_weight * push}

    def _check(self, images: Tensor, targets: Sequence[Mapping[str, Tensor]]) -> None:
        if len(images) != len(targets):
            raise UserError(f"`targets` (={len(targets)} of them) must be one for each image.")
        for target in targets:
            points = target["keypoints"]
            if points.ndim != 3 or points.shape[1:] != (self.head.keypoints, 3):
                raise UserError(
                    f"`keypoints` (of shape {tuple(points.shape)}) must be "
                    f"(n, {self.head.keypoints}, 3): x, y and visibility."
                )
            if "ignored" in target and target["ignored"].shape != images.shape[-2:]:
                raise UserError(
                    f"`ignored` (of shape {tuple(target['ignored'].shape)}) must be (H, W) of the "
                    f"images' {tuple(images.shape)}."
                )

    def compared(self, backbone: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return what figures are read off: heatmaps (N, K, h, w) and tags (N, K, h, w, T).

        Heatmaps are the mean of all strides, in the finest. With `flip` they are also the mean of
        the image's and its mirror image's, and tags have two dimensions, one of each.
        """
        heat, tags = self._joined(backbone, images)
        if not self.flip:
            return heat, tags[..., None]
        # Padded before, or the mirror image would lie elsewhere on its maps.
        height, width = images.shape[-2:]
        room = (0, -width % self.stride, 0, -height % self.stride)
        padded = F.pad(images, room, mode="replicate") if any(room) else images
        both = [m.flip(-1)[:, self.mirror] for m in self._joined(backbone, padded.flip(-1))]
        mirrored, other = (_cut(m, images.shape, self.finest) for m in both)
        return (heat + mirrored) / 2, torch.stack([tags, other], dim=-1)

    def _joined(self, backbone: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        heat, tags = self._maps(backbone, images)
        size = heat[-1].shape[-2:]

        def enlarged(maps: Tensor) -> Tensor:
            return F.interpolate(maps.float(), size, mode="bilinear", align_corners=False)

        mean = torch.stack([enlarged(maps) for maps in heat]).mean(dim=0)
        return _cut(mean, images.shape, self.finest), _cut(
            enlarged(tags), images.shape, self.finest
        )

    def figures(self, backbone: nn.Module, images: Tensor) -> list[Figures]:
        """Return the figures of images (N, 3, H, W) in 0…1, best first.

        Returns:
            For each image `keypoints` (n, K, 3), x, y in its pixels and a score, 0 where a key
            point was found nowhere; and `scores` (n).
        """
        results = []
        for heat, tags in zip(*self.compared(backbone, images), strict=True):
            points, scores = self.grouping(heat.detach(), tags.detach())
            points[..., :2] = (points[..., :2] + 0.5) * self.finest - 0.5
            found = {"keypoints": torch.from_numpy(points), "scores": torch.from_numpy(scores)}
            results.append({key: value.float() for key, value in found.items()})
        return results


def _cut(maps: Tensor, image: Sequence[int], stride: int) -> Tensor:
    """Return the part of maps that lies on the image, without its padding."""
    return maps[..., : -(-image[-2] // stride), : -(-image[-1] // stride)]


class Whole(nn.Module):
    """A backbone with its estimator: what is timed end to end."""

    def __init__(self, backbone: nn.Module, estimator: Estimator) -> None:
        super().__init__()
        self.backbone = backbone
        self.estimator = estimator

    def compared(self, images: Tensor) -> Any:
        """Return the maps that figures are read off."""
        return self.estimator.compared(self.backbone, images)

    def forward(self, images: Tensor) -> list[Figures]:
        """Return the figures."""
        return self.estimator.figures(self.backbone, images)
