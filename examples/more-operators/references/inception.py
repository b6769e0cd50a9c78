"""One dense kernel a channel, and the cases of `inception`."""

import torch
import torch.nn.functional as F


def reference(op, x):
    c, g = op.spec.in_channels, op.part
    size = max(max(conv.weight.shape[2:]) for conv in (op.square, op.across, op.down))
    kernel = torch.zeros(c, 1, size, size, dtype=x.dtype)
    bias = torch.zeros(c, dtype=x.dtype)
    for number, conv in enumerate((op.square, op.across, op.down)):
        kh, kw = conv.weight.shape[2:]
        for i in range(g):
            for u in range(kh):
                for v in range(kw):
                    row, column = size // 2 - kh // 2 + u, size // 2 - kw // 2 + v
                    kernel[number * g + i, 0, row, column] = conv.weight[i, 0, u, v]
            if conv.bias is not None:
                bias[number * g + i] = conv.bias[i]
    kernel[3 * g :, 0, size // 2, size // 2] = 1
    return F.conv2d(x, kernel, bias, 1, size // 2, 1, c)


C = {"in_channels": 16, "out_channels": 16}
ACCEPTS = [
    C | {"kernel_size": 7},
    C | {"kernel_size": 3, "bias": False, "ratio": 1 / 3, "band_kernel": 5},
    {"in_channels": 9, "out_channels": 9, "kernel_size": 7, "square_kernel": 5},
]

REFUSES = [
    ({"in_channels": 16, "out_channels": 32}, "out_channels"),
    (C | {"groups": 4}, "groups"),
    (C | {"kernel_size": 4}, "kernel_size"),
    (C | {"padding": 2}, "padding"),
    (C | {"dilation": 2}, "dilation"),
    (C | {"padding_mode": "reflect"}, "padding_mode"),
    (C | {"stride": 2}, "stride"),
    (C | {"square_kernel": 2}, "square_kernel"),
    (C | {"band_kernel": 11.0}, "band_kernel"),
    (C | {"ratio": 0.5}, "ratio"),
    ({"in_channels": 6, "out_channels": 6}, "ratio"),
    (C | {"ratios": 0.5}, "ratios"),
]
