"""Plain convolution, one tap after the other, and the cases of `conv`.

A file here is named for its operator and may hold
    reference(op, x)   the training form's value in eval mode, computed slowly from the weights;
    ACCEPTS            what `create` must accept: its arguments, and optionally "sizes" (maps to
                       try, the first one for the costly checks), "exceptions" ({name of a check
                       in tests/test_operators.py: reason for leaving it out}) and "costly" (True:
                       compile and export this case too; else one of every setting of options);
    REFUSES            what `create` must refuse: (its arguments, the argument the error names).
"""

import torch
import torch.nn.functional as F


def padded(x, padding, mode):
    """x padded by (along the height, along the width); negative crops."""
    ph, pw = padding
    x = x[:, :, max(-ph, 0) : x.shape[2] - max(-ph, 0), max(-pw, 0) : x.shape[3] - max(-pw, 0)]
    ph, pw = max(ph, 0), max(pw, 0)
    return F.pad(x, (pw, pw, ph, ph), mode="constant" if mode == "zeros" else mode)


def by_taps(x, weight, bias, stride, padding, dilation, groups, mode="zeros"):
    """Correlation by its definition: a sum over taps and channels of strided slices."""
    x = padded(x, padding, mode)
    cout, per_group, kh, kw = weight.shape
    oh = (x.shape[2] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (x.shape[3] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    y = torch.zeros(x.shape[0], cout, oh, ow, dtype=x.dtype)
    for o in range(cout):
        first = o // (cout // groups) * per_group
        for c in range(per_group):
            for u in range(kh):
                for v in range(kw):
                    rows = slice(u * dilation[0], u * dilation[0] + (oh - 1) * stride[0] + 1)
                    columns = slice(v * dilation[1], v * dilation[1] + (ow - 1) * stride[1] + 1)
                    tap = x[:, first + c, rows, columns][:, :: stride[0], :: stride[1]]
                    y[:, o] += weight[o, c, u, v] * tap
    return y if bias is None else y + bias.view(1, -1, 1, 1)


def reference(op, x):
    s = op.spec
    return by_taps(
        x, op.conv.weight, op.conv.bias, s.stride, s.padding, s.dilation, s.groups, s.padding_mode
    )


ACCEPTS = [
    {"in_channels": 6, "out_channels": 8, "kernel_size": 3},
    {"in_channels": 6, "out_channels": 4, "kernel_size": 3, "stride": 2, "bias": False},
    {"in_channels": 6, "out_channels": 8, "kernel_size": (1, 5), "groups": 2, "dilation": 2},
    {"in_channels": 3, "out_channels": 4, "kernel_size": 4, "stride": 4, "padding": 0,
     "sizes": [(12, 12), (9, 14)]},
    {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding_mode": "reflect",
     "sizes": [(12, 12), (9, 14)]},
]  # fmt: skip

REFUSES = [
    ({"in_channels": 0, "out_channels": 8}, "in_channels"),
    ({"in_channels": 6, "out_channels": 8, "groups": 4}, "in_channels"),
    ({"in_channels": 8, "out_channels": 6, "groups": 4}, "out_channels"),
    ({"in_channels": 8, "out_channels": 8, "kernel_size": 0}, "kernel_size"),
    ({"in_channels": 8, "out_channels": 8, "kernel_size": (3, 3, 3)}, "kernel_size"),
    ({"in_channels": 8, "out_channels": 8, "stride": 0}, "stride"),
    ({"in_channels": 8, "out_channels": 8, "padding": -1}, "padding"),
    ({"in_channels": 8, "out_channels": 8, "padding_mode": "mirror"}, "padding_mode"),
]
