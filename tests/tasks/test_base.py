"""What the tasks share: optimiser, averaging, resumption, pairing."""

import copy
import json
import subprocess
import sys

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn

from bench.config import schema
from bench.run import fit as fitting
from bench.run import suite
from tasks.base import TaskModule
from tasks.classification.data import ClassificationData
from tasks.classification.module import Classification
from tasks.optimisation import parameter_groups, warmup_cosine
from tasks.seeds import derive, numpy_generator, seeded

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:The number of training batches",
    "ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated",
    "ignore:Be aware that when using `ckpt_path`",
    "ignore:Checkpoint directory .* exists and is not empty",
)


class Tiny(nn.Module):
    """A network with everything that makes resuming hard: batch norm, dropout, an integer table."""

    def __init__(self, draws=0):
        super().__init__()
        torch.rand(draws)
        with seeded(0, "tiny"):
            self.conv = nn.Conv2d(3, 8, 3, 4, 1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.3)
        self.register_buffer("table", torch.tensor([5, 3, 7]))
        self.head = nn.Linear(8, 2)

    def reset_classifier(self, num_classes):
        self.head = nn.Linear(8, num_classes)

    def forward(self, x):
        x = self.drop(self.norm(self.conv(x)).relu()).mean(dim=(2, 3))
        return self.head(x)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def data(cache, **changes):
    options = {"train": 40, "val": 21, "classes": 5}
    arguments = {"root": cache, "image_size": 32, "batch_size": 10, "options": options, "pad": 2}
    return ClassificationData("scenes", **(arguments | changes))


def task(draws=0, **changes):
    torch.manual_seed(draws)
    return Classification(Tiny(draws), 5, **({"lr": 0.01, "mixup": 0.4, "cutmix": 1.0} | changes))


def trainer(epochs, folder, **changes):
    arguments = {
        "max_epochs": epochs,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
        "enable_checkpointing": False,
    }
    return L.Trainer(**(arguments | changes))


def every_epoch(folder):
    return ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)


def fit(epochs, folder, cache, *, model=None, ckpt=None, callbacks=(), **changes):
    model = model or task(**changes)
    run = trainer(
        epochs, folder, callbacks=[every_epoch(folder), *callbacks], enable_checkpointing=True
    )
    run.fit(model, data(cache), ckpt_path=ckpt)
    return model, run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "adam"}, r"`optimizer` \(='adam'\) is not known; did you mean 'adamw'"),
        ({"lr": 0.0}, r"`lr` \(=0.0\) must be > 0"),
        ({"weight_decay": -0.1}, r"`weight_decay` \(=-0.1\) must be >= 0"),
        ({"momentum": 1.0}, r"`momentum` \(=1.0\) must be in \[0, 1\)"),
        ({"warmup_epochs": -1}, r"`warmup_epochs` \(=-1\) must be >= 0"),
        ({"ema_decay": 1.0}, r"`ema_decay` \(=1.0\) must be in \(0, 1\) or None"),
        ({"seed": -1}, r"`seed` \(=-1\) must be an integer >= 0"),
    ],
)
def test_arguments_out_of_range_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        task(**change)


def test_a_backbone_must_be_a_module():
    with pytest.raises(ValueError, match=r"`backbone` \(='resnet18'\) must be a torch.nn.Module"):
        Classification("resnet18", 5)


def test_norms_and_biases_are_not_decayed():
    module = nn.ModuleDict({"conv": nn.Conv2d(4, 4, 3, groups=4), "norm": nn.BatchNorm2d(4)})
    module.grn = nn.Parameter(torch.zeros(1, 1, 1, 4))
    module.frozen = nn.Parameter(torch.zeros(3, 3), requires_grad=False)
    decayed, plain = parameter_groups(module, 0.05)
    assert [p.shape for p in decayed["params"]] == [(4, 1, 3, 3)]
    assert sorted(tuple(p.shape) for p in plain["params"]) == [(1, 1, 1, 4), (4,), (4,), (4,)]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)


def test_the_schedule_rises_then_falls_to_nothing():
    factors = np.array([warmup_cosine(step, 100, 10) for step in range(101)])
    assert (np.diff(factors[:11]) > 0).all()
    assert factors[10] == 1
    assert (np.diff(factors[10:]) < 0).all()
    assert factors[100] == pytest.approx(0)
    assert factors[0] > 0


