"""The classification, detection, segmentation and pose tasks.

The classes are imported when they are first asked for, so that `import tasks` is cheap and
classification never waits for the packages of detection.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.classification import Classification, ClassificationData
    from tasks.detection import Detection, DetectionData
    from tasks.pose import Pose, PoseData
    from tasks.segmentation import Segmentation, SegmentationData
    from tasks.sparsity import ShiftSparsity

__all__ = [
    "Classification",
    "ClassificationData",
    "Detection",
    "DetectionData",
    "Pose",
    "PoseData",
    "Segmentation",
    "SegmentationData",
    "ShiftSparsity",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "sparsity" if name == "ShiftSparsity" else name.removesuffix("Data").lower()
    return getattr(importlib.import_module(f"tasks.{module}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
