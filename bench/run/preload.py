"""What every process of a suite imports: done once, by the server that they are forked off."""

import torch  # noqa: F401

import bench.backbones
import bench.run.fit
import bench.run.suite
import bench.store.logger  # noqa: F401
import tasks.classification  # noqa: F401
