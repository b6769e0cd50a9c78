"""From the feature maps of a backbone to the config of a detector that fits them.

Pure functions on mmdet's `model` configs: nothing here imports mmdet.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.errors import UserError, require
from tasks.feature_maps import FeatureMap


@dataclass(frozen=True)
class Head:
    """A detector by short name.

    Attributes:
        config: the config file that mmdet ships.
        strides: of the feature maps that its neck takes, by default.
        extra: coarser levels, each half the size of the one before, that the neck adds.
        masks: whether it predicts masks, and so needs them to train.
    """

    config: str
    strides: tuple[int, ...]
    extra: int
    masks: bool = False


_FINE, _COARSE = (4, 8, 16, 32), (8, 16, 32)
HEADS = {
    "faster_rcnn": Head("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", _FINE, 1),
    "mask_rcnn": Head("mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", _FINE, 1, masks=True),
    "cascade_mask_rcnn": Head(
        "cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py", _FINE, 1, masks=True
    ),
    "retinanet": Head("retinanet/retinanet_r50_fpn_1x_coco.py", _COARSE, 2),
    "fcos": Head(
        "fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py", _COARSE, 2
    ),
    "atss": Head("atss/atss_r50_fpn_1x_coco.py", _COARSE, 2),
    "rtmdet": Head("rtmdet/rtmdet_tiny_8xb32-300e_coco.py", _COARSE, 0),
    "yolox": Head("yolox/yolox_tiny_8xb8-300e_coco.py", _COARSE, 0),
}


def choose_maps(
    maps: Sequence[FeatureMap], strides: Sequence[int] | None, default: Sequence[int]
) -> list[FeatureMap]:
    """Return the maps of the given strides; of the default's, those that the backbone has.

    Of two maps with one stride the later is taken.

    Raises:
        ValueError: a stride that was asked for, or any of the default's, is not there.
    """
    have = {m.stride: m for m in maps}
    if strides is not None:
        lacking = [s for s in strides if s not in have]
        if lacking or not strides or list(strides) != sorted(set(strides)):
            raise UserError(
                f"`strides` (={tuple(strides)}) must be rising strides of the backbone's maps, "
                f"which are {tuple(sorted(have))}."
            )
        return [have[s] for s in strides]
    chosen = [have[s] for s in default if s in have]
    if not chosen:
        raise UserError(
            f"`backbone` has maps of stride {tuple(sorted(have))} and the head takes "
            f"{tuple(default)}: choose them by `strides`."
        )
    return chosen


def first_neck(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the neck, or the first of several, that takes the backbone's maps ({} for none)."""
    neck = config.get("neck") or {}
    return (neck[0] if neck else {}) if isinstance(neck, (list, tuple)) else neck


def maps_taken(config: Mapping[str, Any], maps: Sequence[FeatureMap]) -> list[FeatureMap]:
    """Return the maps that a user's own config takes: as many as its neck does, the coarsest.

    Raises:
        ValueError: the backbone has too few.
    """
    channels = first_neck(config).get("in_channels")
    taken = len(channels) if isinstance(channels, (list, tuple)) else 1
    if taken > len(maps):
        raise UserError(f"`backbone` has {len(maps)} feature maps and the config takes {taken}.")
    return list(maps[len(maps) - taken :])


def usual(
    head: str, config: dict[str, Any], maps: Sequence[FeatureMap]
) -> tuple[list[int], int | None]:
    """Return the strides that a head takes and the levels that its neck adds, if not told others.

    The necks of the short names are made to take all of the maps that they get, from the first.

    Args:
        head: a short name, or else the config is a user's own.
        config: its mmdet `model`; changed in place.
        maps: all maps of the backbone.
    """
    if head not in HEADS:
        return [m.stride for m in maps_taken(config, maps)], None
    first_neck(config).pop("start_level", None)
    return list(HEADS[head].strides), HEADS[head].extra


TO_IGNORE = 0.5
"""Share of an anchor or proposal in a region to ignore from which it is not trained on."""
_IGNORING = ("ApproxMaxIoUAssigner", "ATSSAssigner", "MaxIoUAssigner")


def wire(
    config: Mapping[str, Any],
    maps: Sequence[FeatureMap],
    num_classes: int,
    *,
    extra: int | None = None,
    neck_channels: int | None = None,
    head_convs: int | None = None,
    anchor_scale: float | None = None,
) -> dict[str, Any]:
    """Return the config of a detector with the backbone's channels and strides in it.

    Args:
        config: mmdet's `model`.
        maps: the feature maps that the neck gets.
        num_classes: put in wherever the config has one.
        extra: coarser levels that the neck adds; None for as many as in the config.
        neck_channels: width of the neck's outputs and of the heads (their hidden layers have four
            times as many); None for the config's.
        head_convs: convolutions in a row in a single-stage or mask head; None for the config's.
        anchor_scale: size of the smallest anchor, or of the smallest object of a level without
            anchors, in strides; None for the config's (8 for R-CNN and ATSS, 4 for RetinaNet).

    Raises:
        ValueError: an argument that changes nothing, as the detector has no such thing.
    """
    wired = copy.deepcopy(dict(config))
    neck = first_neck(wired)
    levels = [m.stride for m in maps]
    if neck:
        many = isinstance(neck.get("in_channels"), (list, tuple))
        neck["in_channels"] = [m.channels for m in maps] if many else maps[-1].channels
        levels = _neck_levels(neck, levels, extra)
    _walk(wired, "num_classes", num_classes)
    _require_use(wired, "extra_levels", extra, not extra or "num_outs" in neck)
    inner = len(maps) - int(neck.get("start_level", 0))
    _set_strides(wired, levels, inner)
    if neck_channels is not None:
        _set_width(wired, neck, neck_channels)
    if head_convs is not None:
        counts = [_walk(wired, key, head_convs) for key in ("stacked_convs", "num_convs")]
        _require_use(wired, "head_convs", head_convs, any(counts))
    is_fcos = _heads(wired.get("bbox_head") or {})[0].get("type") == "FCOSHead"
    if anchor_scale is not None:
        used = _set_anchor_scale(wired, anchor_scale) or is_fcos
        _require_use(wired, "anchor_scale", anchor_scale, used)
    if is_fcos:
        _set_regress_ranges(_heads(wired["bbox_head"])[0], levels, anchor_scale or 8)
    _ignore_regions(wired)
    return wired


