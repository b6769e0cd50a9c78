"""The supernet's layer, one tap after the other, and the cases of `edo`."""

import torch
import torch.nn.functional as F


def reference(op, x):
    s, large = op.spec, op.weight
    kh, kw = large.shape[2:]
    x = F.pad(x, (kw // 2, kw // 2, kh // 2, kh // 2))
    y = None
    for o_group in range(s.groups):
        cout, cin = s.out_channels // s.groups, s.in_channels // s.groups
        part = x[:, o_group * cin : (o_group + 1) * cin]
        weight = large[o_group * cout : (o_group + 1) * cout]
        out = 0
        for u in range(kh):
            for v in range(kw):
                tap = part[:, :, u : x.shape[2] - kh + 1 + u, v : x.shape[3] - kw + 1 + v]
                tap = tap[:, :, :: s.stride[0], :: s.stride[1]]
                out = out + torch.einsum("oc,nchw->nohw", weight[:, :, u, v], tap)
        y = out if y is None else torch.cat([y, out], 1)
    bias = op.wide.conv.bias
    return y if bias is None else y + bias.view(1, -1, 1, 1)


BASE = {"in_channels": 6, "out_channels": 8, "kernel_size": 3}

ACCEPTS = [
    {**BASE},
    {**BASE, "stride": 2, "bias": False, "dmax": 2},
    {**BASE, "groups": 2, "kernel_size": (1, 5), "dmax": 3},
    {**BASE, "in_channels": 8, "groups": 8, "dmax": 1},
]

REFUSES = [
    ({**BASE, "kernel_size": 4}, "kernel_size"),
    ({**BASE, "padding": 0}, "padding"),
    ({**BASE, "dilation": 2}, "dilation"),
    ({**BASE, "padding_mode": "reflect"}, "padding_mode"),
    ({**BASE, "dmax": 0}, "dmax"),
]
