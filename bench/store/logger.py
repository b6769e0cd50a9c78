"""Lightning's MLflow logger, by the rules of the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

if TYPE_CHECKING:
    from bench.store.mlflow_store import Store


class PatientLogger(MLFlowLogger):
    """Logs metrics into a run; a store that is away for a while costs time, not the training.

    It does not end the run when training ends: scores, record and checkpoint are still to come.
    """

    def __init__(self, store: Store, experiment: str, run_id: str) -> None:
        super().__init__(experiment_name=experiment, tracking_uri=store.uri, run_id=run_id)
        self._patience = store.patience

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the metrics of a step, patiently.

        What Lightning logs by step and by epoch is told apart by the group of its chart.
        """
        self._patience.call(super().log_metrics, renamed(metrics), step)

    @rank_zero_only
    def log_hyperparams(self, *arguments: Any, **more: Any) -> None:
        """Parameters stand in the run already."""

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Leave the run as it is."""


def renamed(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics by the names that MLflow has of them.

    Example:
        >>> renamed({"train/loss_epoch": 1.0, "train/loss_step": 2.0, "val/top1": 0.5})
        {'train/loss': 1.0, 'step/train/loss': 2.0, 'val/top1': 0.5}
    """
    names = {}
    for name, value in metrics.items():
        if name.endswith("_step"):
            names[f"step/{name.removesuffix('_step')}"] = value
        else:
            names[name.removesuffix("_epoch")] = value
    return names
