"""Pose estimation, bottom-up: the module, its head, grouping and scores, and its data."""

from tasks.pose.data import PoseData
from tasks.pose.module import Pose

__all__ = ["Pose", "PoseData"]
