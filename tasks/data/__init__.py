"""Where the images come from: generated, in class folders, in packages."""

from __future__ import annotations

from bench.errors import DataError
from tasks.data.locations import cache_folder
from tasks.data.paths import paths
from tasks.data.scenes import scenes

__all__ = ["DataError", "cache_folder", "paths", "scenes"]
