"""The asymmetric convolution block, tap by tap on one padded map, and its cases."""

import torch
import torch.nn.functional as F


def normalised(y, norm):
    mean, var, gamma, beta = (
        t.view(1, -1, 1, 1) for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (y - mean) / (var + norm.eps).sqrt() * gamma + beta


def reference(op, x):
    """Every branch reads the same padded map: the strips its central column and row of taps."""
    s = op.spec
    (ph, pw), (dh, dw), (sh, sw), middle = s.padding, s.dilation, s.stride, s.kernel_size[0] // 2
    mode = "constant" if s.padding_mode == "zeros" else s.padding_mode
    oh, ow = s.output_size(*x.shape[2:])
    x = F.pad(x, (pw, pw, ph, ph), mode=mode)
    total = 0
    for branch, row, column in (
        (op.square, 0, 0),
        (op.vertical, 0, middle),
        (op.horizontal, middle, 0),
    ):
        weight = branch.conv.weight
        y = torch.zeros(x.shape[0], s.out_channels, oh, ow, dtype=x.dtype)
        for u in range(weight.shape[2]):
            for v in range(weight.shape[3]):
                i, j = (row + u) * dh, (column + v) * dw
                tap = x[:, :, i : i + (oh - 1) * sh + 1 : sh, j : j + (ow - 1) * sw + 1 : sw]
                for o in range(s.out_channels):
                    first = o // (s.out_channels // s.groups) * weight.shape[1]
                    for c in range(weight.shape[1]):
                        y[:, o] += weight[o, c, u, v] * tap[:, first + c]
        total = total + normalised(y, branch.norm)
    return total


ACCEPTS = [
    {"in_channels": 4, "out_channels": 6, "kernel_size": 3},
    {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "stride": 2, "gamma_init": 1 / 3},
    {"in_channels": 4, "out_channels": 4, "kernel_size": 5, "groups": 2, "bias": False},
    {"in_channels": 4, "out_channels": 4, "kernel_size": 7, "groups": 4, "stride": (2, 1)},
    {"in_channels": 3, "out_channels": 4, "kernel_size": 1},
    {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "dilation": (2, 3)},
    {"in_channels": 4, "out_channels": 4, "kernel_size": 5, "padding": (4, 3)},
    {"in_channels": 4, "out_channels": 4, "kernel_size": 5, "padding": (0, 1),
     "sizes": [(12, 12), (9, 14), (5, 3)]},
    {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding": (1, 0), "dilation": 2,
     "stride": 2, "sizes": [(12, 12), (9, 14), (6, 5)], "costly": True},
    {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding_mode": "reflect",
     "sizes": [(12, 12), (9, 14), (2, 3)]},
    {"in_channels": 4, "out_channels": 4, "kernel_size": 5, "padding_mode": "replicate"},
    {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding": 2,
     "padding_mode": "circular", "sizes": [(12, 12), (9, 14), (2, 3)]},
]  # fmt: skip

REFUSES = [
    ({"in_channels": 4, "out_channels": 4, "kernel_size": 4}, "kernel_size"),
    ({"in_channels": 4, "out_channels": 4, "kernel_size": (3, 5)}, "kernel_size"),
    ({"in_channels": 4, "out_channels": 4, "gamma_init": "one"}, "gamma_init"),
    ({"in_channels": 4, "out_channels": 4, "gamma_init": float("nan")}, "gamma_init"),
    ({"in_channels": 4, "out_channels": 4, "gamma": 1}, "gamma"),
]
