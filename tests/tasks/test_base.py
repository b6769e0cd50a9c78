"""What the tasks share: optimiser, averaging, resumption, pairing."""

import copy
import inspect
import json
import os
import re
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from torch import nn

import tasks
from bench import backbones
from bench.config import files, lightning, schema
from bench.config.plan import base, compose
from bench.errors import UserError
from tasks.averaging import Averaging
from tasks.base import TaskModule
from tasks.classification.data import ClassificationData
from tasks.classification.module import Classification
from tasks.data.module import TaskData
from tasks.data.order import share_of
from tasks.optimisation import can_fuse, parameter_groups
from tasks.schedule import Schedule
from tasks.seeds import derive, numpy_generator, seeded
from tasks.sparsity import ShiftSparsity

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
    factors = np.array([Schedule(warmup_epochs=1).factor(step, 100, 10) for step in range(101)])
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
    expected = [0.01 * Schedule(warmup_epochs=0.5).factor(step, 12, 3) for step in range(12)]
    assert rates.seen == pytest.approx(expected)


@pytest.mark.parametrize(
    ("length", "steps", "epochs"),
    [
        ({"max_epochs": None, "max_steps": 12}, 12, 3),
        ({"max_epochs": -1, "max_steps": 12}, 12, 3),
        ({"max_epochs": 10, "max_steps": 6}, 6, 1.5),
        ({"max_epochs": 3, "accumulate_grad_batches": 3}, 6, 3),
    ],
)
def test_warm_up_takes_its_epochs_whatever_says_how_long_training_is(
    length, steps, epochs, tmp_path, cache
):
    rates = LearningRates()
    run = trainer(3, tmp_path, callbacks=[rates], **length)
    run.fit(task(warmup_epochs=1, optimizer="sgd"), data(cache))
    each = length.get("accumulate_grad_batches", 1)
    seen = [rate for batch, rate in enumerate(rates.seen) if batch % 4 % each == 0]
    schedule = Schedule(warmup_epochs=1)
    assert seen == pytest.approx([0.01 * schedule.factor(s, steps, epochs) for s in range(steps)])


def test_a_length_without_a_last_step_is_refused(tmp_path, cache):
    run = trainer(-1, tmp_path, max_time={"minutes": 1})
    with pytest.raises(UserError, match=r"`trainer.max_epochs` \(=-1\) or `trainer.max_steps`"):
        run.fit(task(), data(cache))


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


def precision_plugin(name):
    """Half precision with a gradient scaler, as a GPU trains with it, runs on a CPU too."""
    if name == "16-mixed":
        return {"plugins": [MixedPrecision(name, "cpu", torch.amp.GradScaler("cpu"))]}
    return {"precision": name}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_gradients_are_clipped_under_every_precision(tmp_path, cache, optimizer, precision, clip):
    class Norms(Callback):
        def __init__(self):
            self.norms = []

        def on_before_zero_grad(self, trainer, module, optimizer):
            grads = [p.grad for p in module.parameters() if p.grad is not None]
            if grads:
                self.norms.append(float(torch.cat([grad.flatten() for grad in grads]).norm()))

    norms = Norms()
    run = trainer(
        1, tmp_path, gradient_clip_val=clip, callbacks=[norms], **precision_plugin(precision)
    )
    model = task(optimizer=optimizer)
    before = model.backbone.conv.weight.detach().clone()
    run.fit(model, data(cache))
    assert norms.norms
    assert (max(norms.norms) <= 0.1 + 1e-4) is (clip is not None)
    assert not torch.equal(before, model.backbone.conv.weight)
    fused = run.optimizers[0].param_groups[0]["fused"]
    assert fused is not (precision.endswith("mixed") and clip is not None)


def test_only_floating_point_on_devices_with_kernels_is_fused():
    plain = Precision()
    weight = nn.Parameter(torch.zeros(2))
    assert can_fuse([weight], plain, clipped=True)
    assert not can_fuse([weight, nn.Parameter(torch.zeros(2, device="meta"))], plain, clipped=False)
    assert not can_fuse([nn.Parameter(torch.zeros(2, dtype=torch.complex64))], plain, clipped=False)


