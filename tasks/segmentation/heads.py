"""Segmentation heads by short name, and how a head's config is fitted to a backbone.

Pure functions over the `model` part of an mmsegmentation config (nested dicts and lists).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench.errors import UserError
from tasks.feature_maps import FeatureMap

HEADS = {
    "upernet": "upernet/upernet_r50_4xb4-160k_ade20k-512x512.py",
    "fpn": "sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py",
    "deeplabv3plus": "deeplabv3plus/deeplabv3plus_r50-d8_4xb4-160k_ade20k-512x512.py",
    "pspnet": "pspnet/pspnet_r50-d8_4xb4-160k_ade20k-512x512.py",
    "segformer": "segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py",
    "mask2former": "mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py",
}
"""Short name → the config that mmsegmentation ships."""

NEEDS_COMPILED = {"PSAHead": "its point-wise attention (psa_mask) is only in a compiled mmcv"}
"""Parts of mmsegmentation that mmcv-lite can't run → why."""

NOT_FITTED = {
    "DDRHead": "it trains on two maps that only its own backbone gives",
    "PIDHead": "it trains on three maps that only its own backbone gives",
    "DPTHead": "it wants the tokens of a vision transformer, not maps",
    "ICNeck": "it wants the three branches of ICNet",
    "JPU": "it takes exactly three maps and hands on a fourth",
    "MLANeck": "it wants the equal widths of a vision transformer's layers",
    "Feature2Pyramid": "it wants the equal widths of a vision transformer's layers",
    "IterativeDecodeHead": "its heads are nested in one another",
    "LRASPPHead": "its pooling wants maps of at least 49 × 49",
    "MultimodalEncoderDecoder": "it segments by text",
    "DepthEstimator": "it predicts depths, not classes",
}
"""Parts of mmsegmentation that are not fitted to other backbones → why; any other part may be."""

LEVELS = 4
"""Feature maps that the shipped configs take, finest first: strides 4, 8, 16, 32."""

ASPP_STRIDE = 8
"""Stride of the map for which the shipped dilations of DeepLab's pyramid are meant."""


def last_maps(maps: Sequence[FeatureMap]) -> list[FeatureMap]:
    """Choose the last four maps of a backbone, or all where it has fewer.

    Example:
        >>> maps = [FeatureMap(i, 8, 2**i) for i in range(1, 6)]
        >>> [m.stride for m in last_maps(maps)]
        [4, 8, 16, 32]
    """
    return list(maps[-LEVELS:])


def fit_config(
    model: Mapping[str, Any],
    maps: Sequence[FeatureMap],
    num_classes: int,
    *,
    head_channels: int | None = None,
    norm: str = "batch",
    auxiliary: bool = True,
) -> dict[str, Any]:
    """Return a copy of a config that fits a backbone's maps, the classes and the light options.

    A level is counted from the coarsest map, so a head that takes level 2 of 4 takes the map
    before the last of any backbone; lists of levels are cut where the backbone has fewer than
    four maps. DeepLab's dilations, which are meant for a map of stride 8, shrink with the stride.

    Args:
        model: `model` of an mmsegmentation config.
        maps: What the backbone gives.
        num_classes: Number of classes.
        head_channels: Width of the head and of its neck; None for the config's own.
        norm: "batch" or "group" (8 groups), the norm of neck and heads.
        auxiliary: Whether to keep the auxiliary heads.

    Raises:
        ValueError: If the config has a part in `NOT_FITTED`.
    """
    cfg = copy.deepcopy(dict(model))
    for kind in sorted(_types(cfg) & NOT_FITTED.keys()):
        raise UserError(f"`head` has a {kind}, which can't be used here: {NOT_FITTED[kind]}.")
    for name in ("auxiliary_head", "neck"):
        if cfg.get(name) is None or (name == "auxiliary_head" and not auxiliary):
            cfg.pop(name, None)
    _set_norm(cfg, norm)
    inputs = [m.channels for m in maps]
    if "neck" in cfg:
        inputs = _fit_neck(cfg["neck"], maps, head_channels)
    for head in _heads(cfg):
        _fit_head(head, inputs, maps, num_classes, head_channels)
    return cfg


def _types(cfg: Any) -> set[str]:
    """Return every `type` in a config, its backbone's left out."""
    if isinstance(cfg, Mapping):
        inner = (_types(value) for key, value in cfg.items() if key != "backbone")
        return {str(cfg.get("type"))}.union(*inner)
    if isinstance(cfg, (list, tuple)):
        return set().union(*(_types(value) for value in cfg))
    return set()


