"""Convolution operators as drop-ins for one convolution; needs nothing but torch."""

from bench.operators.base import ConvSpec, Operator
from bench.operators.registry import create, get, names, options, register

__all__ = ["ConvSpec", "Operator", "create", "get", "names", "options", "register"]
