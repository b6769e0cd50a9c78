"""What a run refuses before it is built."""

import pytest

from bench.config import files, lightning
from bench.config.plan import plan
from bench.errors import UserError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed_everything": -1}, r"`seed_everything` \(=-1\) must be from 0 to 4294967295"),
        ({"seed_everything": 1 << 32}, r"`seed_everything` \(=4294967296\) must be from 0 to"),
        ({"trainer": {"fast_dev_run": True}}, r"`trainer.fast_dev_run` \(=True\) must be False"),
        ({"trainer": {"fast_dev_run": 3}}, r"`trainer.fast_dev_run` \(=3\) must be False"),
    ],
)
def test_what_no_run_can_be_is_told_by_its_name(changes, message, tiny):
    config = files.merge(plan(str(tiny))[0].config, changes)
    with pytest.raises(UserError, match=message):
        lightning.build(config)
