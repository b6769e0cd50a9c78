"""What every process of a suite imports: done once, by the server that they are forked off."""

import importlib
import os
from contextlib import suppress

import torch  # noqa: F401

import bench.backbones
import bench.run.fit
import bench.run.suite
import bench.store.logger
import bench.store.mlflow_store
import tasks.classification
from bench.run import same_code
from bench.run.processes import TASKS

for path in os.environ.pop(TASKS, "").split(","):
    package, _, name = path.rpartition(".")
    if package == tasks.__name__:  # and no one else's code, which would need somebody's trust
        with suppress(Exception):  # what is not there is told where it is wanted
            for module in getattr(tasks, name).built_with:
                importlib.import_module(module)
bench.store.mlflow_store.import_tables()
same_code.note()
