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
        """Log the metrics of a step, patiently."""
        self._patience.call(super().log_metrics, metrics, step)

    @rank_zero_only
    def log_hyperparams(self, *arguments: Any, **more: Any) -> None:
        """Parameters stand in the run already."""

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Leave the run as it is."""
