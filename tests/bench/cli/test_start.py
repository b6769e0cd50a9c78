"""What the command imports for what: packages that take seconds come when they are needed."""

import subprocess
import sys

import pytest

from bench.config.plan import plan
from bench.run.fits import unfit

HEAVY = ("torch", "lightning", "mlflow", "timm", "jsonargparse", "sqlalchemy", "scipy")
TOLD = """
import sys
from bench.cli.main import main
try:
    main()
except SystemExit as end:
    status = end.code or 0
else:
    status = 0
print("imported:", *[name for name in {heavy} if name in sys.modules], "status:", status)
"""


def imported(*arguments):
    """Run the command in a process of its own; return what it printed last."""
    done = subprocess.run(
        [sys.executable, "-c", TOLD.format(heavy=HEAVY), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--version"], 0),
        ([], 2),
        (["list", "operators"], 0),
        (["list", "topics"], 0),
        (["plann"], 2),
        (["explain", "parcc"], 2),
        (["plan", "quik"], 2),
        (["run", "quick", "--only", "operator=acbb"], 2),
        (["plan", "quick", "--operators", "parcc"], 2),
        (["show", "nope", "--runs", "nowhere"], 2),
        (["predict", "nope", "photo.jpg", "--out", "drawn", "--runs", "nowhere"], 2),
        (["export-model", "nope", "--runs", "nowhere"], 2),
    ],
)
def test_what_only_tells_imports_nothing_heavy(arguments, status):
    assert imported(*arguments) == f"imported: status: {status}"


def test_planning_again_imports_nothing_heavy(tiny, tmp_path):
    unfit(plan(str(tiny)))  # what is resolved and built is remembered for this code
    assert imported("plan", tiny, "--runs", tmp_path) == "imported: status: 0"