def test_the_average_lies_where_the_weights_will_train():
    module = task(ema_decay=0.9)
    assert module.device.type == "cpu"  # Lightning moves it after the callback's setup
    module.trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("meta")), state=SimpleNamespace(fn=None)
    )
    (averaging,) = module.configure_callbacks()
    averaging.setup(module.trainer, module, "fit")
    tensors = [*averaging._average_model.parameters(), *averaging._average_model.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert module.device.type == "cpu"


def test_the_average_moves_by_its_formula_and_copies_whole_numbers():
    averaging = Averaging(0.5, torch.device("cpu"))
    for steps, decay in ((0, 0.1), (1, 2 / 11), (100, 0.5)):
        averages = [torch.full((2,), 3.0), torch.full((1,), -1.0)]
        averaging._average(averages, [torch.full((2,), 5.0), torch.ones(1)], torch.tensor(steps))
        assert averages[0].tolist() == pytest.approx([3 * decay + 5 * (1 - decay)] * 2)
        assert averages[1].tolist() == pytest.approx([1 - 2 * decay])
    counts = [torch.tensor([7])]
    averaging._average(counts, [torch.tensor([9])], torch.tensor(3))
    assert counts[0].tolist() == [9]


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


def test_sparsity_of_shift_does_not_go_with_the_average(tmp_path, cache):
    host = backbones.build("test_resnet", operator="shift", mix="pointwise")
    averaged = Classification(host, 5, ema_decay=0.8)
    with pytest.raises(UserError, match=r"`ema_decay` \(=0.8\) must be None with ShiftSparsity"):
        trainer(1, tmp_path, callbacks=[ShiftSparsity()]).fit(averaged, data(cache))


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
import json
from pathlib import Path

import lightning as L
import numpy as np
import torch

from bench.config import lightning

if __name__ == "__main__":
    config = json.loads(Path("config.json").read_text())
    run = lightning.build(config)
    trainer = L.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, num_sanity_val_steps=0,
        logger=False, enable_progress_bar=False, enable_checkpointing=False,
    )
    trainer.fit(run.module, run.data)
    fitted = {name: float(value) for name, value in trainer.callback_metrics.items()}
    (again,) = trainer.validate(run.module, run.data, verbose=False)
    (tested,) = trainer.test(run.module, run.data, verbose=False)
    parts = {"fit": fitted, "validate": again, "test": tested}
    parts["per_class"] = run.module.per_class()
    parts["sampling_error"] = run.module.sampling_error()
    rows = run.module.outcomes()
    # Lightning repeats no sample where it only predicts.
    parts["predicted"] = sum(len(part) for part in trainer.predict(run.module, run.data))
    Path(f"rank{trainer.global_rank}.json").write_text(json.dumps(parts))
    np.savez(f"rank{trainer.global_rank}.npz", **rows)
    if trainer.is_global_zero:
        torch.save(run.module.state_dict(), "two.pt")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "scored", "changes"),
    [
        ("classification", 17, {}),
        # Fewer samples than a batch, two and one, under the average of the weights.
        ("classification", 3, {"model": {"init_args": {"ema_decay": 0.9}}}),
        ("detection", 17, {}),
        (
            "detection",
            17,
            {
                "model": {"init_args": {"head": "mask_rcnn"}},
                "data": {"init_args": {"masks": True, "group_aspect": True}},
            },
        ),
        ("segmentation", 17, {}),
    ],
)
def test_two_processes_score_every_sample_once(name, scored, changes, tmp_path, forked):
    options = {"train": 24, "val": scored}
    options |= {"classes": 3} if scored == 3 else {}
    size = {"batch_size": 4, "options": options}
    size |= {} if name == "classification" else {"eval_batch_size": 3}
    board = schema.BoardConfig(
        task=f"scenes-{name}",
        hosts=["test_resnet"],
        operators=["acb"],
        baseline="acb",
        recipe=f"quick-{name}",
        set=files.merge({"data": {"init_args": size}}, changes),
    )
    host, operator = schema.load_host("test_resnet"), schema.load_operator("acb")
    config = compose(base(board), None, host, operator, seed=0)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "two.py").write_text(TWO_PROCESSES)
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port())}
    ranks = [
        forked.start([], str(tmp_path), {**os.environ, **meet, "LOCAL_RANK": rank}, [], "two")
        for rank in ("0", "1")
    ]
    assert [rank.wait(500) for rank in ranks] == [0, 0]

    run = lightning.build(config)
    run.module.load_state_dict(torch.load(tmp_path / "two.pt", weights_only=True))
    one = trainer(1, tmp_path)
    (scores,) = one.validate(run.module, run.data, verbose=False)
    for rank in (0, 1):
        two = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert two["validate"] == pytest.approx(scores, abs=1e-6)
        assert {k: v for k, v in two["fit"].items() if k in scores} == pytest.approx(
            scores, abs=1e-6
        )
        assert two["test"] == {
            name.replace("val/", "test/"): value for name, value in two["validate"].items()
        }
        assert two["per_class"] == pytest.approx(run.module.per_class(), abs=1e-6)
        assert two["sampling_error"] == pytest.approx(run.module.sampling_error())
        rows = np.load(tmp_path / f"rank{rank}.npz")
        for key, values in run.module.outcomes().items():
            np.testing.assert_allclose(rows[key], values, atol=1e-5)
    assert "train/loss_epoch" in two["fit"]
    parts = [json.loads((tmp_path / f"rank{r}.json").read_text())["predicted"] for r in (0, 1)]
    assert sum(parts) == scored


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


def test_evaluating_gives_every_module_its_mode_back():
    module = task().train()
    module.backbone.norm.eval()  # a user froze its statistics
    with module.evaluating():
        assert not any(part.training for part in module.modules())
        assert not torch.is_grad_enabled()
    assert module.training
    assert module.backbone.drop.training
    assert not module.backbone.norm.training
    with pytest.raises(RuntimeError), module.evaluating():
        raise RuntimeError
    assert module.training


def test_padding_of_a_process_is_not_scored():
    module = task()
    sizes = []
    module.score = lambda batch: sizes.append((len(batch[0]), len(batch[1])))
    module.reset_scores = lambda: None
    loader = SimpleNamespace(dataset=range(17))
    for rank, expected in ((0, [(4, 4), (4, 4), (1, 1)]), (1, [(4, 4), (4, 4)])):
        sizes.clear()
        module.trainer = SimpleNamespace(
            world_size=2, val_dataloaders=loader, testing=False, global_rank=rank
        )
        module._start_scoring()
        for size in (4, 4, 1):  # the sampler gives every process nine
            module._score_share((torch.zeros(size, 3, 4, 4), [{}] * size))
        assert sizes == expected
    assert sum(share_of(17, rank, 2) for rank in (0, 1)) == 17


@pytest.mark.parametrize("name", [*tasks.__all__, "TaskModule", "TaskData"])
def test_every_argument_is_explained(name):
    cls = {"TaskModule": TaskModule, "TaskData": TaskData}.get(name) or getattr(tasks, name)
    (section,) = re.findall(r"    Args:\n((?:        .*\n| *\n)+)", cls.__doc__ + "\n")
    explained = set(re.findall(r"^        \**(\w+):", section, re.MULTILINE))
    assert explained == set(inspect.signature(cls).parameters)