def needs_compiled(model: Mapping[str, Any]) -> str | None:
    """Say why a config needs a compiled mmcv, or None if it doesn't."""
    parts = sorted(_types(model) & NEEDS_COMPILED.keys())
    return f"{parts[0]}: {NEEDS_COMPILED[parts[0]]}" if parts else None


def _fit_neck(neck: dict[str, Any], maps: Sequence[FeatureMap], width: int | None) -> list[int]:
    """Fit a neck and return the channels of its outputs; one without widths keeps the maps'."""
    channels = [m.channels for m in maps]
    if "in_channels" in neck:
        neck["in_channels"] = channels
    if "num_outs" in neck:
        neck["num_outs"] = len(maps)
    if "out_channels" not in neck:
        return channels
    if width is not None:
        neck["out_channels"] = width
    return [neck["out_channels"]] * len(maps)


def _heads(cfg: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return all heads; `decode_head` and `auxiliary_head` may each be one or a list."""
    heads: list[dict[str, Any]] = []
    for name in ("decode_head", "auxiliary_head"):
        part = cfg.get(name, [])
        heads += part if isinstance(part, (list, tuple)) else [part]
    return heads


def _fit_head(
    head: dict[str, Any],
    inputs: list[int],
    maps: Sequence[FeatureMap],
    num_classes: int,
    width: int | None,
) -> None:
    count = len(inputs)
    index = head.get("in_index", list(range(count)) if _takes_list(head) else -1)
    if isinstance(index, (list, tuple)):
        levels = [i - LEVELS + count for i in index if i - LEVELS + count >= 0] or [count - 1]
        levels = levels if len(index) < LEVELS else list(range(count))
        head["in_channels"] = [inputs[i] for i in levels]
        if "in_index" in head:
            head["in_index"] = levels
        coarsest = levels[-1]
    else:
        coarsest = index if index < 0 else max(0, index - LEVELS + count)
        head["in_channels"] = inputs[coarsest]
        head["in_index"] = coarsest
    head["num_classes"] = num_classes
    if "feature_strides" in head:
        head["feature_strides"] = [maps[i].stride for i in head["in_index"]]
    if "strides" in head:
        head["strides"] = [m.stride for m in maps]
    if "c1_in_channels" in head:
        head["c1_in_channels"] = inputs[0]
    if "dilations" in head:
        step = ASPP_STRIDE / maps[coarsest].stride
        head["dilations"] = [max(1, round(d * step)) for d in head["dilations"]]
    if "loss_cls" in head and "class_weight" in head["loss_cls"]:
        # One weight a class and a last one for "no object".
        last = head["loss_cls"]["class_weight"][-1]
        head["loss_cls"]["class_weight"] = [1.0] * num_classes + [last]
    if width is not None:
        _set_width(head, width)


def _takes_list(head: Mapping[str, Any]) -> bool:
    return isinstance(head.get("in_channels"), (list, tuple))


def _set_width(head: dict[str, Any], width: int) -> None:
    if "channels" in head:
        head["channels"] = width
    if "c1_channels" in head:
        head["c1_channels"] = min(head["c1_channels"], width)
    if "feat_channels" in head:
        _scale_transformer(head, width, head["feat_channels"])


def _scale_transformer(cfg: dict[str, Any], width: int, shipped: int) -> None:
    """Set the width of every layer of a query-based head whose shipped width is `shipped`."""
    for key, value in cfg.items():
        if key in ("feat_channels", "out_channels", "embed_dims"):
            cfg[key] = width
        elif key == "num_feats":
            cfg[key] = width // 2
        elif key == "feedforward_channels":
            cfg[key] = value * width // shipped
        elif key == "num_groups":
            cfg[key] = math.gcd(value, width)
        elif isinstance(value, dict):
            _scale_transformer(value, width, shipped)


def _set_norm(cfg: Any, norm: str) -> None:
    """Put group norm in the place of batch norm everywhere, where asked."""
    if norm == "batch":
        return
    if isinstance(cfg, dict):
        if cfg.get("norm_cfg") and cfg["norm_cfg"].get("type") in ("BN", "SyncBN"):
            cfg["norm_cfg"] = {"type": "GN", "num_groups": GROUPS}
        for value in cfg.values():
            _set_norm(value, norm)
    elif isinstance(cfg, list):
        for value in cfg:
            _set_norm(value, norm)


GROUPS = 8
"""Groups of the group norm that `norm="group"` puts in the place of batch norm."""
