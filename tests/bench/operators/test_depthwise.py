"""The depthwise convolution of a CPU: equal to torch's, in value and in all gradients."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from bench.operators import depthwise
from bench.operators.correlation import Geometry, trimmed
from bench.operators.depthwise import DepthwiseConv2d, depthwise_conv2d

SHAPES = [  # map, kernel, stride, padding, dilation
    ((16, 16), (7, 7), (1, 1), (3, 3), (1, 1)),
    ((9, 14), (13, 13), (1, 1), (6, 6), (1, 1)),
    ((4, 4), (13, 13), (1, 1), (6, 6), (1, 1)),
    ((1, 2), (13, 13), (1, 1), (6, 6), (1, 1)),
    ((2, 31), (3, 51), (1, 1), (1, 25), (1, 1)),
    ((10, 8), (5, 5), (1, 1), (4, 4), (2, 2)),
    ((3, 7), (3, 3), (1, 1), (4, 2), (4, 2)),
    ((9, 10), (5, 3), (2, 2), (2, 1), (1, 1)),
    ((9, 11), (3, 5), (2, 3), (2, 4), (2, 2)),
    ((3, 3), (9, 9), (2, 2), (4, 4), (1, 1)),
    ((12, 9), (4, 6), (1, 1), (0, 5), (1, 1)),
    ((6, 5), (6, 1), (1, 1), (0, 0), (1, 1)),
    ((5, 5), (3, 3), (1, 1), (3, 3), (1, 1)),  # wider padding than the kernel reaches
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_torchs(shape):
    size, kernel, stride, padding, dilation = shape
    generator = torch.Generator().manual_seed(0)
    draw = {"generator": generator, "dtype": torch.float64, "requires_grad": True}
    x, weight = torch.randn(3, 4, *size, **draw), torch.randn(4, 1, *kernel, **draw)
    bias = torch.randn(4, **draw)
    ours = depthwise_conv2d(x, weight, bias, stride, padding, dilation)
    theirs = F.conv2d(x, weight, bias, stride, padding, dilation, groups=4)
    torch.testing.assert_close(ours, theirs)
    above = torch.randn(theirs.shape, generator=generator, dtype=torch.float64)
    for mine, plain in zip(
        torch.autograd.grad(ours, (x, weight, bias), above),
        torch.autograd.grad(theirs, (x, weight, bias), above),
        strict=True,
    ):
        torch.testing.assert_close(mine, plain)


@pytest.mark.parametrize("shape", SHAPES[5:10], ids=str)
def test_it_can_be_differentiated_twice(shape):
    size, kernel, *rest = shape
    size = tuple(min(side, 6) for side in size)
    torch.manual_seed(0)
    inputs = [
        torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True),
        torch.randn(2, 1, *kernel, dtype=torch.float64, requires_grad=True),
    ]

    def run(x, weight):
        return depthwise_conv2d(x, weight, None, *rest)

    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_several_kernels_a_channel():
    x, weight = torch.randn(2, 3, 6, 6, requires_grad=True), torch.randn(6, 1, 3, 3)
    torch.testing.assert_close(
        depthwise_conv2d(x, weight, padding=(1, 1)), F.conv2d(x, weight, padding=1, groups=3)
    )


def test_taps_outside_the_map_are_left_out_and_no_others():
    for size, taps, dilation in itertools.product(range(1, 7), (3, 5, 9), (1, 2)):
        pad = dilation * (taps // 2)
        kernel = torch.zeros(1, 1, taps, taps)
        same = Geometry((1, 1), (pad, pad, pad, pad), (dilation, dilation))
        kernel, _ = trimmed(kernel, (size, size), same)
        meets = sum(abs(t - taps // 2) * dilation < size for t in range(taps))
        assert kernel.shape[2:] == (meets, meets)


def test_only_what_is_asked_for_is_computed(monkeypatch):
    called = []
    for name in ("_of_x", "_of_weight"):
        real = getattr(depthwise, name)
        monkeypatch.setattr(
            depthwise, name, lambda *a, n=name, r=real: (called.append(n), r(*a))[1]
        )
    x, weight = torch.randn(1, 2, 5, 5), torch.randn(2, 1, 3, 3, requires_grad=True)
    depthwise_conv2d(x, weight, padding=(1, 1)).sum().backward()
    assert called == ["_of_weight"]
    with torch.no_grad():
        assert not depthwise_conv2d(x, weight, padding=(1, 1)).requires_grad


def test_other_types_are_torchs_affair():
    conv = DepthwiseConv2d(4, 4, 7, padding=3, groups=4)
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv(x)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("mode", ["reflect", "circular"])
def test_other_padding_is_torchs_affair(mode):
    torch.manual_seed(0)
    conv = DepthwiseConv2d(2, 2, 3, padding=1, groups=2, padding_mode=mode)
    plain = torch.nn.Conv2d(2, 2, 3, padding=1, groups=2, padding_mode=mode)
    plain.load_state_dict(conv.state_dict())
    x = torch.randn(1, 2, 5, 5)
    torch.testing.assert_close(conv(x), plain(x))
