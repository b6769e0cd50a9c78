"""ParC by rolling the map once per tap and adding up; tables resampled by hand."""

import torch


def resampled(table, size):
    """The last axis at `size` points spread evenly from the first to the last entry."""
    length = table.shape[-1]
    columns = []
    for i in range(size):
        at = i * (length - 1) / (size - 1) if size > 1 else 0.0
        low = min(int(at), length - 1)
        high = min(low + 1, length - 1)
        columns.append((1 - (at - low)) * table[..., low] + (at - low) * table[..., high])
    return torch.stack(columns, dim=-1)


def rolled(x, weight, bias, pe, dim):
    """Circular correlation along one axis, tap after tap."""
    n = x.shape[dim]
    weight = resampled(weight, n)
    if pe is not None:
        x = x + resampled(pe, n).unsqueeze(4 - dim)
    y = bias.view(1, -1, 1, 1) + torch.zeros_like(x)
    for k in range(n):
        turned = torch.roll(x, -k, dims=dim)
        if weight.shape[1] == 1:
            y = y + weight[:, 0, k].view(1, -1, 1, 1) * turned
        else:
            y = y + torch.einsum("oc,nchw->nohw", weight[:, :, k], turned)
    return y


def reference(op, x):
    first = {"height": x.shape[1], "width": 0, "both": x.shape[1] // 2}[op.axis]
    parts, convs = [], list(op.axes)
    for dim, part in ((2, x[:, :first]), (3, x[:, first:])):
        if part.shape[1]:
            conv = convs.pop(0)
            parts.append(rolled(part, conv.weight, conv.bias, conv.pe, dim))
    y = torch.cat(parts, dim=1)
    return y[:, :, :: op.spec.stride[0], :: op.spec.stride[1]]


NO_COUNTER = {"check_macs": "the counter knows no FFT"}
DEPTHWISE = {"in_channels": 6, "out_channels": 6, "kernel_size": 7, "resolution": 12}
DENSE = {**DEPTHWISE, "kernel_size": 3, "groups": 1}

ACCEPTS = [
    DEPTHWISE,
    {**DEPTHWISE, "form": "fft", "exceptions": NO_COUNTER},
    {**DEPTHWISE, "form": "direct", "stride": 2, "in_channels": 5, "out_channels": 5},
    {**DEPTHWISE, "form": "circulant", "axis": "height", "resolution": (12, 5)},
    {**DEPTHWISE, "form": "fft", "axis": "width", "stride": (1, 2), "exceptions": NO_COUNTER},
    {**DEPTHWISE, "position_embedding": False, "stride": 3},
    DENSE,
    {**DENSE, "form": "fft", "stride": 2, "exceptions": NO_COUNTER},
    {**DENSE, "form": "circulant", "stride": (2, 1), "resolution": (9, 14),
     "sizes": [(9, 14), (12, 12), (2, 1)]},
    {**DENSE, "in_channels": 1, "out_channels": 1, "axis": "width"},
]  # fmt: skip

REFUSES = [
    ({**DEPTHWISE, "resolution": None}, "resolution"),
    ({**DEPTHWISE, "out_channels": 12}, "out_channels"),
    ({**DEPTHWISE, "groups": 3}, "groups"),
    ({**DEPTHWISE, "padding": 0}, "padding"),
    ({**DEPTHWISE, "kernel_size": 4}, "padding"),
    ({**DEPTHWISE, "axis": "depth"}, "axis"),
    ({**DEPTHWISE, "form": "winograd"}, "form"),
    ({**DEPTHWISE, "in_channels": 1, "out_channels": 1}, "in_channels"),
]