class LearningRates(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, *_):
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_the_learning_rate_follows_the_schedule_step_by_step(tmp_path, cache):
    rates = LearningRates()
    fit(3, tmp_path, cache, callbacks=[rates], warmup_epochs=0.5, optimizer="sgd")
    expected = [0.01 * warmup_cosine(step, 12, 2) for step in range(12)]
    assert rates.seen == pytest.approx(expected)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, cache, ema):
    whole, first = fit(4, tmp_path, cache, ema_decay=ema)
    half = tmp_path / "epoch=1.ckpt"
    torch.manual_seed(987)
    resumed, second = fit(4, tmp_path, cache, ckpt=half, ema_decay=ema, draws=7)
    for (name, one), other in zip(
        whole.state_dict().items(), resumed.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name
    assert first.callback_metrics.keys() == second.callback_metrics.keys()
    for name in ("val/top1", "val/nll", "train/loss_epoch"):
        assert torch.equal(first.callback_metrics[name], second.callback_metrics[name])
    assert np.array_equal(whole.outcomes()["predicted"], resumed.outcomes()["predicted"])


class Weights(Callback):
    """Average the weights beside the run, in plain Python."""

    def __init__(self, decay):
        self.decay = decay
        self.average = None
        self.current = None
        self.steps = 0

    def on_train_batch_end(self, trainer, module, *_):
        current = {name: value.clone() for name, value in module.state_dict().items()}
        if self.average is None:
            self.average = current
        else:
            d = min(self.decay, (1 + self.steps) / (10 + self.steps))
            for name, value in current.items():
                if value.is_floating_point():
                    self.average[name] = d * self.average[name] + (1 - d) * value
                else:
                    self.average[name] = value
        self.steps += 1
        self.current = current


def test_validation_and_checkpoints_use_the_average(tmp_path, cache):
    weights = Weights(0.8)
    model, run = fit(3, tmp_path, cache, callbacks=[weights], ema_decay=0.8)
    kept = torch.load(tmp_path / "epoch=2.ckpt", weights_only=True)
    moved = 0
    for name, value in weights.average.items():
        torch.testing.assert_close(kept["state_dict"][name], value)
        torch.testing.assert_close(model.state_dict()[name], value)
        moved += not torch.equal(value, weights.current[name])
    assert moved >= 4
    assert model.backbone.table.tolist() == [5, 3, 7]
    averaged = task(ema_decay=0.8)
    averaged.load_state_dict(weights.average)
    scores = trainer(1, tmp_path).validate(averaged, data(cache), verbose=False)[0]
    assert scores["val/nll"] == pytest.approx(float(run.callback_metrics["val/nll"]), abs=1e-5)


def test_a_checkpoint_can_be_scored_by_itself(tmp_path, cache):
    _, run = fit(2, tmp_path, cache, ema_decay=0.5)
    before = float(run.callback_metrics["val/nll"])
    checkpoint = str(tmp_path / "epoch=1.ckpt")
    model = task(ema_decay=0.5, draws=3)
    scores = trainer(1, tmp_path).validate(model, data(cache), ckpt_path=checkpoint, verbose=False)
    assert scores[0]["val/nll"] == pytest.approx(before)
    tested = trainer(1, tmp_path).test(model, data(cache), ckpt_path=checkpoint, verbose=False)
    assert tested[0] == {name.replace("val/", "test/"): v for name, v in scores[0].items()}


@pytest.mark.parametrize("ema", [None, 0.9])
def test_checkpoints_load_without_running_code(tmp_path, cache, ema):
    fit(1, tmp_path, cache, ema_decay=ema)
    checkpoint = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)
    model = task(draws=5)
    model.load_state_dict(checkpoint["state_dict"])
    assert "hyper_parameters" not in checkpoint


class Seen(Callback):
    """Keep a copy of every training batch."""

    def __init__(self):
        self.batches = []

    def on_train_batch_start(self, trainer, module, batch, index):
        self.batches.append(copy.deepcopy(batch))


