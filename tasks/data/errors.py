"""The error of data that cannot be trained on."""

from __future__ import annotations


class DataError(ValueError):
    """The data is not there, or not what its format says; raised before training starts."""
