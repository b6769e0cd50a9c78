"""A segmentor: images in 0…1 to losses or labels, whatever head of mmsegmentation stands inside."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.errors import UserError, near
from tasks.feature_maps import feature_maps
from tasks.openmm import configs, models, packages, segmentors
from tasks.segmentation.heads import HEADS, fit_config, last_maps, needs_compiled
from tasks.segmentation.inference import Inference
from tasks.segmentation.losses import weigh_classes


class Segmentor(nn.Module):
    """A segmentor of mmsegmentation around a backbone, with normalisation and resizing inside.

    Args:
        backbone: a timm model made with `features_only=True`.
        num_classes: number of classes, 1…255.
        head: a short name (see `seg_heads.HEADS`), or the path of a config of one's own.
        head_channels: width of head and neck; None for the config's.
        head_norm: "batch" or "group".
        head_options: keys of mmsegmentation's `model` to change, nested as there.
        auxiliary: whether auxiliary heads are trained.
        class_weights: of the cross-entropy, one per class; None for the config's.
        trust_config: run a config that is a Python file.
        mean: of each channel, in 0…1, subtracted from the images.
        std: of each channel, by which they are divided.
        owned: see `models.ConvBoardBackbone`.

    Attributes:
        inference: how labels are made; at first as the config says.

    Raises:
        ValueError: an argument out of its range, or a backbone or config that does not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        head: str,
        head_channels: int | None,
        head_norm: Literal["batch", "group"],
        head_options: Mapping[str, Any] | None,
        auxiliary: bool,
        class_weights: Sequence[float] | None,
        trust_config: bool,
        mean: Sequence[float],
        std: Sequence[float],
        owned: bool = True,
    ) -> None:
        super().__init__()
        maps = last_maps(feature_maps(backbone))
        config = fit_config(
            _config(head, trust_config),
            maps,
            num_classes,
            head_channels=head_channels,
            norm=head_norm,
            auxiliary=auxiliary,
        )
        if head_options:
            config = configs.merged(config, head_options)
        reason = needs_compiled(config)
        if reason is not None and packages.WITHOUT_COMPILED:
            raise UserError(f"`head` (={head!r}) needs a compiled mmcv; {reason}.")
        self.model: Any = models.build(
            "mmseg", config, backbone, indices=[m.index for m in maps], owned=owned
        )
        if not weigh_classes(self.model, class_weights) and class_weights is not None:
            raise UserError(
                f"`class_weights` (={list(class_weights)}) must be None for `head` (={head!r}), "
                "which trains without cross-entropy of pixels."
            )
        self.inference = _own_way(config)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def around(self, backbone: nn.Module) -> Segmentor:
        """Return a copy of the segmentor around another backbone with the same feature maps."""
        lent = self.model.backbone
        self.model.backbone = None
        try:
            other = copy.deepcopy(self)
        finally:
            self.model.backbone = lent
        other.model.backbone = models.ConvBoardBackbone(backbone, lent.indices)
        return other

    def loss(self, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Return the losses by name.

        Args:
            images: (N, 3, H, W) in 0…1.
            masks: (N, H, W) int64 labels, 255 ignored.

        Raises:
            ValueError: shapes that don't fit, or a batch of one image where batch norm needs two.
        """
        if masks.shape != (images.shape[0], *images.shape[-2:]):
            raise UserError(
                f"`masks` (of shape {tuple(masks.shape)}) must be (N, H, W) of the images' "
                f"{tuple(images.shape)}."
            )
        try:
            return segmentors.segmentor_losses(self.model, (images - self.mean) / self.std, masks)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                f"`batch` (of {len(images)} image) must have at least 2 images while training "
                "with batch norm: a map pooled to 1×1 has one value per channel and image. Or "
                "choose `head_norm='group'`."
            ) from error

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (N, C, H, W) of images as they stand, without windows or scales."""
        return segmentors.segmentor_logits(self.model, (images - self.mean) / self.std)

    def label(self, images: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Return labels (N, height, width) of `size`, by default the images'."""
        return self.inference(self.logits, images, size or images.shape[-2:])

    def compared(self, images: Tensor) -> Tensor:
        """Return the logits, of which the labels are made."""
        return self.logits(images)

    def forward(self, images: Tensor) -> Tensor:
        """Return the labels: what is timed end to end."""
        return self.label(images)


def _config(head: str, trust: bool) -> dict[str, Any]:
    if head in HEADS:
        return configs.shipped_config("mmseg", HEADS[head])
    if Path(head).suffix:
        return configs.read_config("mmseg", head, trust=trust)
    raise UserError(f"`head` (={head!r}) is neither a config file nor a head; {near(head, HEADS)}")


def _own_way(config: Mapping[str, Any]) -> Inference:
    """Read how a config wants to be run: whole or in windows, cut at its threshold."""
    last = config["decode_head"]
    last = last[-1] if isinstance(last, (list, tuple)) else last
    threshold = last.get("threshold")
    threshold = 0.3 if threshold is None else threshold  # mmsegmentation's own default
    test = config.get("test_cfg") or {}
    if test.get("mode") != "slide":
        return Inference(threshold=threshold)
    (top, left), (down, right) = test["crop_size"], test["stride"]
    return Inference((top, left), (down, right), threshold=threshold)