def test_arms_start_alike_and_see_the_same_images(tmp_path, cache):
    seen = [Seen(), Seen()]
    heads = []
    for draws, callback in zip((0, 1000), seen, strict=True):
        model = task(draws=draws)
        heads.append(model.backbone.head.weight.detach().clone())
        fit(2, tmp_path / str(draws), cache, model=model, callbacks=[callback])
    assert torch.equal(*heads)
    assert len(seen[0].batches) == 8
    for (one, label), (other, label_too) in zip(seen[0].batches, seen[1].batches, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(label, label_too)
    assert not torch.equal(seen[0].batches[0][1], seen[0].batches[4][1])


def test_another_seed_is_another_head():
    weights = [task(seed=seed).backbone.head.weight for seed in (0, 1)]
    assert not torch.equal(*weights)


def test_channels_last_changes_the_layout_only():
    images = torch.rand(2, 3, 32, 32)
    plain, last = task(), task(channels_last=True)
    assert last.backbone.conv.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(plain.predict(images), last.predict(images))


@pytest.mark.slow
def test_a_compiled_backbone_trains_to_checkpoints_of_the_same_names(tmp_path, cache):
    model, run = fit(1, tmp_path, cache, compile=True, ema_decay=0.9)
    assert model.state_dict().keys() == task().state_dict().keys()
    assert float(run.callback_metrics["val/nll"]) > 0


def test_losses_are_logged_per_step_and_epoch(tmp_path, cache):
    _, run = fit(1, tmp_path, cache)
    assert {"train/loss_step", "train/loss_epoch", "val/top1", "val/ece", "val/nll"} <= set(
        run.callback_metrics
    )


TWO_PROCESSES = """
import json, sys
import lightning as L, numpy as np, torch
from bench.run import fit

if __name__ == "__main__":
    with open("config.json") as file:
        model, data = lightning.build(json.load(file))
    run = L.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, num_sanity_val_steps=0,
        logger=False, enable_progress_bar=False, enable_checkpointing=False,
        use_distributed_sampler=sys.argv[1] != "detection",  # it shares its images out itself
    )
    run.fit(model, data)
    samples = model.outcomes()
    if run.is_global_zero:
        np.savez("two.npz", **samples)
        torch.save(model.state_dict(), "two.pt")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classification", "detection", "segmentation"])
def test_two_processes_gather_the_outcomes_in_order(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CONVBOARD_CACHE", str(tmp_path / "cache"))
    board = schema.Board(
        task=f"scenes-{name}",
        hosts=["test_resnet"],
        operators=["acb"],
        baseline="acb",
        recipe=f"quick-{name}",
        set={"data": {"init_args": {"batch_size": 4, "options": {"train": 24, "val": 17}}}},
    )
    host, arm = schema.load_host("test_resnet"), schema.load_operator("acb")
    quick = schema.load_suite("quick")
    config = fitting.resolve(suite.compose(quick, board, host, arm, seed=0))
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "two.py").write_text(TWO_PROCESSES)
    subprocess.run([sys.executable, "two.py", name], cwd=tmp_path, check=True, timeout=300)
    model, data = fitting.instantiate(config)
    model.load_state_dict(torch.load(tmp_path / "two.pt", weights_only=True))
    trainer(1, tmp_path).validate(model, data, verbose=False)
    two = np.load(tmp_path / "two.npz")
    assert max(len(values) for values in two.values()) >= 17
    for key, values in model.outcomes().items():
        np.testing.assert_allclose(two[key], values, atol=1e-5)


def test_seeds_are_functions_of_their_key():
    assert derive(1, "a") != derive(1, "b")
    assert derive(1, 2) != derive(2, 1)
    assert derive(12) != derive(1, 2)
    before = torch.random.get_rng_state()
    with seeded(3):
        torch.rand(5)
    assert torch.equal(before, torch.random.get_rng_state())
    values = [numpy_generator(i).random() for i in range(200)]
    assert len(set(values)) == 200
    assert abs(np.mean(values) - 0.5) < 0.1


def test_a_task_must_say_how_it_is_scored():
    class Half(TaskModule):
        def loss(self, batch):
            return {}

    with pytest.raises(TypeError, match="abstract"):
        Half(Tiny())
