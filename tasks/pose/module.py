"""Pose estimation, bottom-up: heatmaps and tags behind any backbone."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from bench.errors import UserError, require
from tasks.base import TaskModule
from tasks.data.order import joined
from tasks.feature_maps import feature_maps
from tasks.pose.estimator import Estimator, Figures, Whole
from tasks.pose.grouping import Grouping
from tasks.pose.head import PoseHead
from tasks.pose.names import USUAL_SIGMA, mirrored, sigmas_of
from tasks.pose.scores import NAMES, Scored, evaluate, match
from tasks.seeds import seeded


class Pose(TaskModule):
    """A backbone with a head for bottom-up pose, its losses and its scores.

    The head finds the key points of all figures at once, in heatmaps, and gives each a tag by
    which those of one figure are put together: associative embedding (Newell et al. 2017, arXiv
    1611.05424) with the finer heatmaps and the grouping of HigherHRNet (1908.10357).

    Args:
        backbone: a timm model made with `features_only=True`, swapped or not.
        num_classes: number of key points of a figure, ≥ 1.
        head_channels: width of pyramid and head, ≥ 1.
        upsamplings: transposed convolutions, from 0; each halves the stride of the heatmaps,
            which begin at that of the backbone's finest map, and can't go below 1.
        sigma: standard deviation of the wanted peaks, in pixels of each heatmap, > 0.
        tag_weight: of pull and push, against the heatmaps' error, > 0.
        flip_test: whether predictions average mirror images.
        peak_threshold: least height of a peak, in (0, 1).
        tag_threshold: distance of tags from which a key point is another figure's, > 0.
        most_figures: of an image, ≥ 1; 20 are scored.
        **training: optimizer, lr, weight_decay, momentum, nesterov, warmup_epochs, schedule,
            milestones, final_lr, layer_decay, frozen_norm, ema_decay, channels_last, compile, mean,
            std, seed: see `TaskModule`.

    Raises:
        ValueError: a backbone without feature maps, a value out of its range.

    Example:
        >>> import timm, torch
        >>> m = timm.create_model("test_convnext", features_only=True)
        >>> task = Pose(backbone=m, num_classes=7, head_channels=16)
        >>> target = {"keypoints": torch.tensor([[[8.0, 8, 2]] * 7])}
        >>> sorted(task.loss((torch.rand(1, 3, 64, 64), [target])))
        ['heatmap', 'pull', 'push']
        >>> sorted(task.predict(torch.rand(1, 3, 64, 64))[0])
        ['keypoints', 'scores']
    """

    headline: ClassVar[str] = "AP"
    metrics_info: ClassVar[dict[str, tuple[str, bool]]] = dict.fromkeys(NAMES, ("fraction", True))
    outcomes_kind: ClassVar[str] = (
        "one row per predicted figure: image, score, matched (at OKS 0.5: 1 right, 0 wrong, -1 in "
        "what is ignored); `objects`: figures of every image"
    )

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        head_channels: int = 64,
        upsamplings: int = 1,
        sigma: float = 2.0,
        tag_weight: float = 1e-3,
        flip_test: bool = False,
        peak_threshold: float = 0.1,
        tag_threshold: float = 1.0,
        most_figures: int = 30,
        **training: Any,
    ) -> None:
        super().__init__(backbone, **training)
        require("num_classes", num_classes, num_classes >= 1, ">= 1")
        require("head_channels", head_channels, head_channels >= 1, ">= 1")
        require("sigma", sigma, sigma > 0, "> 0")
        require("tag_weight", tag_weight, tag_weight > 0, "> 0")
        grouping = Grouping(most_figures, peak_threshold, tag_threshold)
        maps = feature_maps(backbone)
        fits = upsamplings >= 0 and maps[0].stride % 2**upsamplings == 0
        rule = f">= 0, and halve the stride {maps[0].stride} of the backbone's finest map to >= 1"
        require("upsamplings", upsamplings, fits, rule)
        with seeded(self.seed, "head"):
            head = PoseHead(maps, num_classes, head_channels, upsamplings)
        self.estimator = Estimator(
            head,
            self.normalize,
            grouping,
            stride=maps[-1].stride,
            sigma=sigma,
            tag_weight=tag_weight,
            flip=flip_test,
        )
        self.num_classes = num_classes
        self.sigmas: Sequence[float] = (USUAL_SIGMA,) * num_classes
        self.reset_scores()

    @property
    def skeleton(self) -> list[tuple[int, int]]:
        """Pairs of key points, by place, that a line joins in drawings."""
        return self.estimator.skeleton

    def setup(self, stage: str) -> None:
        """Keep what the data say of their key points: sides, lines, and how exact each is."""
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if data is not None:
            names = tuple(data.class_names)
            # Data of another's own may say nothing but the names.
            self.estimator.note(mirrored(names), getattr(data, "skeleton", ()))
            self.sigmas = getattr(data, "sigmas", None) or sigmas_of(names)

    def loss(self, batch: tuple[Tensor, Sequence[Mapping[str, Tensor]]]) -> dict[str, Tensor]:
        """Return the losses by name.

        Args:
            batch: images (N, 3, H, W) in 0…1 and N targets: `keypoints` (n, K, 3), x, y in pixels
                and visibility, 0 where not labelled; and perhaps `ignored` (H, W), booleans, where
                nothing is learnt.

        Raises:
            ValueError: targets that do not fit the images or the head.
        """
        images, targets = batch
        return self.estimator.loss(self.backbone, self.laid_out(images), targets)

    def predict(self, images: Tensor) -> list[Figures]:
        """Return the figures in images (N, 3, H, W) in 0…1.

        Returns:
            For each image, best first: `keypoints` (n, K, 3), x, y in pixels and the score of each
            key point, 0 where it was found nowhere; `scores` (n) in 0…1.
        """
        with self.evaluating():
            return self.estimator.figures(self.backbone, self.laid_out(images))

    def inference_module(self) -> nn.Module:
        """Return images (N, 3, H, W) in 0…1 → figures, grouping included."""
        return Whole(copy.deepcopy(self.backbone), copy.deepcopy(self.estimator)).eval()

    def reset_scores(self) -> None:
        """Forget all scored batches."""
        self._scored: list[Scored] = []

    def score(self, batch: tuple[Tensor, Sequence[Mapping[str, Any]]]) -> None:
        """Predict a batch and add it to the scores and outcomes.

        Figures are scored in the pixels of the files.

        Raises:
            ValueError: a target without `original`, which the data give where they do not augment.
        """
        images, targets = batch
        for target, found in zip(targets, self.predict(images), strict=True):
            if "original" not in target:
                raise UserError("`targets` must have `original`, the figures in the file's pixels.")
            truth = target["original"]
            points = found["keypoints"]
            size, original = (x["size"].to(points).flip(0) for x in (target, truth))
            points[..., :2] = (points[..., :2] + 0.5) * (original / size) - 0.5
            self._scored.append(Scored.of(truth, found))

    def scores(self) -> dict[str, float]:
        """Return COCO's scores of poses over all scored batches."""
        return evaluate(joined(self._scored), self.sigmas)

    def per_class(self) -> dict[str, float]:
        """Return key point → share that is found, of those labelled; see `scores.match`."""
        rows = [match(image, self.sigmas)[1] for image in joined(self._scored)]
        found = np.concatenate([np.zeros((0, self.num_classes)), *rows])
        return {
            name: float(np.nanmean(column))
            for name, column in zip(self.class_names, found.T, strict=True)
            if not np.isnan(column).all()
        }

    def outcomes(self) -> dict[str, np.ndarray]:
        """Return `image`, `score`, `matched` per predicted figure, and `objects` per image."""
        images = joined(self._scored)
        none = np.zeros(0)
        verdicts = [match(image, self.sigmas)[0] for image in images]
        counts = [len(image.scores) for image in images]
        return {
            "image": np.repeat(np.arange(len(images)), counts),
            "score": np.concatenate([none, *(image.scores for image in images)]),
            "matched": np.concatenate([none.astype(np.int8), *verdicts]),
            "objects": np.array([(~image.ignored).sum() for image in images], dtype=np.int64),
        }
