"""mmcv's compiled focal losses, answered by formula.

Signatures are those with which mmcv 2.x calls its compiled extension; see `tasks.openmm.boxes`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.openmm.boxes import at_least_single


def _class_weights(weight: Tensor, target: Tensor) -> Tensor | None:
    """Weight of each sample's class (N); the background, past the last class, weighs nothing."""
    if not weight.numel():
        return None
    return torch.where(target < len(weight), weight[target.clamp(max=len(weight) - 1)], 0)


def _is_class(input: Tensor, target: Tensor) -> Tensor:
    """Where a column is its row's label: (N, C); the background lies past the last column."""
    return target[:, None] == torch.arange(input.shape[1], device=target.device)


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Focal loss (Lin et al. 2017, arXiv 1708.02002) of logits (N, C), labels 0…C (C: none).

    With p = sigmoid(x): -alpha·(1-p)^gamma·log p for the label's class, and
    -(1-alpha)·p^gamma·log(1-p) for the others.
    """
    x = at_least_single(input)
    p = x.sigmoid()
    right = -alpha * (1 - p) ** gamma * F.logsigmoid(x)
    wrong = -(1 - alpha) * p**gamma * F.logsigmoid(-x)
    loss = torch.where(_is_class(x, target), right, wrong)
    weights = _class_weights(weight, target)
    output.copy_(loss if weights is None else loss * weights[:, None])


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Gradient of the sum of `sigmoid_focal_loss_forward`.

    By formula: that of (1-p)^gamma alone diverges at p = 1 for gamma < 1.
    """
    x = at_least_single(input)
    p = x.sigmoid()
    right = -alpha * (1 - p) ** gamma * (1 - p - gamma * p * F.logsigmoid(x))
    wrong = -(1 - alpha) * p**gamma * (gamma * (1 - p) * F.logsigmoid(-x) - p)
    grad = torch.where(_is_class(x, target), right, wrong)
    weights = _class_weights(weight, target)
    grad_input.copy_(grad if weights is None else grad * weights[:, None])


def _softmax_focal(p: Tensor, gamma: float, alpha: float) -> Tensor:
    return -alpha * (1 - p) ** gamma * p.clamp(min=torch.finfo(p.dtype).tiny).log()


def softmax_focal_loss_forward(
    softmax: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """-alpha·(1-p)^gamma·log p of the label's probability p; negative labels count nothing."""
    p = softmax.gather(1, target.clamp(min=0)[:, None])[:, 0]
    loss = torch.where(target >= 0, _softmax_focal(p, gamma, alpha), 0)
    weights = _class_weights(weight, target.clamp(min=0))
    output.copy_(loss if weights is None else loss * weights)


def softmax_focal_loss_backward(
    softmax: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Gradient by the logits: p·dL/dp·(1[c = label] - softmax_c)."""
    label = target.clamp(min=0)
    p = softmax.gather(1, label[:, None])[:, 0]
    tiny = torch.finfo(p.dtype).tiny
    # (1 - p)^(gamma - 1) diverges at p = 1 for gamma < 1, where the loss itself is flat.
    slope = gamma * (1 - p).clamp(min=tiny) ** (gamma - 1) * p * p.clamp(min=tiny).log()
    buff.copy_(torch.where(target >= 0, alpha * (slope - (1 - p) ** gamma), 0))
    weights = _class_weights(weight, label)
    if weights is not None:
        buff.mul_(weights)
    one = F.one_hot(label, softmax.shape[1]).to(softmax.dtype)
    grad_input.copy_(buff[:, None] * (one - softmax))
