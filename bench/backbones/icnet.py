"""IC-ResNets: the 3×3 convolution of every bottleneck has a dilation per output channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timm.models import register_model
from torch import nn

from bench.backbones.registration import hosted, put
from bench.backbones.slots import find_slots
from bench.errors import UserError
from bench.operators.icconv_patterns import default_pattern, read_patterns

Patterns = str | Path | Sequence[Mapping[str, int]] | None


def _network(
    name: str, host: str, pretrained: bool, *, patterns: Patterns = None, **kwargs: Any
) -> nn.Module:
    """Put IC-Conv into `host`.

    Args:
        name: what the network is called.
        host: timm's network.
        pretrained: must be False.
        patterns: a pattern file, or its content: one pattern per bottleneck, in order. None for
            the fallback of the paper's authors, which needs no search: half of the channels of
            the first layer have dilation 1, 0.7 of the later ones', the rest spread evenly over
            the other 15 dilations up to 4.
        **kwargs: of `timm.create_model`.

    Raises:
        ValueError: not one pattern per bottleneck, or one that does not count its channels.
    """
    model = hosted(name, host, pretrained, kwargs)
    slots = [slot for slot in find_slots(model) if slot.name.endswith(".conv2")]
    by_slot = read_patterns(patterns) if isinstance(patterns, str | Path) else patterns
    if by_slot is None:
        by_slot = [
            default_pattern(
                slot.spec.out_channels,
                plain_share=0.7 if index else 0.5,
                unit=slot.spec.groups,
            )
            for index, slot in enumerate(slots)
        ]
    # A feature extractor may be cut behind its last map, and needs no patterns from there on.
    if len(by_slot) < len(slots) or (len(by_slot) > len(slots) and "features_only" not in kwargs):
        raise UserError(
            f"`patterns` must hold one pattern for each of the {len(slots)} bottlenecks of {name}, "
            f"not {len(by_slot)}."
        )
    selection = [(slot, {"pattern": dict(p)}) for slot, p in zip(slots, by_slot, strict=False)]
    put(model, "icconv", selection)
    return model


@register_model
def ic_resnet50(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """IC-ResNet-50 (inception convolution, CVPR 2021); `patterns` as a file or a list."""
    return _network("ic_resnet50", "resnet50", pretrained, **kwargs)


@register_model
def ic_resnet101(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """IC-ResNet-101; `patterns` as a file or a list."""
    return _network("ic_resnet101", "resnet101", pretrained, **kwargs)


@register_model
def ic_resnext101_32x4d(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """IC-ResNeXt-101, 32 × 4d; `patterns` as a file or a list."""
    return _network("ic_resnext101_32x4d", "resnext101_32x4d", pretrained, **kwargs)
