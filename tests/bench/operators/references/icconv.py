"""IC-Conv as one dense convolution, wide enough for every dilation, most of it zeros."""

import torch
import torch.nn.functional as F


def dense_kernel(op):
    """(Cout, Cin, dmax·(Kh − 1) + 1, dmax·(Kw − 1) + 1), its zeros between the taps included."""
    s = op.spec
    kh, kw = s.kernel_size
    dmax = int(op.dilations.max())
    middle = (dmax * (kh // 2), dmax * (kw // 2))
    kernel = torch.zeros(
        s.out_channels, s.in_channels, 2 * middle[0] + 1, 2 * middle[1] + 1, dtype=op.weight.dtype
    )
    for o, (dh, dw) in enumerate(op.dilations.tolist()):
        first = group_of(op, o) * (s.in_channels // s.groups)
        for c in range(s.in_channels // s.groups):
            for u in range(kh):
                for v in range(kw):
                    tap = (middle[0] + (u - kh // 2) * dh, middle[1] + (v - kw // 2) * dw)
                    kernel[o, first + c, *tap] = op.weight[o, c, u, v]
    return kernel


def group_of(op, o):
    """The group of input channels that output channel o reads."""
    if op.spec.depthwise:
        return o
    same = [p for p, d in enumerate(op.dilations.tolist()) if d == op.dilations[o].tolist()]
    return same.index(o) // (len(same) // op.spec.groups)


def reference(op, x):
    kernel = dense_kernel(op)
    padding = (kernel.shape[2] // 2, kernel.shape[3] // 2)
    return F.conv2d(x, kernel, op.bias, op.spec.stride, padding)


BASE = {"in_channels": 6, "out_channels": 8, "kernel_size": 3}
FOUR = {"(0, 0)": 2, "(0, 3)": 2, "(1, 0)": 0, "(2, 1)": 4}
ONE = {"(1, 2)": 8}

ACCEPTS = [
    {**BASE, "pattern": FOUR},
    {**BASE, "pattern": FOUR, "stride": 2, "bias": False},
    {**BASE, "pattern": FOUR, "groups": 2, "kernel_size": 5},
    {**BASE, "kernel_size": (3, 7), "out_channels": 24, "pattern": {"(1, 1)": 20, "(0, 1)": 4}},
    {**BASE, "pattern": ONE, "stride": (1, 2)},
    {**BASE, "pattern": FOUR, "in_channels": 8, "groups": 8},
    {**BASE, "out_channels": 12, "dmax": 2, "plain_share": 0.5, "bias": False},
    {**BASE, "kernel_size": 7, "stride": 2, "in_channels": 3},
]

REFUSES = [
    ({**BASE, "kernel_size": 4}, "kernel_size"),
    ({**BASE, "padding": 0}, "padding"),
    ({**BASE, "dilation": 2}, "dilation"),
    ({**BASE, "padding_mode": "reflect"}, "padding_mode"),
    ({**BASE, "pattern": {"(0, 0)": 7}}, "pattern"),
    ({**BASE, "pattern": {"0 0": 8}}, "pattern"),
    ({**BASE, "pattern": {"(0, 0)": 8.0}}, "pattern"),
    ({**BASE, "pattern": {"(0, 0)": -1, "(0, 1)": 9}}, "pattern"),
    ({**BASE, "pattern": {"(0, 0)": 4, "(0,0)": 4}}, "pattern"),
    ({**BASE, "pattern": [8]}, "pattern"),
    ({**BASE, "pattern": {"(0, 0)": 5, "(1, 1)": 3}, "groups": 2}, "pattern"),
    ({**BASE, "dmax": 0}, "dmax"),
    ({**BASE, "plain_share": 1.5}, "plain_share"),
]
