"""The classification, detection and segmentation tasks."""
