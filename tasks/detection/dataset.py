"""From a set of images with boxes to batches: reading, augmenting, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import tv_tensors

from tasks.data.images import read_image
from tasks.data.memory import Memory
from tasks.data.order import Draw
from tasks.detection.boxes import BoxImage, BoxSet
from tasks.detection.transforms import Augmentation, Sample, is_turned, letterbox, mosaic
from tasks.seeds import numpy_generator, seeded

Target = dict[str, Any]


class BoxDataset(Dataset[tuple[Tensor, Target]]):
    """Images (3, h, w), floats in 0…1, and targets as torchvision's detectors take them.

    A target has `boxes` (n, 4) as (x1, y1, x2, y2) in pixels of the image, `labels` (n),
    `iscrowd` (n), `size` (height, width), `image_id`, the place in the set; with `masks` also
    these, (n, h, w). Without augmentation it has `original`: size, boxes, labels, iscrowd, area
    (and masks) in pixels of the file, for scoring.

    Args:
        images: what to read.
        image_size: (height, width) that images are fitted to.
        augmentation: of training; None to only fit.
        mosaic_share: chance of a mosaic of four images.
        masks: whether to decode masks.
        turn: whether upright images are fitted to (width, height) instead.
        seed: of the augmentation.
        memory_mb: decoded images and masks are kept up to this size.
    """

    def __init__(
        self,
        images: BoxSet,
        image_size: tuple[int, int],
        *,
        augmentation: Augmentation | None = None,
        mosaic_share: float = 0.0,
        masks: bool = False,
        turn: bool = False,
        seed: int = 0,
        memory_mb: int = 0,
    ) -> None:
        self.images = images
        self.image_size = image_size
        self.augmentation = augmentation
        self.mosaic_share = mosaic_share
        self.masks = masks
        self.turn = turn
        self.seed = seed
        self._memory = Memory(self._decode, memory_mb)

    def __len__(self) -> int:
        return len(self.images.images)

    def upright(self, index: int) -> bool:
        """Say whether an image is fitted to the turned frame."""
        return self.turn and is_turned(self.images.images[index].size, self.image_size)

    def frame(self, index: int) -> tuple[int, int]:
        """Return the (height, width) that an image is fitted to."""
        return self.image_size[::-1] if self.upright(index) else self.image_size

    def __getitem__(self, key: int | Draw) -> tuple[Tensor, Target]:
        """Return an image and its target, of an index or of an (epoch, index)."""
        epoch, index = (0, key) if isinstance(key, int) else key
        sample, frame = self._read(index), self.frame(index)
        if self.augmentation is None:
            original = _original(self.images.images[index], sample)
            return _finished(letterbox(sample, frame), index, frame, {"original": original})
        rng = numpy_generator(self.seed, "augmentation", epoch, index)
        with seeded(self.seed, "augmentation", epoch, index):
            if rng.random() < self.mosaic_share:
                others = [self._read(int(i)) for i in rng.integers(len(self), size=3)]
                factors = [self.augmentation.factor() for _ in range(4)]
                sample = mosaic([sample, *others], frame, factors)
            sample = self.augmentation(sample, frame)
        return _finished(sample, index, frame, {})

    def _decode(self, index: int) -> tuple[Tensor, ...]:
        """Return the image (3, H, W) of an index and, where wanted, its masks (n, H, W)."""
        record = self.images.images[index]
        image = read_image(record.path, upright=record.upright).contiguous()
        return (image, torch.from_numpy(record.masks())) if self.masks else (image,)

    def _read(self, index: int) -> Sample:
        record = self.images.images[index]
        image, *masks = self._memory[index]
        # The file is right where a list of sizes is not.
        height, width = image.shape[-2:]
        sample: Sample = {
            "image": tv_tensors.Image(image),
            "boxes": tv_tensors.BoundingBoxes(
                torch.from_numpy(record.boxes).float(), format="XYXY", canvas_size=(height, width)
            ),
            "labels": torch.from_numpy(record.labels),
            "iscrowd": torch.from_numpy(record.crowd).long(),
        }
        if masks:
            sample["masks"] = tv_tensors.Mask(masks[0])
        return sample


def _original(record: BoxImage, sample: Sample) -> Target:
    height, width = sample["image"].shape[-2:]
    unchanged = {key: sample[key] for key in ("labels", "iscrowd", "masks") if key in sample}
    return {
        "size": torch.tensor([height, width]),
        "boxes": torch.from_numpy(record.boxes),
        "area": torch.from_numpy(record.area),
        **{key: value.as_subclass(Tensor) for key, value in unchanged.items()},
    }


def _finished(
    sample: Sample, index: int, frame: tuple[int, int], more: Target
) -> tuple[Tensor, Target]:
    image = sample.pop("image").as_subclass(Tensor).float() / 255
    target = {key: value.as_subclass(Tensor) for key, value in sample.items()}
    target |= {"size": torch.tensor(image.shape[-2:]), "frame": frame, "image_id": index}
    return image, target | more


def collate(batch: Sequence[tuple[Tensor, Target]]) -> tuple[Tensor, list[Target]]:
    """Pad the images at the right and below to the frame, black, and stack them.

    Black, as the mean colour would become zeros: a map without any variance, in which layer norms
    blow gradients up.
    """
    height, width = (max(target["frame"][axis] for _, target in batch) for axis in (0, 1))
    images = [
        F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1])) for image, _ in batch
    ]
    targets = []
    for _, target in batch:
        padded = {key: value for key, value in target.items() if key != "frame"}
        if "masks" in padded:
            h, w = padded["masks"].shape[-2:]
            padded["masks"] = F.pad(padded["masks"], (0, width - w, 0, height - h))
        targets.append(padded)
    return torch.stack(images), targets
