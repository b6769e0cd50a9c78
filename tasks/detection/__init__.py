"""Object detection: the module, its heads and scores, its data, and the formats that it reads."""

from tasks.detection.data import DetectionData
from tasks.detection.module import Detection

__all__ = ["Detection", "DetectionData"]
