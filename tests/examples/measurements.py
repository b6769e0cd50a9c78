"""UniRepLKNet on a table of measurements: no image anywhere, ten channels in place of three.

UniRepLKNet claims to be one network for every modality: an input is any (N, C', H, W), with C' set
by the modality. The data are the 569 tumours of the Wisconsin breast cancer study, which ship with
scikit-learn: ten measurements of cell nuclei (radius, texture, …), each by its mean, standard error
and worst value. The measurements become channels and the three statistics the width, so that an
input is (N, 10, 1, 3). The network tells malignant from benign; 400 tumours train it, the others
are held out.

    python tests/examples/measurements.py

prints the accuracy on the held-out tumours, of the training form and of the fused one, beside that
of always saying the commoner class.
"""

from __future__ import annotations

from dataclasses import dataclass

import timm
import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor
from torch.nn import functional as F

import bench.backbones
from bench.backbones.unireplknet import stage_kernels

MEASUREMENTS, STATISTICS, TRAINED = 10, 3, 400


@dataclass(frozen=True)
class Scores:
    """Accuracies on the held-out tumours."""

    network: float
    fused: float
    commonest: float


def tumours(seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return (inputs (N, 10, 1, 3), labels (N)) to train on, and those held out."""
    table = load_breast_cancer()
    inputs = torch.tensor(table.data, dtype=torch.float32)
    labels = torch.tensor(table.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    trained, held = order[:TRAINED], order[TRAINED:]
    inputs = (inputs - inputs[trained].mean(0)) / inputs[trained].std(0)
    # The table's columns are all means, then all standard errors, then all worst values.
    inputs = inputs.view(-1, STATISTICS, 1, MEASUREMENTS).permute(0, 3, 2, 1)
    return (inputs[trained], labels[trained]), (inputs[held], labels[held])


def run(steps: int = 40, seed: int = 0) -> Scores:
    """Train for so many steps of 64 tumours, and score."""
    (inputs, labels), (held_inputs, held_labels) = tumours(seed)
    torch.manual_seed(seed)
    depths = (1, 1, 1, 1)
    network = timm.create_model(
        "unireplknet_a",
        in_chans=MEASUREMENTS,
        num_classes=2,
        # a small one: 4.6 million parameters would learn 400 tumours by heart
        depths=depths,
        dims=(16, 32, 64, 128),
        kernel_sizes=stage_kernels(depths, (13,)),
        # so short a training would not move the paper's 1e-6
        layer_scale=1.0,
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        batch = torch.randint(len(labels), (64,))
        loss = F.cross_entropy(network(inputs[batch]), labels[batch], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    network.eval()

    @torch.inference_mode()
    def accuracy(model: torch.nn.Module) -> float:
        return (model(held_inputs).argmax(1) == held_labels).float().mean().item()

    return Scores(
        network=accuracy(network),
        fused=accuracy(bench.backbones.fuse(network)),
        commonest=(held_labels == labels.mode().values).float().mean().item(),
    )


if __name__ == "__main__":
    for name, value in vars(run()).items():
        print(f"{name:10} {value:.3f}")
