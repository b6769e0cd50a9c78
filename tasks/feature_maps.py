"""The feature maps that a backbone returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from bench.errors import UserError


@dataclass(frozen=True)
class FeatureMap:
    """One map that a backbone returns.

    Attributes:
        index: its place in the list.
        channels: how many it has.
        stride: pixels of the image for each of its own, per axis.
    """

    index: int
    channels: int
    stride: int


def feature_maps(backbone: nn.Module) -> list[FeatureMap]:
    """Return the maps of a backbone made by timm with `features_only=True`, finest first.

    Raises:
        ValueError: it has no `feature_info`.

    Example:
        >>> import timm
        >>> feature_maps(timm.create_model("test_convnext", features_only=True))[-1]
        FeatureMap(index=3, channels=64, stride=32)
    """
    info = getattr(backbone, "feature_info", None)
    if info is None or not hasattr(info, "reduction"):
        raise UserError(
            f"`backbone` (={type(backbone).__name__}) must return feature maps and describe them "
            "in `feature_info`: make it with `features_only=True`."
        )
    pairs = zip(info.channels(), info.reduction(), strict=True)
    return [FeatureMap(i, int(c), int(s)) for i, (c, s) in enumerate(pairs)]
