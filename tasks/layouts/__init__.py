"""Recognising a user's set of images by its files: one file a layout, quick, without torch."""

from tasks.layouts.layout import Layout
from tasks.layouts.recognition import recognise

__all__ = ["Layout", "recognise"]
