"""Hosts: find the slots of any timm model, put an operator in, fuse it, count its cost."""

from bench.backbones import acnet, parcnet, shiftwise, unireplknet
from bench.backbones.build import build
from bench.backbones.cost import macs
from bench.backbones.slots import Slot, find_slots
from bench.backbones.swap import Mixed, SwapReport, fuse, swap, swap_report

__all__ = [
    "Mixed",
    "Slot",
    "SwapReport",
    "acnet",
    "build",
    "find_slots",
    "fuse",
    "macs",
    "parcnet",
    "shiftwise",
    "swap",
    "swap_report",
    "unireplknet",
]
