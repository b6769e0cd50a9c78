"""mmseg's data structures around plain tensors: masks in, losses or logits out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from torch import Tensor, nn

from tasks.openmm.packages import mmengine, mmseg, quiet


def segmentor_losses(model: nn.Module, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Return the losses of a segmentor of mmseg by name; each is a scalar.

    Args:
        model: a segmentor.
        images: (N, 3, H, W), normalised.
        masks: (N, H, W) int64 labels, 255 ignored.
    """
    samples = []
    for mask, meta in zip(masks, _metas(images), strict=True):
        sample = mmseg.structures.SegDataSample(metainfo=meta)
        sample.gt_sem_seg = mmengine.structures.PixelData(data=mask[None])
        samples.append(sample)
    segmentor: Any = model
    with quiet(), _without_accuracy():
        losses: dict[str, Tensor] = segmentor.loss(images, samples)
    return {name: value.mean() for name, value in losses.items() if "loss" in name}


@contextmanager
def _without_accuracy() -> Iterator[None]:
    """Let heads not work out the accuracy of a batch, which is for mmengine's log, and takes long.

    A tenth of a training step went there in small networks.
    """
    with patch.object(mmseg.models.decode_heads.decode_head, "accuracy", _none):
        yield


def _none(logits: Tensor, labels: Tensor, **_: Any) -> Tensor:
    return logits.new_zeros(1)


def segmentor_logits(model: nn.Module, images: Tensor) -> Tensor:
    """Return the logits (N, C, H, W) of a segmentor for normalised images (N, 3, H, W)."""
    segmentor: Any = model
    with quiet():
        logits: Tensor = segmentor.encode_decode(images, _metas(images))
    return logits


def _metas(images: Tensor) -> list[dict[str, Any]]:
    shape = (images.shape[-2], images.shape[-1])
    return [{"img_shape": shape, "pad_shape": shape, "ori_shape": shape} for _ in images]
