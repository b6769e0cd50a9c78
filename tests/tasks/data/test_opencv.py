"""An OpenCV that does not load, as without libGL, is one line that says what to do."""

import os
import subprocess
import sys

import pytest


@pytest.fixture
def without_libgl(tmp_path):
    """An environment in which `import cv2` fails as it does on a machine without libGL."""
    (tmp_path / "cv2.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file: No such file')\n"
    )
    return {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


@pytest.mark.parametrize("module", ["tasks.data.photos", "tasks.openmm.packages"])
def test_the_message_names_cause_and_cure(without_libgl, module):
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"],
        env=without_libgl,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("bench.errors.UserError: `cv2` cannot be imported (libGL.so.1")
    assert "pip install opencv-python-headless" in last


@pytest.mark.slow
def test_the_command_says_so_in_one_line(without_libgl, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", "plan", "quick", "--runs", str(tmp_path / "runs")],
        env=without_libgl,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "`cv2` cannot be imported (libGL.so.1" in done.stderr
