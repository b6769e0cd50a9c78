"""Shift-Conv v1 as dense strips, tap after tap."""

import torch


def by_strip(x, kernel, before_h, before_w):
    """Depthwise correlation with `before` taps in front of the pixel, zero outside the map."""
    y = torch.zeros_like(x)
    _, _, height, width = x.shape
    for u in range(kernel.shape[1]):
        for v in range(kernel.shape[2]):
            for i in range(height):
                for j in range(width):
                    h, w = i + u - before_h, j + v - before_w
                    if 0 <= h < height and 0 <= w < width:
                        y[:, :, i, j] += kernel[:, u, v] * x[:, :, h, w]
    return y


def normed(y, bn):
    shape = (1, -1, 1, 1)
    scale = bn.weight.view(shape) / (bn.running_var.view(shape) + bn.eps).sqrt()
    return (y - bn.running_mean.view(shape)) * scale + bn.bias.view(shape)


def reference(op, x):
    n, big, channels = op.small_kernel, op.spec.kernel_size[0], x.shape[1]
    nk = -(-big // n)
    strip_h = torch.zeros(channels, n, nk * n, dtype=x.dtype)
    strip_v = torch.zeros(channels, nk * n, n, dtype=x.dtype)
    for c in range(channels):
        for i in range(nk):
            kernel = op.weight[c * nk + i, 0]
            strip_h[c, :, i * n : i * n + n] = op.mask_horizontal[c, i].sigmoid() * kernel
            strip_v[c, i * n : i * n + n, :] = op.mask_vertical[c, i].sigmoid() * kernel
    y = normed(by_strip(x, strip_h, n // 2, big // 2), op.norm_horizontal)
    y = y + normed(by_strip(x, strip_v, big // 2, n // 2), op.norm_vertical)
    y = y + normed(by_strip(x, op.centre[:, 0], n // 2, n // 2), op.norm_centre)
    return y[:, :, :: op.spec.stride[0], :: op.spec.stride[1]]


BASE = {"in_channels": 3, "out_channels": 3, "kernel_size": 13}

ACCEPTS = [
    BASE,
    {**BASE, "stride": 2, "kernel_size": 9, "bias": False},
    {**BASE, "stride": (2, 1), "kernel_size": 15, "small_kernel": 5},
    {**BASE, "kernel_size": 3},
    {**BASE, "kernel_size": 5, "small_kernel": 1},
]

REFUSES = [
    ({**BASE, "out_channels": 6}, "out_channels"),
    ({**BASE, "groups": 1}, "groups"),
    ({**BASE, "small_kernel": 2}, "small_kernel"),
    ({**BASE, "small_kernel": 15}, "small_kernel"),
    ({**BASE, "kernel_size": (13, 3)}, "kernel_size"),
    ({**BASE, "dilation": 2}, "dilation"),
    ({**BASE, "padding": 0}, "padding"),
    ({**BASE, "padding_mode": "reflect"}, "padding_mode"),
]
