"""The large and the small kernel as one dense kernel, and the cases of `replk`."""

import torch
import torch.nn.functional as F


def dense(branches, channels, size):
    """One (C, C, K, K) kernel, zero off the diagonal, and a bias: the sum of depthwise branches."""
    kernel = torch.zeros(channels, channels, size, size, dtype=torch.float64)
    bias = torch.zeros(channels, dtype=torch.float64)
    for branch in branches:
        norm, weight = branch.norm, branch.conv.weight
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        bias += norm.bias - norm.running_mean * scale
        kh, kw = weight.shape[2:]
        for c in range(channels):
            for u in range(kh):
                for v in range(kw):
                    i, j = size // 2 - kh // 2 + u, size // 2 - kw // 2 + v
                    kernel[c, c, i, j] += weight[c, 0, u, v] * scale[c]
    return kernel, bias


def reference(op, x):
    s = op.spec
    kernel, bias = dense((op.large, op.small), s.in_channels, s.kernel_size[0])
    return F.conv2d(x, kernel, bias, s.stride, s.kernel_size[0] // 2)


C = {"in_channels": 4, "out_channels": 4}
ACCEPTS = [
    C | {"kernel_size": 31, "sizes": [(12, 12), (9, 14), (2, 1), (35, 33)]},
    C | {"kernel_size": 13, "stride": 2, "bias": False},
    C | {"kernel_size": 7, "small_kernel": 3, "stride": (2, 1)},
    C | {"kernel_size": 5},
]

REFUSES = [
    ({"in_channels": 4, "out_channels": 8, "kernel_size": 7}, "out_channels"),
    (C | {"kernel_size": 7, "groups": 2}, "groups"),
    (C | {"kernel_size": 6}, "kernel_size"),
    (C | {"kernel_size": 7, "padding": 2}, "padding"),
    (C | {"kernel_size": 7, "dilation": 2}, "dilation"),
    (C | {"kernel_size": 7, "padding_mode": "reflect"}, "padding_mode"),
    (C | {"kernel_size": 3}, "small_kernel"),
    (C | {"kernel_size": 7, "small_kernel": 4}, "small_kernel"),
    (C | {"kernel_size": 7, "small_kernel": 3.0}, "small_kernel"),
    (C | {"kernel_size": 7, "small": 3}, "small"),
]
