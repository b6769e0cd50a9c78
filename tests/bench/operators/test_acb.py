"""What is particular to the asymmetric convolution block."""

import pytest
import torch
from torch import nn

from bench.operators import create
from bench.operators.conv import Conv


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomise(norm):
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return norm.eval()


def relative(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize("padding", range(7))
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_shape_of_the_replaced_convolution(kernel_size, dilation, padding):
    """At every padding, less and more than "same", on an odd rectangle, at strides 1 and 2."""
    for stride in (1, 2):
        shape = {"kernel_size": kernel_size, "stride": stride, "padding": padding}
        op = create("acb", in_channels=2, out_channels=3, dilation=dilation, **shape).eval()
        x = torch.randn(1, 2, 19, 22)
        assert op(x).shape == nn.Conv2d(2, 3, dilation=dilation, **shape)(x).shape
        assert relative(op.fuse()(x), op(x)) < 1e-5


def test_strips_are_added_to_the_central_column_and_row():
    op = create("acb", in_channels=1, out_channels=1, kernel_size=5).eval()
    with torch.no_grad():
        for branch, value in ((op.square, 0), (op.vertical, 1), (op.horizontal, 10)):
            branch.conv.weight.fill_(value)
            branch.norm.running_var.fill_(1 - branch.norm.eps)
    expected = torch.zeros(5, 5)
    expected[:, 2] += 1
    expected[2, :] += 10
    fused = op.fuse()
    assert isinstance(fused, Conv)
    torch.testing.assert_close(fused.conv.weight[0, 0], expected)
    assert fused.conv.bias.tolist() == [0]


def test_params_and_macs_of_the_paper():
    op = create("acb", in_channels=8, out_channels=16, kernel_size=3, groups=2)
    assert op.params() == 8 // 2 * 16 * (9 + 6) + 6 * 16
    assert op.fuse().params() == 8 // 2 * 16 * 9 + 16
    assert op.macs(14, 20) * 3 == op.fuse().macs(14, 20) * 5


def test_gamma_init():
    op = create("acb", in_channels=4, out_channels=4, gamma_init=1 / 3)
    for branch in (op.square, op.vertical, op.horizontal):
        assert branch.norm.weight.tolist() == pytest.approx([1 / 3] * 4)


@pytest.mark.parametrize("norm", ["affine", "plain", "none"])
@pytest.mark.parametrize("bias", [True, False])
def test_carries_convolution_and_norm(bias, norm):
    """The value of the pair at first; the strips learn from the first step on."""
    old = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=bias)
    behind = None
    if norm != "none":
        behind = nn.BatchNorm2d(6, eps=1e-2, affine=norm == "affine")
        behind.running_mean.normal_()
        behind.running_var.uniform_(0.01, 2)
        behind.eval()
    if norm == "affine":
        randomise(behind)
    op = create("acb", in_channels=4, out_channels=6, stride=2, bias=bias).eval()
    assert op.carry(old, behind)
    x = torch.randn(2, 4, 9, 13)
    expected = old(x) if behind is None else behind(old(x))
    assert relative(op(x), expected) < 1e-5
    assert relative(op.fuse()(x), expected) < 1e-5
    op.train()(x).square().sum().backward()
    assert op.vertical.norm.weight.grad.any()
    assert op.horizontal.norm.weight.grad.any()


def test_training_mode_of_a_carried_pair_is_the_pairs():
    old, behind = nn.Conv2d(4, 6, 3, padding=1, bias=False), randomise(nn.BatchNorm2d(6))
    with torch.no_grad():  # so that √(var + ε) of both is the same to the last digits
        behind.running_var.fill_(1)
    op = create("acb", in_channels=4, out_channels=6, bias=False)
    assert op.carry(old, behind)
    x = torch.randn(2, 4, 9, 13)
    assert relative(op.train()(x), behind.train()(old(x))) < 1e-5
    torch.testing.assert_close(op.square.norm.running_mean, behind.running_mean)
    torch.testing.assert_close(op.square.norm.running_var, behind.running_var)


def test_other_norms_are_not_carried():
    op = create("acb", in_channels=4, out_channels=4)
    before = op.square.conv.weight.clone()
    assert not op.carry(nn.Conv2d(4, 4, 3, padding=1), nn.GroupNorm(2, 4))
    assert torch.equal(op.square.conv.weight, before)
