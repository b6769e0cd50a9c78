"""Depthwise convolution as one dense convolution whose kernel is diagonal in the channels."""

import torch
import torch.nn.functional as F


def reference(op, x):
    s = op.spec
    kernel = op.conv.weight
    dense = torch.zeros(s.out_channels, s.in_channels, *s.kernel_size, dtype=x.dtype)
    for c in range(s.in_channels):
        dense[c, c] = kernel[c, 0]
    return F.conv2d(x, dense, op.conv.bias, s.stride, s.padding, s.dilation)


ACCEPTS = [
    {"in_channels": 6, "out_channels": 6, "kernel_size": 3},
    {"in_channels": 6, "out_channels": 6, "kernel_size": 7, "stride": 2, "bias": False},
    {"in_channels": 5, "out_channels": 5, "kernel_size": 31},
    {"in_channels": 6, "out_channels": 6, "kernel_size": (3, 5), "dilation": (2, 1)},
]

REFUSES = [
    ({"in_channels": 6, "out_channels": 12}, "out_channels"),
    ({"in_channels": 6, "out_channels": 6, "groups": 2}, "groups"),
]
