"""The classification, detection and segmentation tasks.

The classes are imported when they are first asked for, so that `import tasks` is cheap and
classification never waits for the packages of detection.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.classification import Classification, ClassificationData
    from tasks.detection import Detection, DetectionData
    from tasks.segmentation import Segmentation, SegmentationData

__all__ = [
    "Classification",
    "ClassificationData",
    "Detection",
    "DetectionData",
    "Segmentation",
    "SegmentationData",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"tasks.{name.removesuffix('Data').lower()}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
