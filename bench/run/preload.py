"""What every process of a suite imports: done once, by the server that they are forked off."""

import torch  # noqa: F401

import bench.backbones
import bench.run.fit
import bench.run.suite
import bench.store.logger
import bench.store.mlflow_store
import tasks.classification  # noqa: F401
from bench.run import same_code

bench.store.mlflow_store.import_tables()
same_code.note()
