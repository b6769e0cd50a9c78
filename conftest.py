"""What several test files share: a suite small enough to run, and the command in a process."""

import io
import os
import runpy
import signal
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from bench.local import has_gpu

ROOT = Path(__file__).parent

if not has_gpu():  # before anything imports Triton
    os.environ["TRITON_INTERPRET"] = "1"

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


AT_ONCE = ("explain", "export", "list", "plan", "show", "site")


def here(arguments, status):
    """Run the command in this process; return what a finished process would be."""
    from bench.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    before = signal.getsignal(signal.SIGTERM)
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        patch.delenv("CONVBOARD_RUNS", raising=False)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(ROOT)
        with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
            try:
                main([str(argument) for argument in arguments])
            except SystemExit as end:
                code = end.code or 0
            finally:
                signal.signal(signal.SIGTERM, before)
    assert code == status, out.getvalue()[-3000:] + err.getvalue()[-3000:]
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def helper(name):
    """The names in a file of tests/commands."""
    return SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "commands" / f"{name}.py")))


@pytest.fixture(scope="session", autouse=True)
def tables(tmp_path_factory):
    """File of a new store, which those of this session copy where MLflow is in use."""
    path = tmp_path_factory.mktemp("tables") / "mlflow.db"
    if "mlflow" in sys.modules:
        helper("tables").make_once(path)
    return path


@pytest.fixture(scope="session")
def forked(tables):
    """Starts commands in processes of their own, forked off one that has imported for them all."""
    module = helper("forked")
    server, channel = module.started(tables)
    with channel:
        yield module.Commands(channel)
    server.wait()


@pytest.fixture(scope="session")
def convboard(cache, request):
    """Run the command; return the finished process.

    Verbs that train and time nothing run in this process, and so does what is refused before it
    does (`at_once`). Others have a process of their own, a fork that has no imports to wait for;
    `alone` starts it as a shell does. `more` is added to the environment.
    """

    def run(
        *arguments, folder=ROOT, status=0, path=(), wait=True, at_once=False, alone=False, **more
    ):
        at_once = at_once or arguments[0] in AT_ONCE
        if wait and not path and folder == ROOT and at_once and not more:
            return here(arguments, status)
        env = {**os.environ, "COLUMNS": "200"}
        env["PYTHONPATH"] = os.pathsep.join([*map(str, path), env.get("PYTHONPATH", "")])
        env.pop("CONVBOARD_RUNS", None)
        env.pop("MLFLOW_TRACKING_URI", None)
        env |= more
        words = [str(argument) for argument in arguments]
        if alone:
            command = [sys.executable, "-m", "bench.cli", *words]
            done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        else:
            asked = (words, str(folder), env, [str(part) for part in path])
            commands = request.getfixturevalue("forked")
            if not wait:
                return commands.start(*asked)
            done = commands.run(*asked)
        assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    return run
