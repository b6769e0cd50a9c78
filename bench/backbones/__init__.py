"""Hosts: find the slots of any timm model, put an operator in, fuse it, count its cost.

Importing this package registers the networks of the papers with timm: one file a family, found
in this folder.
"""

import importlib
import pkgutil

try:
    import safetensors  # noqa: F401
    import timm  # noqa: F401
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"bench.backbones: {missing}; pip install 'convboard[backbones]'", name=missing.name
    ) from None

from bench.backbones.build import build
from bench.backbones.change import Mixed
from bench.backbones.cost import macs
from bench.backbones.fuse import fuse
from bench.backbones.networks import Network, networks
from bench.backbones.saved import load, save
from bench.backbones.slots import Slot, find_slots
from bench.backbones.swap import SwapReport, swap, swap_report

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "Mixed",
    "Network",
    "Slot",
    "SwapReport",
    "build",
    "find_slots",
    "fuse",
    "load",
    "macs",
    "networks",
    "save",
    "swap",
    "swap_report",
]
