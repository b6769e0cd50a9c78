"""One run from its configuration: callbacks, loggers and clipping act, names reach the result."""

import csv

import pytest
import torch
from PIL import Image

from bench.config import files, lightning
from bench.config.plan import Choice, plan
from bench.run import fit
from tasks.sparsity import ShiftSparsity


def small(tiny, **trainer):
    """Return the configuration of a tiny cell, with more said of its trainer."""
    choice = Choice(operators=["shift"], only={"operator": ["shift"]})
    (cell,) = plan(str(tiny), choice)
    return lightning.resolve(files.merge(cell.config, {"trainer": trainer}))


def test_callbacks_loggers_and_clipping_of_a_configuration_act(tiny, tmp_path):
    sparsity = {"sparsity": 0.4, "rate": 0.5, "every_n_steps": 3}
    config = small(
        tiny,
        callbacks=[{"class_path": "tasks.ShiftSparsity", "init_args": sparsity}],
        logger=[
            {
                "class_path": "lightning.pytorch.loggers.CSVLogger",
                "init_args": {"save_dir": str(tmp_path), "name": "csv", "version": "first"},
            }
        ],
        gradient_clip_val=1e-12,
        log_every_n_steps=1,
    )
    fitted = fit.fit(config, tmp_path / "run")

    checkpoint = torch.load(tmp_path / "run" / fit.LAST, weights_only=True)
    masks = checkpoint["callbacks"][ShiftSparsity.__qualname__]["masks"]
    operators = dict(fitted.module.named_modules())
    assert masks
    for name, mask in masks.items():
        nonzero = operators[name].weight.detach().abs().sum((-2, -1)) > 0
        assert not (nonzero & ~mask).any()
    share = 1 - sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())
    assert share == pytest.approx(0.4, abs=0.05)
    assert fitted.curve["train/shift_sparsity"] == pytest.approx([share] * 2)

    with (tmp_path / "csv" / "first" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    logged = [float(row["val/top1"]) for row in rows if row["val/top1"]]
    assert logged == pytest.approx(fitted.curve["val/top1"], abs=1e-6)

    # A gradient of no length moves SGD's weights by nothing; AdamW would divide it away.
    still = files.merge(
        small(tiny, gradient_clip_val=1e-12),
        {"model": {"init_args": {"optimizer": "sgd", "weight_decay": 0.0, "ema_decay": None}}},
    )
    before = lightning.build(still).module.state_dict()
    after = fit.fit(still, tmp_path / "still").module.state_dict()
    weights = [name for name in before if name.endswith("weight")]
    assert all(torch.allclose(before[n], after[n], rtol=0, atol=1e-9) for n in weights)


def test_names_of_class_folders_reach_the_result(tiny, tmp_path):
    for split in ("train", "val"):
        for colour, name in enumerate(("ant", "bee", "cat")):
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            for index in range(8):
                Image.new("RGB", (32, 32), (100 * colour, 10 * index, 0)).save(
                    folder / f"{index}.png"
                )
    data = {"source": "folder", "root": str(tmp_path / "set"), "options": None}
    config = files.merge(small(tiny, max_epochs=1), {"data": {"init_args": data}})
    fitted = fit.fit(config, tmp_path / "run")
    assert set(fitted.per_class) == {"ant", "bee", "cat"}


def test_a_run_cut_off_behind_its_last_epoch_scores_the_average(tiny, tmp_path, monkeypatch):
    """All that is left to do is to score: the checkpoint's weights, which are the average."""
    config = files.merge(small(tiny), {"model": {"init_args": {"ema_decay": 0.5}}})
    whole = fit.fit(config, tmp_path / "run")
    again = fit.fit(config, tmp_path / "run")
    assert again.metrics == whole.metrics
    kept = torch.load(tmp_path / "run" / fit.LAST, weights_only=True)
    for name, value in again.module.state_dict().items():
        assert torch.equal(value, kept["state_dict"][name]), name
    raw = kept["current_model_state"]
    assert any(not torch.equal(raw[n], v) for n, v in kept["state_dict"].items() if n in raw)
