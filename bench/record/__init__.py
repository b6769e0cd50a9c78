"""The record: one result as one JSON file, the only thing that the leaderboard reads.

A record is the result of a cell (`kind: accuracy`), of one arm of a speed run (`kind: speed`), what
a cell's network sees (`kind: view`), why an arm got no more seeds (`kind: decision`), or how it was
tuned (`kind: study`). Other files lie beside it, named in it with their hashes. Units stand in the
field names; what is missing is None, never imputed; failures are records too.
"""

from bench.record.decision import Decision
from bench.record.parts import (
    SETTLED,
    Accuracy,
    Cost,
    Data,
    Entry,
    Interval,
    Machine,
    Metric,
    Outcomes,
    Provenance,
    Recipe,
    Status,
)
from bench.record.record import SCHEMA_VERSION, Record, json_schema, load_all
from bench.record.speed import Conditions, GpuState, Memory, Speed
from bench.record.study import Objective, Study, Trial
from bench.record.view import FieldArea, Picture, View

__all__ = [
    "SCHEMA_VERSION",
    "SETTLED",
    "Accuracy",
    "Conditions",
    "Cost",
    "Data",
    "Decision",
    "Entry",
    "FieldArea",
    "GpuState",
    "Interval",
    "Machine",
    "Memory",
    "Metric",
    "Objective",
    "Outcomes",
    "Picture",
    "Provenance",
    "Recipe",
    "Record",
    "Speed",
    "Status",
    "Study",
    "Trial",
    "View",
    "json_schema",
    "load_all",
]
