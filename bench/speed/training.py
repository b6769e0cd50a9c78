"""The training step: forward, backward and the optimiser's step of a network in training mode.

The loss needs no labels: the mean square of every map that the network returns, summed over maps.
The optimiser is SGD with momentum 0.9 in its fused form. Its learning rate is 0: the arithmetic of
the update does not depend on the rate, and with weights that stay every step computes the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.speed.gate import tensors

MOMENTUM = 0.9


def loss_of(output: Any) -> Tensor:
    """Return the sum over the output's tensors of their mean squares, in float32.

    Example:
        >>> loss_of([torch.ones(2, 3), 2 * torch.ones(4)])
        tensor(5.)
    """
    return torch.stack([t.float().square().mean() for _, t in tensors("output", output)]).sum()


class TrainingStep:
    """One step of a model in training mode on a fixed input; returns the loss.

    Example:
        >>> step = TrainingStep(nn.Linear(2, 1, bias=False), torch.ones(4, 2))
        >>> float(step()) == float(step())
        True
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.model, self.x = model, x
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimiser = torch.optim.SGD(weights, lr=0.0, momentum=MOMENTUM, fused=True)

    def __call__(self) -> Tensor:
        """Take the step."""
        self.optimiser.zero_grad()
        loss = loss_of(self.model(self.x))
        torch.autograd.backward(loss)
        self.optimiser.step()
        return loss.detach()


def gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return what the gate compares of a training step.

    That is the loss, and its gradients with respect to the input and to all weights, these as one
    vector: a single weight may have a gradient of nothing but rounding, such as that of a bias
    before a batch norm. Random layers draw the same in every call.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> {name: value.numel() for name, value in gradients(layer, torch.ones(4, 2)).items()}
        {'loss': 1, 'input': 8, 'weights': 2}
    """
    torch.manual_seed(0)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    x = x.detach().clone().requires_grad_()
    loss = loss_of(model(x))
    of_input, *of_weights = torch.autograd.grad(
        loss, [x, *weights], allow_unused=True, materialize_grads=True
    )
    return {
        "loss": loss,
        "input": of_input,
        "weights": torch.cat([gradient.float().flatten() for gradient in of_weights]),
    }
