"""What the names of key points tell: which is the mirror image of which, how exact each is."""

from __future__ import annotations

import re
from collections.abc import Sequence

OPPOSITE = {"left": "right", "l": "r"} | {"right": "left", "r": "l"}
USUAL_SIGMA = 0.05
"""Of a key point of which nothing is known: about the mean of COCO's."""
COCO_SIGMAS = {
    "nose": 0.026,
    "eye": 0.025,
    "ear": 0.035,
    "shoulder": 0.079,
    "elbow": 0.072,
    "wrist": 0.062,
    "hip": 0.107,
    "knee": 0.087,
    "ankle": 0.089,
}
"""Part of a person → how far annotators differ, as a share of the root of its area (COCO's)."""
_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+|[^A-Za-z0-9]+")


def _parts(name: str) -> list[str]:
    return _PART.findall(name)


def _opposite(name: str) -> tuple[str, ...]:
    return tuple(OPPOSITE.get(part.lower(), part.lower()) for part in _parts(name))


def mirrored(names: Sequence[str]) -> tuple[int, ...]:
    """Return for each key point the place of the one that it becomes in a mirror image.

    A word "left" or "right" (or a lone "l" or "r") in a name tells; without one, or without a
    partner, a key point stays itself.

    Example:
        >>> mirrored(["nose", "left_eye", "right_eye", "L-hip", "R-hip", "leftKnee", "left_only"])
        (0, 2, 1, 4, 3, 5, 6)
    """
    place = {tuple(part.lower() for part in _parts(name)): i for i, name in enumerate(names)}
    partners = [place.get(_opposite(name), i) for i, name in enumerate(names)]
    return tuple(p if partners[p] == i else i for i, p in enumerate(partners))


def tells_sides(names: Sequence[str]) -> bool:
    """Say whether any key point has a partner on the other side.

    Example:
        >>> tells_sides(["left_eye", "right_eye"]), tells_sides(["corner 1", "corner 2"])
        (True, False)
    """
    return mirrored(names) != tuple(range(len(names)))


def sigmas_of(names: Sequence[str]) -> tuple[float, ...]:
    """Return COCO's constants where the names are those of its persons; else the usual for all.

    Example:
        >>> sigmas_of(["nose", "left_eye"]), sigmas_of(["nose", "tail"])
        ((0.026, 0.025), (0.05, 0.05))
    """
    known = [COCO_SIGMAS.get(re.sub(r"^(left|right)_", "", name)) for name in names]
    if any(sigma is None for sigma in known):
        return (USUAL_SIGMA,) * len(names)
    return tuple(sigma for sigma in known if sigma is not None)
