"""What several test files share: a suite small enough to run, and the command in a process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent

TINY = {
    "description": "a suite that runs in seconds",
    "seeds": [0],
    "boards": [
        {
            "task": "scenes-classification",
            "hosts": ["test_convnext"],
            "operators": ["dwconv", "acb"],
            "baseline": "dwconv",
            "where": {"kernel_size": 7},
            "recipe": "quick-classification",
            "set": {
                "data": {
                    "init_args": {
                        "image_size": 32,
                        "batch_size": 16,
                        "options": {"train": 64, "val": 24, "classes": 3},
                    }
                },
                "trainer": {"max_epochs": 2, "check_val_every_n_epoch": 1},
            },
        }
    ],
    "speed": {
        "scopes": {"backbone": [1], "end_to_end": [1]},
        "processes": 2,
        "rounds": 3,
        "min_block_ms": 1,
        "warmup_cap_ms": 50,
    },
    "timeout_minutes": 10,
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Path of a suite of two cells."""
    path = tmp_path_factory.mktemp("suite") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Folder of generated data, in place of the user's, for this process and those it starts."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVBOARD_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def convboard(cache):
    """Run the command in a process of its own; return the finished process."""

    def run(*arguments, folder=ROOT, status=0, path=(), wait=True):
        env = {**os.environ, "COLUMNS": "200"}
        env["PYTHONPATH"] = os.pathsep.join([*map(str, path), env.get("PYTHONPATH", "")])
        env.pop("CONVBOARD_RUNS", None)
        env.pop("MLFLOW_TRACKING_URI", None)
        command = [sys.executable, "-m", "bench.cli", *map(str, arguments)]
        if not wait:
            # a shell starts jobs in the background with Ctrl-C ignored, and that is inherited
            return subprocess.Popen(
                command,
                cwd=folder,
                env=env,
                stdout=subprocess.DEVNULL,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    return run
