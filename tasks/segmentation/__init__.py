"""Semantic segmentation: the module, its heads and scores, its data, and the formats it reads."""

from tasks.segmentation.data import SegmentationData
from tasks.segmentation.module import Segmentation

__all__ = ["Segmentation", "SegmentationData"]
