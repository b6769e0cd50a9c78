"""From a set of images with poses to batches: reading, augmenting, padding."""

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
from tasks.detection.transforms import Sample
from tasks.pose.poses import PoseSet
from tasks.pose.transforms import Augmentation, fit
from tasks.seeds import seeded

Target = dict[str, Any]


class PoseDataset(Dataset[tuple[Tensor, Target]]):
    """Images (3, h, w), floats in 0…1, and targets.

    A target has `keypoints` (n, K, 3), x, y and visibility in pixels of the image, `ignored`
    (h, w), where nothing is learnt, `size` (height, width), `image_id`, the place in the set.
    Without augmentation it has `original`, for scoring: `size`, `keypoints`, `boxes`, `area`,
    `iscrowd` in pixels of the file.

    Args:
        images: what to read.
        image_size: (height, width) that images are fitted to.
        augmentation: of training; None to only fit.
        seed: of the augmentation.
        memory_mb: decoded images are kept up to this size.
    """

    def __init__(
        self,
        images: PoseSet,
        image_size: tuple[int, int],
        *,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        memory_mb: int = 0,
    ) -> None:
        self.images = images
        self.image_size = image_size
        self.augmentation = augmentation
        self.seed = seed
        self._memory = Memory(self._decode, memory_mb)

    def __len__(self) -> int:
        return len(self.images.images)

    def __getitem__(self, key: int | Draw) -> tuple[Tensor, Target]:
        """Return an image and its target, of an index or of an (epoch, index)."""
        epoch, index = (0, key) if isinstance(key, int) else key
        sample = self._read(index)
        if self.augmentation is None:
            original = self._original(index, sample)
            return self._finished(fit(sample, self.image_size), index, {"original": original})
        with seeded(self.seed, "augmentation", epoch, index):
            sample = self.augmentation(sample, self.image_size)
        return self._finished(sample, index, {})

    def _decode(self, index: int) -> tuple[Tensor, ...]:
        """Return the image (3, H, W) of an index, and what is not learnt of it (1, H, W)."""
        record = self.images.images[index]
        image = read_image(record.path, upright=record.upright).contiguous()
        if not record.unlearnt.any():
            return (image,)
        return image, torch.from_numpy(record.ignored())[None]

    def _read(self, index: int) -> Sample:
        image, *ignored = self._memory[index]
        # The file is right where a list of sizes is not.
        height, width = image.shape[-2:]
        record = self.images.images[index]
        learnt = torch.from_numpy(record.points[~record.unlearnt]).float()
        mask = ignored[0] if ignored else torch.zeros(1, height, width, dtype=torch.bool)
        return {
            "image": tv_tensors.Image(image),
            "points": tv_tensors.KeyPoints(learnt[..., :2], canvas_size=(height, width)),
            "visible": learnt[..., 2],
            "ignored": tv_tensors.Mask(mask),
        }

    def _original(self, index: int, sample: Sample) -> Target:
        record = self.images.images[index]
        return {
            "size": torch.tensor(sample["image"].shape[-2:]),
            "keypoints": torch.from_numpy(record.points),
            "boxes": torch.from_numpy(record.boxes),
            "area": torch.from_numpy(record.area),
            "iscrowd": torch.from_numpy(record.crowd).long(),
        }

    def _finished(self, sample: Sample, index: int, more: Target) -> tuple[Tensor, Target]:
        image = sample["image"].as_subclass(Tensor).float() / 255
        points, visible = sample["points"].as_subclass(Tensor), sample["visible"]
        target = {
            "keypoints": torch.cat([points, visible[..., None]], dim=-1),
            "ignored": sample["ignored"].as_subclass(Tensor)[0],
            "size": torch.tensor(image.shape[-2:]),
            "frame": self.image_size,
            "image_id": index,
        }
        return image, target | more


def collate(batch: Sequence[tuple[Tensor, Target]]) -> tuple[Tensor, list[Target]]:
    """Pad the images at the right and below to the frame, black, and stack them."""
    images, targets = [], []
    for image, target in batch:
        (height, width), (h, w) = target["frame"], image.shape[1:]
        room = (0, width - w, 0, height - h)
        images.append(F.pad(image, room))
        rest = {key: value for key, value in target.items() if key != "frame"}
        targets.append(rest | {"ignored": F.pad(target["ignored"], room)})
    return torch.stack(images), targets
