"""The MLflow store: where runs are kept, found again and exported as records.

`Store` is loaded when it is first used: MLflow takes seconds to import, and planning does without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.store.embedded import server
from bench.store.errors import StoreError
from bench.store.kept import (
    CELL,
    CHECKPOINT,
    CLASSES,
    CODE,
    DATA,
    DONE,
    STUDIES,
    Kept,
    default_folder,
)

if TYPE_CHECKING:
    from bench.store.mlflow_store import Store

__all__ = [
    "CELL",
    "CHECKPOINT",
    "CLASSES",
    "CODE",
    "DATA",
    "DONE",
    "STUDIES",
    "Kept",
    "Store",
    "StoreError",
    "default_folder",
    "server",
]


def __getattr__(name: str) -> Any:
    if name != "Store":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bench.store.mlflow_store import Store

    return Store
