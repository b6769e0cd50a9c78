"""What stands in the place of mmcv's compiled part, and which packages fit each other."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from packaging.version import Version

from tasks.openmm import boxes, convolutions, losses

# Package, distributions that provide it, lowest version, first version that is refused.
SUPPORTED = (
    ("mmengine", ("mmengine",), "0.7.1", "1.0.0"),
    ("mmcv", ("mmcv", "mmcv-lite"), "2.0.0rc4", "2.2.0"),
    ("mmdet", ("mmdet",), "3.3.0", "4.0.0"),
    ("mmseg", ("mmsegmentation",), "1.2.0", "2.0.0"),
)


def check_versions() -> None:
    """ImportError, naming every package that mmdet or mmseg would refuse or that is missing."""
    wrong = []
    for package, distributions, low, high in SUPPORTED:
        installed = None
        for distribution in distributions:
            try:
                installed = version(distribution)
                break
            except PackageNotFoundError:
                continue
        if installed is None:
            wrong.append(f"{package} is not installed (`pip install {distributions[-1]}`)")
        elif not Version(low) <= Version(installed) < Version(high):
            wrong.append(f"{package} {installed} is not at least {low} and below {high}")
    if wrong:
        raise ImportError(
            "detection and segmentation need OpenMMLab packages that fit each other: "
            + "; ".join(wrong)
            + ". `pip install mmdet==3.3.0 mmsegmentation==1.2.2 mmengine==0.10.7 "
            "mmcv-lite==2.1.0` fits."
        )


class _Answers(types.ModuleType):
    """`mmcv._ext` made of our answers; every other name is a function that refuses."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        for module in (boxes, convolutions, losses):
            if hasattr(module, name):
                return getattr(module, name)
        return boxes.missing(name)


def answer_compiled_calls() -> bool:
    """Put our answers in the place of `mmcv._ext`; return False where mmcv is compiled."""
    name = "mmcv._ext"
    if name in sys.modules:
        return isinstance(sys.modules[name], _Answers)
    if importlib.util.find_spec(name) is not None:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(
                f"the compiled part of mmcv does not load with torch {torch.__version__} "
                f"({error}); install mmcv-lite in its place, or compile mmcv for this torch."
            ) from error
        return False
    module = _Answers(name)
    module.__spec__ = ModuleSpec(name, None)
    sys.modules[name] = module
    return True
