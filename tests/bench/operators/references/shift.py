"""Shiftwise as its paper has it: grouped convolutions, whose outputs are shifted and added."""

import torch
import torch.nn.functional as F


def moved(y, top, left, height, width):
    """The window of y at (top, left), zero where it leaves y; (N, H', W') in and out."""
    out = torch.zeros(y.shape[0], height, width, dtype=y.dtype)
    for h in range(height):
        for w in range(width):
            if 0 <= h + top < y.shape[1] and 0 <= w + left < y.shape[2]:
                out[:, h, w] = y[:, h + top, w + left]
    return out


def normed(y, bn):
    shape = (1, -1, 1, 1)
    scale = bn.weight.view(shape) / (bn.running_var.view(shape) + bn.eps).sqrt()
    return (y - bn.running_mean.view(shape)) * scale + bn.bias.view(shape)


def reference(op, x):
    n, big = op.small_kernel, op.spec.kernel_size[0]
    _, channels, nk = op.horizontal.shape
    _, _, height, width = x.shape
    ghosts = op.ghosts.tolist()
    active = x[:, [c for c in range(x.shape[1]) if c not in ghosts]]
    y = sum(F.conv2d(active, w.unsqueeze(1), padding=n - 1, groups=channels) for w in op.weight)
    centred = (n - 1) - n // 2
    outs = {key: torch.zeros_like(active) for key in ("horizontal", "vertical", "centre")}
    for r in range(len(op.centre)):
        for c in range(channels):
            for i in range(nk):
                pad = big // 2 - i * n - (n - 1)
                h = y[:, c * nk + int(op.horizontal[r, c, i])]
                v = y[:, c * nk + int(op.vertical[r, c, i])]
                outs["horizontal"][:, c] += moved(h, centred, -pad, height, width)
                outs["vertical"][:, c] += moved(v, -pad, centred, height, width)
            pick = y[:, c * nk + int(op.centre[r, c])]
            outs["centre"][:, c] += moved(pick, centred, centred, height, width)
    total = active + sum(normed(outs[key], getattr(op, f"norm_{key}")) for key in outs)
    out = torch.cat([total, x[:, ghosts]], dim=1)
    return out[:, :, :: op.spec.stride[0], :: op.spec.stride[1]]


BASE = {"in_channels": 6, "out_channels": 6, "kernel_size": 13}

ACCEPTS = [
    BASE,
    {**BASE, "stride": 2, "kernel_size": 11, "official_tables": True},
    {**BASE, "kernel_size": 7, "small_kernel": 5, "paths": 1, "edges": 2, "stride": (1, 2)},
    {**BASE, "kernel_size": 9, "ghost_ratio": 0.0, "seed": 3, "bias": False},
    {**BASE, "kernel_size": 3, "edges": 1, "in_channels": 3, "out_channels": 3},
]

REFUSES = [
    ({**BASE, "out_channels": 12}, "out_channels"),
    ({**BASE, "groups": 2}, "groups"),
    ({**BASE, "small_kernel": 4}, "small_kernel"),
    ({**BASE, "small_kernel": 15}, "small_kernel"),
    ({**BASE, "small_kernel": 3.0}, "small_kernel"),
    ({**BASE, "kernel_size": (13, 5)}, "kernel_size"),
    ({**BASE, "kernel_size": 8}, "kernel_size"),
    ({**BASE, "dilation": 2}, "dilation"),
    ({**BASE, "padding": 3}, "padding"),
    ({**BASE, "padding_mode": "circular"}, "padding_mode"),
    ({**BASE, "in_channels": 2, "out_channels": 2}, "in_channels"),
    ({**BASE, "ghost_ratio": 1}, "ghost_ratio"),
    ({**BASE, "paths": 0}, "paths"),
    ({**BASE, "edges": 0}, "edges"),
    ({**BASE, "official_tables": True, "seed": 1}, "seed"),
]