def _require_use(wired: Mapping[str, Any], argument: str, value: Any, used: bool) -> None:
    rule = f"None for a head (of type {wired.get('type')}) in which it would change nothing"
    require(argument, value, used, rule)


def _neck_levels(neck: dict[str, Any], levels: list[int], extra: int | None) -> list[int]:
    """Strides of the neck's outputs; `extra` fixes how many they are."""
    start = int(neck.get("start_level", 0))
    levels = levels[start:]
    if "num_outs" in neck:
        if extra is not None:
            neck["num_outs"] = len(levels) + extra
        while len(levels) < neck["num_outs"]:
            levels = [*levels, levels[-1] * 2]
        levels = levels[: neck["num_outs"]]
    return levels


def _heads(head: Any) -> list[dict[str, Any]]:
    return list(head) if isinstance(head, (list, tuple)) else [head]


def _mappings(part: Any) -> Iterator[dict[str, Any]]:
    """Yield all mappings of a config, each before those in it."""
    inner: Iterable[Any] = part if isinstance(part, (list, tuple)) else ()
    if isinstance(part, dict):
        yield part
        inner = part.values()
    for one in inner:
        yield from _mappings(one)


def _walk(part: Any, key: str, value: Any) -> int:
    """Replace the value of `key` wherever the config has it; return how often that is."""
    having = [mapping for mapping in _mappings(part) if key in mapping]
    for mapping in having:
        mapping[key] = value
    return len(having)


def _ignore_regions(wired: dict[str, Any]) -> None:
    """Let assigners that can leave regions to ignore out of training, unless the config says how.

    The shipped configs switch that off, and train such regions as background.
    """
    for part in _mappings(wired):
        if part.get("type") in _IGNORING and part.get("ignore_iof_thr", -1) == -1:
            part["ignore_iof_thr"] = TO_IGNORE


def _set_strides(wired: dict[str, Any], levels: list[int], inner: int) -> None:
    for name in ("rpn_head", "bbox_head", "mask_head"):
        for part in _heads(wired.get(name) or {}):
            for holder in (part, part.get("anchor_generator", {}), part.get("prior_generator", {})):
                if "strides" in holder:
                    holder["strides"] = list(levels)
    _walk(wired.get("roi_head", {}), "featmap_strides", levels[:inner])
    # FCOS and YOLOX leave out what equals their defaults, which are not ours.
    for part in _heads(wired.get("bbox_head") or {}):
        if part.get("type") in ("FCOSHead", "YOLOXHead"):
            part["strides"] = list(levels)


def _set_width(wired: dict[str, Any], neck: dict[str, Any], width: int) -> None:
    neck["out_channels"] = width
    for name in ("rpn_head", "bbox_head", "roi_head", "mask_head"):
        part = wired.get(name, {})
        for key in ("in_channels", "feat_channels", "conv_out_channels", "out_channels"):
            _walk(part, key, width)
        _walk(part, "fc_out_channels", 4 * width)
    for part in _heads(wired.get("bbox_head") or {}):
        if part.get("type") in ("FCOSHead", "ATSSHead"):
            # Their default is 32 groups of 8 channels.
            groups = width // 8 if width % 8 == 0 else math.gcd(32, width)
            part["norm_cfg"] = {"type": "GN", "num_groups": groups, "requires_grad": True}


def _set_anchor_scale(wired: dict[str, Any], scale: float) -> bool:
    """Set the size of the smallest anchors; return whether there are any."""
    used = False
    for name in ("rpn_head", "bbox_head"):
        for part in _heads(wired.get(name) or {}):
            anchors = part.get("anchor_generator", {})
            if "scales" in anchors:
                anchors["scales"] = [scale]
            if "octave_base_scale" in anchors:
                anchors["octave_base_scale"] = scale
            used = used or "scales" in anchors or "octave_base_scale" in anchors
    return used


def _set_regress_ranges(fcos: dict[str, Any], levels: Sequence[int], scale: float) -> None:
    """Level i takes the objects whose farthest side is (scale/2·s_i, scale·s_i] away.

    With strides 8…128 and scale 8 these are FCOS's (-1, 64), (64, 128) … (512, ∞).
    """
    edges = [-1.0, *(scale * s for s in levels[:-1]), 1e8]
    fcos["regress_ranges"] = tuple(itertools.pairwise(edges))
