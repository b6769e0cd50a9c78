"""mmengine, mmcv, mmdet and mmseg, imported here and nowhere else: from wheels, nothing compiled.

Where mmcv's compiled part `mmcv._ext` is not installed (mmcv-lite), our answers in `boxes`,
`convolutions` and `losses` take its calls; a compiled mmcv is used where there is one. What the
packages get wrong on a current Python and torch is worked around: their warnings, their version
checks (asserts become one message), SyncBN (a model built here trains on a CPU; Lightning's
`sync_batchnorm` is for several GPUs), and pre-trained weights, which their configs would download.

Without a compiled mmcv these do not work, as torchvision and torch have nothing like them, and a
`CompiledOpError` says so when they are first called: CARAFE upsampling (mmdet's configs/carafe),
deformable RoI pooling (configs/dcn and dcnv2, *pool*), the masks of PSANet (mmseg's
configs/psanet), RoIAlign with maxima, and operations on rotated boxes, polygons and points.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import tasks.data.opencv  # noqa: F401  (mmcv imports it: a fault is told before)
from tasks.openmm.extension import answer_compiled_calls, check_versions

Library = Literal["mmdet", "mmseg"]


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out the warnings that OpenMMLab's own code causes on a current torch."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"mm(engine|cv|det|seg)\b")
        # torch blames itself for how mmdet's point generator calls it.
        warnings.filterwarnings("ignore", message="torch.meshgrid")
        yield


check_versions()
with warnings.catch_warnings():
    # Deprecation and syntax warnings of packages that are no longer maintained.
    warnings.simplefilter("ignore")
    WITHOUT_COMPILED = answer_compiled_calls()
    import mmdet.models
    import mmengine.config
    import mmengine.logging
    import mmengine.registry
    import mmengine.structures
    import mmseg.models
    import mmseg.structures
    from mmdet.registry import MODELS as DETECTORS
    from mmdet.registry import TASK_UTILS as DETECTION_PARTS
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData
    from mmseg.registry import MODELS as SEGMENTORS

__all__ = [
    "DETECTION_PARTS",
    "DETECTORS",
    "SEGMENTORS",
    "WITHOUT_COMPILED",
    "BitmapMasks",
    "DetDataSample",
    "InstanceData",
    "Library",
    "mmdet",
    "mmengine",
    "mmseg",
    "quiet",
]

# Building a model logs a line for each of its parameters otherwise.
mmengine.logging.MMLogger.get_current_instance().setLevel("WARNING")
