"""Classification: losses, scores, outcomes, bad arguments."""

import lightning as L
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import tasks
from tasks import Classification, ClassificationData
from tasks.seeds import seeded

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:The number of training batches",
    "ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated",
)


def network():
    return timm.create_model("test_convnext")


@pytest.fixture
def task():
    return Classification(network(), 8, label_smoothing=0.0).eval()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(6, 3, 32, 32, generator=generator), torch.tensor([0, 1, 2, 7, 7, 3])


def test_the_classes_are_exported_lazily():
    assert tasks.Classification is Classification
    assert {"ClassificationData", "Detection"} <= set(dir(tasks))
    with pytest.raises(AttributeError, match="'Depth'"):
        _ = tasks.Depth


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 1}, r"`num_classes` \(=1\) must be >= 2"),
        ({"label_smoothing": 1.0}, r"`label_smoothing` \(=1.0\) must be in \[0, 1\)"),
        ({"mixup": -0.1}, r"`mixup` \(=-0.1\) must be >= 0"),
        ({"cutmix": -1}, r"`cutmix` \(=-1\) must be >= 0"),
        ({"std": (1, 0, 1)}, r"`std` \(=\(1, 0, 1\)\) must be three numbers > 0"),
        ({"mean": (0.5,)}, r"`mean` \(=\(0.5,\)\) must be three numbers"),
        ({"class_names": ["a"]}, r"`class_names` \(=\['a'\]\) must be `num_classes` \(=4\) names"),
        ({"lr": -1.0}, r"`lr` \(=-1.0\) must be > 0"),
    ],
)
def test_arguments_out_of_range_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Classification(network(), **{"num_classes": 4, **change})


def test_a_network_without_a_classifier_is_refused():
    with pytest.raises(ValueError, match=r"`backbone` \(a Linear\) must have timm's"):
        Classification(nn.Linear(3, 4), 4)
    features = timm.create_model("test_convnext", features_only=True)
    with pytest.raises(ValueError, match="features_only"):
        Classification(features, 4)


def test_the_loss_is_the_cross_entropy_of_normalised_images(task, batch):
    images, labels = batch
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    logits = task.backbone((images - mean) / std)
    picked = logits.log_softmax(1)[range(6), labels]
    torch.testing.assert_close(task.loss(batch)["cross_entropy"], -picked.mean())
    torch.testing.assert_close(task.predict(images), logits.softmax(1))


def test_smoothing_spreads_a_share_over_all_classes(batch):
    with seeded(1):
        smooth = Classification(network(), 8, label_smoothing=0.2).eval()
    logits = smooth.logits(batch[0]).log_softmax(1)
    target = 0.8 * F.one_hot(batch[1], 8) + 0.2 / 8
    expected = -(target * logits).sum(1).mean()
    torch.testing.assert_close(smooth.loss(batch)["cross_entropy"], expected)


@pytest.mark.parametrize("option", ["mixup", "cutmix"])
def test_mixing_is_for_training_only_and_drawn_from_the_step(batch, option):
    mixing = Classification(network(), 8, **{option: 1.0})
    mixing.eval()
    assert torch.equal(mixing.loss(batch)["cross_entropy"], mixing.loss(batch)["cross_entropy"])
    mixing.train()
    losses = []
    for step in (0, 0, 1):
        torch.manual_seed(step)
        losses.append(mixing.loss(batch)["cross_entropy"].item())
    assert losses[0] == losses[1] != losses[2]


def test_predicting_leaves_the_mode_alone(task, batch):
    task.train()
    images = batch[0]
    probabilities = task.predict(images)
    assert task.training
    assert not probabilities.requires_grad
    torch.testing.assert_close(probabilities.sum(1), torch.ones(6))
    assert torch.equal(probabilities, task(images))


class Fixed(nn.Module):
    """Logits by the brightness of the image, so that every score can be known."""

    def __init__(self, table):
        super().__init__()
        self.register_buffer("table", table)

    def reset_classifier(self, num_classes):
        assert num_classes == self.table.shape[1]

    def forward(self, x):
        return self.table[x.mean(dim=(1, 2, 3)).round().long()]


