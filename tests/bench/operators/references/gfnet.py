"""GFNet's filter as a circular convolution by its kernel, which is summed up wave by wave."""

import math

import torch

from bench.operators.gfnet import resample_filter


def kernel_of(gains, height, width):
    """The kernel (C, H, W) whose spectrum the half (2, C, H, W // 2 + 1) is.

    Columns whose mirror image is missing count twice. In a column that is its own mirror image,
    only the real part of the sum of waves is kept.
    """
    kernel = torch.zeros(gains.shape[1], height, width, dtype=gains.dtype)
    rows = torch.arange(height, dtype=gains.dtype).view(-1, 1)
    columns = torch.arange(width, dtype=gains.dtype).view(1, -1)
    for a in range(height):
        for b in range(width // 2 + 1):
            angle = 2 * math.pi * (a * rows / height + b * columns / width)
            real, imag = gains[0, :, a, b].view(-1, 1, 1), gains[1, :, a, b].view(-1, 1, 1)
            times = 1 if b == 0 or 2 * b == width else 2
            kernel += times * (real * angle.cos() - imag * angle.sin())
    return kernel / (height * width)


def reference(op, x):
    height, width = x.shape[2:]
    kernel = kernel_of(resample_filter(op.gains, height, width), height, width)
    y = torch.zeros_like(x)
    for u in range(height):
        for v in range(width):
            y += kernel[:, u, v].view(-1, 1, 1) * torch.roll(x, (u, v), dims=(2, 3))
    return y[:, :, :: op.spec.stride[0], :: op.spec.stride[1]]


NO_COUNTER = {"check_macs": "the counter knows no FFT"}
BASE = {"in_channels": 4, "out_channels": 4, "resolution": 12, "exceptions": NO_COUNTER}

ACCEPTS = [
    {**BASE, "kernel_size": 7},
    {**BASE, "kernel_size": 3, "stride": 2, "resolution": (9, 14)},
    {**BASE, "kernel_size": 3, "stride": (1, 3), "resolution": (5, 4)},
]

REFUSES = [
    ({"in_channels": 4, "out_channels": 4}, "resolution"),
    ({"in_channels": 4, "out_channels": 8, "resolution": 12}, "out_channels"),
    ({"in_channels": 4, "out_channels": 4, "groups": 2, "resolution": 12}, "groups"),
    ({"in_channels": 4, "out_channels": 4, "padding": 0, "resolution": 12}, "padding"),
]
