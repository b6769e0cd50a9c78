"""Image classification: the module, its data, and the formats that it reads."""

from tasks.classification.data import ClassificationData
from tasks.classification.module import Classification

__all__ = ["Classification", "ClassificationData"]
