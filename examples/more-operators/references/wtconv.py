"""WTConv pixel by pixel, with the Haar transform as sums and differences; its cases."""

import torch
import torch.nn.functional as F


def even(x):
    return F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))


def split(x):
    """The four bands of a map of even sides: means, differences across, down, and of both."""
    a, b, c, d = x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]
    return [(a + b + c + d) / 2, (a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2]


def join(bands):
    """The inverse of `split`: every pixel is half the sum of its four terms."""
    m, h, v, d = bands
    n, c, height, width = m.shape
    out = torch.zeros(n, c, 2 * height, 2 * width, dtype=m.dtype)
    out[..., ::2, ::2] = (m + h + v + d) / 2
    out[..., ::2, 1::2] = (m - h + v - d) / 2
    out[..., 1::2, ::2] = (m + h - v - d) / 2
    out[..., 1::2, 1::2] = (m - h - v + d) / 2
    return out


def wavelets(x, op, level):
    """z of a level and those below it."""
    if level == len(op.bands):
        return torch.zeros_like(x)
    _, channels, height, width = x.shape
    bands = split(even(x))
    weight, scale = op.bands[level].weight, op.band_scales[level]
    out = []
    for number, band in enumerate(bands):
        own = [4 * c + number for c in range(channels)]
        k = weight.shape[2]
        out.append(scale[own] * F.conv2d(band, weight[own], None, 1, k // 2, 1, channels))
    out[0] = out[0] + wavelets(bands[0], op, level + 1)
    return join(out)[:, :, :height, :width]


def reference(op, x):
    s = op.spec
    base = F.conv2d(x, op.base.weight, op.base.bias, 1, s.padding, 1, s.groups)
    whole = op.base_scale * base + wavelets(x, op, 0)
    return whole[:, :, :: s.stride[0], :: s.stride[1]]


C = {"in_channels": 4, "out_channels": 4}
ACCEPTS = [
    C | {"kernel_size": 5, "resolution": 14},
    C | {"kernel_size": 3, "levels": 1, "stride": 2, "bias": False},
    C | {"kernel_size": 7, "stride": (1, 2), "levels": 5},
]

REFUSES = [
    ({"in_channels": 4, "out_channels": 8}, "out_channels"),
    (C | {"groups": 2}, "groups"),
    (C | {"kernel_size": 4}, "kernel_size"),
    (C | {"kernel_size": (3, 5)}, "kernel_size"),
    (C | {"padding": 0}, "padding"),
    (C | {"dilation": 2}, "dilation"),
    (C | {"padding_mode": "reflect"}, "padding_mode"),
    (C | {"levels": 0}, "levels"),
    (C | {"levels": 2.0}, "levels"),
    (C | {"level": 2}, "level"),
]
