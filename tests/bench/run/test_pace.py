"""How long an epoch takes is known by a few of its steps, and by no more than these."""

import torch

from bench.config.plan import plan
from bench.run.pace import STEPS, epoch_seconds
from tasks import Classification


def test_an_epoch_is_reckoned_from_a_few_batches(tiny, monkeypatch):
    config = plan(str(tiny))[0].config
    clock, seen = [0.0], {"trained": 0, "scored": 0}

    def loss(self, batch):
        seen["trained"] += 1
        clock[0] += 9.0 if seen["trained"] == 1 else 1.0
        return {"loss": sum(p.sum() for p in self.parameters()) * torch.zeros(())}

    def score(self, batch):
        seen["scored"] += 1
        clock[0] += 0.5

    monkeypatch.setattr(Classification, "loss", loss)
    monkeypatch.setattr(Classification, "score", score)
    monkeypatch.setattr(Classification, "scores", lambda self: {"top1": 0.5})
    monkeypatch.setattr("bench.run.pace._now", lambda: clock[0])
    # 64 images to train on and 24 to score, in batches of 16
    assert epoch_seconds(config) == 4 * 1.0 + 2 * 0.5
    assert seen["trained"] == STEPS
    assert seen["scored"] == 2
