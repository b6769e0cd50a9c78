"""Predictions drawn on their image with torchvision's drawing functions."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import ImageDraw
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

SHORTEST = 320
"""Smaller images are enlarged until their short side has so many pixels, or no word would fit."""
LINE = 13
"""Height of a line of text in pixels."""
TOP = 5
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Drawn:
    """A picture, uint8 (3, H, W), and what it shows in words."""

    picture: Tensor
    words: str


def classes(image: Tensor, probabilities: Tensor, names: Sequence[str]) -> Drawn:
    """Write the likeliest classes on an image.

    Args:
        image: uint8 (3, H, W).
        probabilities: (C), in 0…1.
        names: of the classes.

    Example:
        >>> classes(torch.zeros(3, 64, 64, dtype=torch.uint8), torch.tensor([0.2, 0.8]), "ab").words
        'b 0.80, a 0.20'
    """
    best = probabilities.cpu().topk(min(TOP, len(names)))
    lines = [
        f"{names[label]} {p:.2f}"
        for p, label in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
    colours = [colour(int(label)) for label in best.indices]
    return Drawn(_captioned(enlarged(image), lines, colours), ", ".join(lines))


def detections(
    image: Tensor,
    found: Mapping[str, Tensor],
    seen: Sequence[int],
    names: Sequence[str],
    threshold: float,
    most: int | None = None,
) -> Drawn:
    """Draw the boxes, and masks where there are any, whose score reaches the threshold.

    Args:
        image: uint8 (3, H, W), the original.
        found: `boxes`, `scores`, `labels` and perhaps `masks`, in pixels of the image seen.
        seen: (height, width) of the image that the network saw, without padding.
        names: of the classes.
        threshold: least score.
        most: so many of them at most, the surest; None for all.

    Example:
        >>> found = {"boxes": torch.tensor([[4.0, 4, 20, 20]]), "scores": torch.tensor([0.9]),
        ...          "labels": torch.tensor([1])}
        >>> detections(torch.zeros(3, 64, 64, dtype=torch.uint8), found, (32, 32), "ab", 0.5).words
        'b 0.90'
    """
    canvas = enlarged(image)
    height, width = canvas.shape[-2:]
    scores = found["scores"].cpu()
    kept = (scores >= threshold).nonzero().flatten()
    kept = kept[scores[kept].argsort(descending=True, stable=True)][:most]
    scale = torch.tensor([width / seen[1], height / seen[0]]).repeat(2)
    boxes = found["boxes"].cpu()[kept] * scale
    labels = found["labels"].cpu()[kept].tolist()
    said = [
        f"{names[label]} {score:.2f}"
        for label, score in zip(labels, scores[kept].tolist(), strict=True)
    ]
    if said and "masks" in found:
        masks = found["masks"].cpu()[kept]
        masks = F.resize(masks.to(torch.uint8), [height, width], F.InterpolationMode.NEAREST)
        colours = [colour(label) for label in labels]
        canvas = draw_segmentation_masks(canvas, masks.bool(), alpha=0.5, colors=colours)
    return _boxed(canvas, boxes, labels, said)


def truth(image: Tensor, known: Mapping[str, Tensor], names: Sequence[str]) -> Drawn:
    """Draw what is known of an image: its class, objects, labels or figures.

    Args:
        image: uint8 (3, H, W).
        known: as `tasks.data.module.TaskData.example` returns it.
        names: of the classes.
    """
    if "boxes" in known:
        return objects(image, known["boxes"], known["labels"].tolist(), names)
    if "mask" in known:
        return labels(image, known["mask"], names)
    if "keypoints" in known:
        return poses(image, known["keypoints"], known["skeleton"].tolist())
    return named(image, int(known["label"]), names)


def named(image: Tensor, label: int, names: Sequence[str]) -> Drawn:
    """Write the class of an image on it.

    Example:
        >>> named(torch.zeros(3, 64, 64, dtype=torch.uint8), 1, "ab").words
        'b'
    """
    return Drawn(_captioned(enlarged(image), [names[label]], [colour(label)]), names[label])


def objects(image: Tensor, boxes: Tensor, labels: Sequence[int], names: Sequence[str]) -> Drawn:
    """Draw boxes with the names of their classes.

    Args:
        image: uint8 (3, H, W).
        boxes: (n, 4) as (x1, y1, x2, y2), in its pixels.
        labels: n of them.
        names: of the classes.

    Example:
        >>> image, boxes = torch.zeros(3, 64, 64, dtype=torch.uint8), torch.tensor([[4, 4, 20, 20]])
        >>> objects(image, boxes, [1], "ab").words
        'b'
    """
    canvas = enlarged(image)
    scale = canvas.shape[-1] / image.shape[-1]
    return _boxed(canvas, boxes * scale, labels, [names[label] for label in labels])


def _boxed(canvas: Tensor, boxes: Tensor, labels: Sequence[int], said: list[str]) -> Drawn:
    if not said:
        return Drawn(canvas, "nothing")
    colours = [colour(label) for label in labels]
    drawn = draw_bounding_boxes(
        canvas, boxes, said, list(colours), width=2, label_colors="white", fill_labels=True
    )
    return Drawn(drawn, ", ".join(said))


def figures(
    image: Tensor,
    found: Mapping[str, Tensor],
    seen: Sequence[int],
    skeleton: Sequence[tuple[int, int]],
    threshold: float,
    most: int | None = None,
) -> Drawn:
    """Draw the figures whose score reaches the threshold.

    Args:
        image: uint8 (3, H, W), the original.
        found: `keypoints` and `scores`, in pixels of the image seen, best first.
        seen: (height, width) of the image that the network saw, without padding.
        skeleton: pairs of key points, by place.
        threshold: least score.
        most: figures at most; None for all.

    Example:
        >>> found = {"keypoints": torch.ones(2, 1, 3), "scores": torch.tensor([0.9, 0.2])}
        >>> figures(torch.zeros(3, 64, 64, dtype=torch.uint8), found, (32, 32), [], 0.5).words
        'figure 0.90'
    """
    kept = found["scores"] >= threshold
    points, scores = found["keypoints"][kept][:most].clone(), found["scores"][kept][:most]
    scale = torch.tensor([image.shape[-1] / seen[1], image.shape[-2] / seen[0]])
    points[..., :2] = (points[..., :2] + 0.5) * scale - 0.5
    return poses(image, points, skeleton, scores.tolist())


def poses(
    image: Tensor,
    keypoints: Tensor,
    skeleton: Sequence[tuple[int, int]],
    scores: Sequence[float] | None = None,
) -> Drawn:
    """Draw the key points of figures, and the lines that join them, a colour a figure.

    Args:
        image: uint8 (3, H, W).
        keypoints: (n, K, 3): x, y in its pixels, and 0 where there is none.
        skeleton: pairs of key points, by place.
        scores: of the figures, where they are predicted.

    Example:
        >>> points = torch.tensor([[[4.0, 4, 2], [20, 20, 2]]])
        >>> poses(torch.zeros(3, 64, 64, dtype=torch.uint8), points, [(0, 1)], [0.9]).words
        'figure 0.90'
    """
    canvas = enlarged(image)
    scale = canvas.shape[-1] / image.shape[-1]
    points = (keypoints[..., :2].cpu() + 0.5) * scale - 0.5
    there = keypoints[..., 2].cpu() > 0
    if not len(points):
        return Drawn(canvas, "nothing")
    picture = F.to_pil_image(canvas)
    pen = ImageDraw.Draw(picture)
    for figure, (places, seen) in enumerate(zip(points.tolist(), there.tolist(), strict=True)):
        for a, b in skeleton:
            if seen[a] and seen[b]:
                pen.line([*places[a], *places[b]], fill=colour(figure), width=3)
        for (x, y), is_there in zip(places, seen, strict=True):
            if is_there:
                pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour(figure), outline="white")
    canvas = F.pil_to_tensor(picture)
    said = [f"figure {score:.2f}" for score in scores or ()] or ["figure"] * len(points)
    return Drawn(canvas, ", ".join(said))


def labels(image: Tensor, mask: Tensor, names: Sequence[str]) -> Drawn:
    """Colour every pixel by its label and name the classes that cover most of the image.

    Args:
        image: uint8 (3, H, W).
        mask: (H, W) labels; those without a name are ignored, and left as they are.
        names: of the classes.

    Example:
        >>> mask = torch.tensor([[0, 0], [0, 1]])
        >>> labels(torch.zeros(3, 2, 2, dtype=torch.uint8), mask, ["sky", "sea"]).words
        'sky 75 %, sea 25 %'
    """
    canvas = enlarged(image)
    there = mask.cpu().flatten().bincount()[: len(names)].nonzero().flatten().tolist()
    if not there:
        return Drawn(canvas, "nothing")
    shares = {label: float((mask == label).float().mean()) for label in there}
    order = sorted(there, key=lambda label: -shares[label])
    large = F.resize(
        mask.cpu()[None].to(torch.uint8), list(canvas.shape[-2:]), F.InterpolationMode.NEAREST
    )
    colours = [colour(label) for label in order]
    masks = torch.cat([large == label for label in order])
    canvas = draw_segmentation_masks(canvas, masks, alpha=0.55, colors=list(colours))
    lines = [f"{names[label]} {shares[label]:.0%}".replace("%", " %") for label in order]
    return Drawn(_captioned(canvas, lines[:TOP], colours[:TOP]), ", ".join(lines[:TOP]))


def enlarged(image: Tensor) -> Tensor:
    """Enlarge an image whose short side is below SHORTEST."""
    if min(image.shape[-2:]) >= SHORTEST:
        return image
    larger: Tensor = F.resize(image, SHORTEST, antialias=True)
    return larger


def _captioned(image: Tensor, lines: Sequence[str], colours: Sequence[Colour]) -> Tensor:
    """Write lines on grounds of their colours, from the top left."""
    places = torch.tensor([[2, 2 + LINE * i, 2 + LINE, LINE * (i + 1)] for i in range(len(lines))])
    written: Tensor = draw_bounding_boxes(
        image, places, list(lines), list(colours), label_colors="white", fill_labels=True
    )
    return written


def colour(label: int) -> Colour:
    """Return the colour of a class: hues by the golden section, dark enough for white words.

    Example:
        >>> colour(0) == colour(0) != colour(1)
        True
    """
    hue = label * 0.618034 % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, (0.75, 0.55)[label % 2])
    return round(255 * red), round(255 * green), round(255 * blue)
