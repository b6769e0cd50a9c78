"""The formula of StripConv, tap by tap, and the cases of `strip`."""

import torch


def correlate(x, weight, bias):
    """Depthwise correlation with zeros outside: one shifted copy of the map for every tap."""
    kh, kw = weight.shape[2:]
    _, _, height, width = x.shape
    out = torch.zeros_like(x) if bias is None else bias[:, None, None].expand_as(x).clone()
    for u in range(kh):
        for v in range(kw):
            shifted = torch.zeros_like(x)
            for i in range(height):
                for j in range(width):
                    row, column = i + u - kh // 2, j + v - kw // 2
                    if 0 <= row < height and 0 <= column < width:
                        shifted[:, :, i, j] = x[:, :, row, column]
            out += weight[:, 0, u, v, None, None] * shifted
    return out


def reference(op, x):
    seen = x
    for conv in (op.small, op.across, op.down):
        seen = correlate(seen, conv.weight, conv.bias)
    mixed = torch.einsum("oc,nchw->nohw", op.mix.weight[:, :, 0, 0], seen)
    return x * (mixed + op.mix.bias[:, None, None])


C = {"in_channels": 6, "out_channels": 6}
ACCEPTS = [
    C | {"kernel_size": 7, "sizes": [(8, 8), (5, 9), (2, 1)]},
    C | {"small_kernel": 3, "strip_kernel": 7, "bias": False, "sizes": [(8, 8), (5, 9), (2, 1)]},
]

REFUSES = [
    ({"in_channels": 4, "out_channels": 8}, "out_channels"),
    (C | {"groups": 2}, "groups"),
    (C | {"kernel_size": 4}, "kernel_size"),
    (C | {"padding": 2}, "padding"),
    (C | {"dilation": 2}, "dilation"),
    (C | {"padding_mode": "reflect"}, "padding_mode"),
    (C | {"stride": 2}, "stride"),
    (C | {"small_kernel": 4}, "small_kernel"),
    (C | {"strip_kernel": 0}, "strip_kernel"),
    (C | {"strip": 19}, "strip"),
]
