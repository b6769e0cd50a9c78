"""Where the images come from: generated, in class folders, in packages."""

from __future__ import annotations

from tasks.data.common import cache_folder
from tasks.data.errors import DataError
from tasks.data.paths import paths
from tasks.data.scenes import scenes

__all__ = ["DataError", "cache_folder", "paths", "scenes"]
