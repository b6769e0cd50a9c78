"""Installed anywhere: the wheel in a fresh environment, used from an empty folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command, folder, env=None):
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out, folder=ROOT)
    (path,) = out.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_code_configs_and_templates_only(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for kept in (ROOT / "configs").rglob("*.yaml"):
        assert f"bench/configs/{kept.relative_to(ROOT / 'configs').as_posix()}" in names
    folders = [ROOT / "leaderboard" / name for name in ("templates", "guide", "operators")]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix != ".pyc"]
    for kept in (*filter(Path.is_file, files), ROOT / "leaderboard/schema-1.json"):
        assert kept.relative_to(ROOT).as_posix() in names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "bench",
        "tasks",
        "leaderboard",
    }


def installed(folder, *requirements):
    """Make an environment; dependencies come from uv's cache, which `nox -s tests` has filled."""
    uv = [sys.executable, "-m", "uv"]
    overrides = folder / "overrides.txt"
    overrides.write_text("opencv-python ; sys_platform == 'never'\n")
    run(*uv, "venv", "--python", sys.executable, folder / "venv", folder=folder)
    python = folder / "venv" / "bin" / "python"
    run(
        *(*uv, "pip", "install", "--offline", "--python", python),
        *("--constraints", ROOT / "constraints.txt", "--overrides", overrides, *requirements),
        folder=folder,
    )
    return python


@pytest.fixture
def empty(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


@pytest.fixture
def env(cache):
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "CONVBOARD", "MLFLOW"))
    }
    return kept | {"CONVBOARD_CACHE": str(cache), "COLUMNS": "200"}


@pytest.mark.slow
def test_operators_need_torch_alone_and_the_rest_says_what_it_needs(wheel, tmp_path, empty, env):
    python = installed(tmp_path, f"{wheel}[operators]")
    code = (
        "import torch; from bench import operators\n"
        "for name in operators.names():\n"
        "    op = operators.create(name, in_channels=8, out_channels=8, kernel_size=7,\n"
        "        resolution=14, **({'small_kernel': 3} if name == 'slak' else {})).eval()\n"
        "    print(name, tuple(op.fuse()(torch.zeros(1, 8, 14, 14)).shape))\n"
    )
    lines = run(python, "-W", "error", "-c", code, folder=empty, env=env).splitlines()
    assert "parc (1, 8, 14, 14)" in lines
    for extra, command in (
        ("bench", ["-m", "bench.cli", "plan", "quick"]),
        ("backbones", ["-c", "import bench.backbones"]),
    ):
        done = subprocess.run(
            [python, *command], cwd=empty, env=env, capture_output=True, text=True
        )
        assert done.returncode in (1, 2)
        assert f"pip install 'convboard[{extra}]'" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_it_works_from_an_empty_folder(wheel, tmp_path, empty, env):
    python = installed(tmp_path, f"{wheel}[bench]", "opencv-python-headless")
    convboard = tmp_path / "venv" / "bin" / "convboard"
    small = [
        *("--only", "operator=dwconv", "--only", "seed=0", "--only", "task=scenes-classification"),
        *("--set", "data.init_args.options={train: 60, val: 30}"),
        *("--set", "data.init_args.image_size=32", "--set", "trainer.max_epochs=1"),
    ]
    out = run(convboard, "run", "quick", *small, folder=empty, env=env)
    assert "top1" in out
    plan = run(convboard, "plan", "quick", *small, folder=empty, env=env)
    assert "dwconv (baseline)" in plan
    assert "0 to run" in plan
    run(convboard, "export", folder=empty, env=env)
    run(convboard, "site", folder=empty, env=env)
    assert (empty / "site" / "index.html").is_file()
    where = run(python, "-c", "import bench; print(bench.__file__)", folder=empty, env=env)
    assert str(tmp_path) in where