def reference_ece(probabilities, labels):
    confidence, predicted = probabilities.max(1)
    right = (predicted == labels).float()
    total = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            gap = (right[inside].mean() - confidence[inside].mean()).abs()
            total += float(gap) * int(inside.sum()) / len(labels)
    return total


def test_scores_equal_slow_references():
    generator = torch.Generator().manual_seed(3)
    table = 2 * torch.randn(90, 8, generator=generator)
    labels = torch.randint(8, (90,), generator=generator)
    images = torch.arange(90.0).view(90, 1, 1, 1).expand(90, 3, 4, 4)
    names = [f"class {i}" for i in range(8)]
    task = Classification(Fixed(table), 8, mean=(0, 0, 0), std=(1, 1, 1), class_names=names)
    for _ in range(2):  # the second pass shows that the first is forgotten
        task.reset_scores()
        for start in range(0, 90, 32):
            task.score((images[start : start + 32], labels[start : start + 32]))
    scores = task.scores()
    order = table.argsort(1, descending=True)
    right = order[:, 0] == labels
    assert scores["top1"] == pytest.approx(right.float().mean().item())
    in_five = (order[:, :5] == labels[:, None]).any(1)
    assert scores["top5"] == pytest.approx(in_five.float().mean().item())
    probabilities = table.softmax(1)
    assert scores["nll"] == pytest.approx(F.cross_entropy(table, labels).item(), abs=1e-5)
    assert scores["ece"] == pytest.approx(reference_ece(probabilities, labels), abs=1e-5)
    assert set(scores) == set(task.metrics_info)
    for label, name in enumerate(names):
        share = right[labels == label].float().mean().item()
        assert task.per_class()[name] == pytest.approx(share)
    rows = task.outcomes()
    assert np.array_equal(rows["label"], labels.numpy())
    assert np.array_equal(rows["predicted"], order[:, 0].numpy())
    assert np.array_equal(rows["right"], right.numpy())
    p = scores["top1"]
    assert task.sampling_error() == pytest.approx((p * (1 - p) / 90) ** 0.5)


def test_few_classes_have_no_top5():
    task = Classification(network(), 5)
    task.reset_scores()
    task.score((torch.rand(2, 3, 32, 32), torch.tensor([1, 4])))
    assert set(task.scores()) == {"top1", "ece", "nll"}


def test_the_inference_module_gives_the_same_logits(batch):
    from bench.backbones import fuse, swap

    model = swap(network(), "unireplk", input_size=(32, 32))
    task = Classification(model, 8)
    task.train()
    for _ in range(3):
        task.logits(torch.rand(8, 3, 32, 32))  # moves the statistics of the branches' norms
    module = fuse(task.inference_module())
    assert not module.training
    assert task.training
    task.eval()
    with torch.no_grad():
        torch.testing.assert_close(module(batch[0]), task.logits(batch[0]), atol=1e-4, rtol=1e-4)
    fused = sum(p.numel() for p in module.parameters())
    assert fused < sum(p.numel() for p in task.backbone.parameters())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_short_training_learns(tmp_path, precision):
    data = ClassificationData(
        root=str(tmp_path),
        image_size=32,
        batch_size=8,
        options={"train": 256, "val": 128, "classes": 2, "contrast": 1.0, "ratio": 1.0},
    )
    task = Classification(network(), 2, lr=5e-3, ema_decay=0.5, label_smoothing=0.0)
    trainer = L.Trainer(
        max_epochs=5,
        accelerator="cpu",
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, data)
    # 0 and 1 are told apart by their outlines; guessing gives 0.5 ± 0.04.
    assert float(trainer.callback_metrics["val/top1"]) > 0.7
    (tested,) = trainer.test(task, data, verbose=False)
    assert tested["test/top1"] == float(trainer.callback_metrics["test/top1"])
    assert len(task.outcomes()["right"]) == 128
    assert [len(p) for p in trainer.predict(task, data)] == [8] * 16
