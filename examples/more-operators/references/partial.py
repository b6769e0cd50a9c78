"""One dense kernel over all channels, and the cases of `partial`."""

import torch
import torch.nn.functional as F


def reference(op, x):
    s = op.spec
    (kh, kw), c, p = s.kernel_size, s.in_channels, op.part
    kernel = torch.zeros(c, c, kh, kw, dtype=x.dtype)
    bias = torch.zeros(c, dtype=x.dtype)
    kernel[:p, :p] = op.conv.weight
    if op.conv.bias is not None:
        bias[:p] = op.conv.bias
    for channel in range(p, c):
        kernel[channel, channel, kh // 2, kw // 2] = 1
    if s.padding_mode != "zeros":
        (ph, pw) = s.padding
        return F.conv2d(F.pad(x, (pw, pw, ph, ph), s.padding_mode), kernel, bias)
    return F.conv2d(x, kernel, bias, 1, s.padding, s.dilation)


C = {"in_channels": 8, "out_channels": 8}
ACCEPTS = [
    C | {"kernel_size": 3},
    C | {"kernel_size": (3, 5), "dilation": 2, "groups": 8, "bias": False, "divisor": 3},
    C | {"divisor": 1, "padding_mode": "circular", "sizes": [(12, 12), (9, 14)]},
]

REFUSES = [
    ({"in_channels": 8, "out_channels": 4}, "out_channels"),
    (C | {"kernel_size": 4}, "kernel_size"),
    (C | {"padding": 0}, "padding"),
    (C | {"stride": 2}, "stride"),
    (C | {"divisor": 9}, "divisor"),
    (C | {"divisor": 0}, "divisor"),
    (C | {"divisor": 2.0}, "divisor"),
    (C | {"divisors": 2}, "divisors"),
]
