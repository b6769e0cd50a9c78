"""The dilated re-parameterisation block as sums of shifted maps, and its cases."""

import torch
import torch.nn.functional as F


def normalised(y, norm):
    mean, var, gamma, beta = (
        t.view(1, -1, 1, 1) for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (y - mean) / (var + norm.eps).sqrt() * gamma + beta


def shifted(x, down, right):
    """Value (i + down, j + right) at (i, j), zero outside."""
    reach = max(abs(down), abs(right))
    rolled = torch.roll(F.pad(x, [reach] * 4), (-down, -right), (2, 3))
    return rolled[:, :, reach : reach + x.shape[2], reach : reach + x.shape[3]]


def depthwise(x, weight, dilation, stride):
    """The centred depthwise correlation, at every stride-th pixel."""
    total = torch.zeros_like(x)
    kh, kw = weight.shape[2:]
    for u in range(kh):
        for v in range(kw):
            tap = weight[:, 0, u, v].view(1, -1, 1, 1)
            total = total + tap * shifted(x, (u - kh // 2) * dilation, (v - kw // 2) * dilation)
    return total[:, :, :: stride[0], :: stride[1]]


def reference(op, x):
    total = normalised(depthwise(x, op.large.conv.weight, 1, op.spec.stride), op.large.norm)
    for branch, (_, r) in zip(op.dilated, op.branches, strict=True):
        total = total + normalised(depthwise(x, branch.conv.weight, r, op.spec.stride), branch.norm)
    return total


ACCEPTS = [
    {"in_channels": 6, "out_channels": 6, "kernel_size": 7},
    {"in_channels": 6, "out_channels": 6, "kernel_size": 5, "stride": 2},
    {"in_channels": 4, "out_channels": 4, "kernel_size": 9, "bias": False},
    {"in_channels": 4, "out_channels": 4, "kernel_size": 11, "stride": (1, 2)},
    {"in_channels": 4, "out_channels": 4, "kernel_size": 13, "groups": 4, "padding": 6},
    {"in_channels": 4, "out_channels": 4, "kernel_size": 15},
    {"in_channels": 4, "out_channels": 4, "kernel_size": 17},
    {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "branches": [(1, 1), [3, 1]]},
    {"in_channels": 4, "out_channels": 4, "kernel_size": 19, "branches": [(5, 1), (7, 3)]},
    {"in_channels": 4, "out_channels": 4, "kernel_size": 7, "branches": []},
]

C = {"in_channels": 6, "out_channels": 6}
REFUSES = [
    ({"in_channels": 6, "out_channels": 12, "kernel_size": 7}, "out_channels"),
    (C | {"kernel_size": 7, "groups": 3}, "groups"),
    (C | {"kernel_size": 8}, "kernel_size"),
    (C | {"kernel_size": (5, 7)}, "kernel_size"),
    (C | {"kernel_size": 3}, "kernel_size"),
    (C | {"kernel_size": 19}, "kernel_size"),
    (C | {"kernel_size": 7, "padding": 0}, "padding"),
    (C | {"kernel_size": 7, "dilation": 2}, "dilation"),
    (C | {"kernel_size": 7, "padding_mode": "circular"}, "padding_mode"),
    (C | {"kernel_size": 7, "branches": [(5, 2)]}, "branches"),
    (C | {"kernel_size": 7, "branches": [(4, 1)]}, "branches"),
    (C | {"kernel_size": 7, "branches": [(3, 0)]}, "branches"),
    (C | {"kernel_size": 7, "branches": [3, 1]}, "branches"),
    (C | {"kernel_size": 7, "branches": "5x1"}, "branches"),
    (C | {"kernel_size": 7, "branch": [(3, 1)]}, "branch"),
]
