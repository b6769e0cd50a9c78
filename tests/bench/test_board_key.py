"""What arms share of a configuration, compared with a slow reference on published records."""

from pathlib import Path

import pytest

from bench.board_key import ARM, IRRELEVANT, shared
from bench.record import load_all

RESULTS = Path(__file__).parents[2] / "leaderboard" / "results"
BACKBONE = "model.init_args.backbone.init_args"


def leaves(value, path=()):
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path, value


def reference(config, untuned):
    """Every leaf, without those that lie in a part that is left out, or are one."""
    left_out = [*IRRELEVANT, *(f"{BACKBONE}.{name}" for name in ARM)]
    flat = {".".join(path): value for path, value in leaves(config)} | untuned
    return {
        name: value
        for name, value in flat.items()
        if value is not None and not any(f"{name}.".startswith(f"{part}.") for part in left_out)
    }


@pytest.mark.parametrize(
    "untuned",
    [
        {},
        {"model.init_args.lr": 0.5, "model.init_args.weight_decay": None, "model.more": 1},
        {f"{BACKBONE}.options.paths": 3, f"{BACKBONE}.mix": "pointwise", f"{BACKBONE}.mixed": 1},
    ],
)
def test_shared_is_what_no_arm_and_no_seed_changes(untuned):
    configs = [record.recipe.config for record in load_all(RESULTS) if record.recipe]
    assert len(configs) > 50
    for config in configs:
        assert shared(config, untuned) == reference(config, untuned)
