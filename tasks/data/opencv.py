"""OpenCV, imported here and nowhere else in tasks; where it cannot be, what to do about it.

Which OpenCV is there is the installer's: `opencv-python`, as mmengine and mmcv-lite ask for it,
whose windows need libGL, or `opencv-python-headless` in its place, as this project's sessions have
it. Both write into one folder `cv2`, so never both: removing one breaks the other.
"""

from __future__ import annotations

from bench.errors import UserError

try:
    import cv2
except ImportError as error:
    raise UserError(
        f"`cv2` cannot be imported ({error}): `pip uninstall -y opencv-python "
        "opencv-python-headless`, then `pip install opencv-python-headless`."
    ) from error

__all__ = ["cv2"]
