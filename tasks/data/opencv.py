"""OpenCV, imported here and nowhere else in tasks; where it cannot be, what to do about it.

mmengine and mmcv-lite ask for `opencv-python`, whose windows need libGL, beside the headless one
that is asked for here. Both write into one folder `cv2`, and the one that is installed last stays.
uv leaves the first out (pyproject.toml has an override); pip cannot, whatever a package says.
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
