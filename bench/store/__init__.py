"""The MLflow store: where runs are kept, found again, and exported as records."""

from bench.store.errors import StoreError
from bench.store.mlflow_store import (
    CELL,
    CHECKPOINT,
    CLASSES,
    CODE,
    DONE,
    Kept,
    Store,
    default_folder,
)

__all__ = [
    "CELL",
    "CHECKPOINT",
    "CLASSES",
    "CODE",
    "DONE",
    "Kept",
    "Store",
    "StoreError",
    "default_folder",
]
