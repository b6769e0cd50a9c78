"""MLflow's server with one page more, by which its UI opens on runs of training.

MLflow's UI has two halves, GenAI and model training, and shows the former wherever an address does
not name the latter: a run that is opened from its experiment stands among evaluations of language
models. Which half is wanted, a browser keeps for itself, and so it is said there. MLflow finds this
module by its entry point (group `mlflow.app`).
"""

from __future__ import annotations

import json

from mlflow.server import app as pages
from mlflow.server.fastapi_app import app

__all__ = ["START", "app"]

START = "/convboard"
KEPT = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
}
"""What MLflow's UI keeps in a browser: the half that is shown, and that its assistant, which takes
a quarter of the window, was opened once."""
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>ConvBoard</title>
<script>
for (const [key, value] of {kept}) {{
  if (localStorage.getItem(key) === null) localStorage.setItem(key, value);
}}
location.replace("./" + location.hash);
</script></html>
"""


def start() -> str:
    """Return the page that says what is wanted, where nothing was chosen yet, and goes on."""
    return PAGE.format(kept=json.dumps([*KEPT.items()]))


pages.add_url_rule(START, view_func=start)
