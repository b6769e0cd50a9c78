"""What is particular to SLaK's strips and RepLKNet's pair of kernels."""

import pytest
import torch
from torch import nn

from bench.operators import create
from bench.operators.conv import Conv
from bench.operators.slak import CrossedStrips


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("kernel_size", [5, 7, 9, 11, 13, 51])
def test_slak_fuses_to_the_form_with_fewer_taps(kernel_size):
    op = create("slak", in_channels=3, out_channels=3, kernel_size=kernel_size)
    fused = op.fuse()
    assert isinstance(fused, CrossedStrips if kernel_size > 10 else Conv)
    assert fused.macs(20, 20) == 3 * 400 * min(kernel_size**2, 2 * 5 * kernel_size)


def test_slak_params_of_the_paper():
    op = create("slak", in_channels=3, out_channels=3, kernel_size=51)
    assert op.params() == 3 * (51 * 5 + 5 * 51 + 25 + 6)
    assert op.fuse().params() == 3 * (51 * 5 + 5 * 51 + 1)


def test_replk_params_of_the_paper():
    op = create("replk", in_channels=3, out_channels=3, kernel_size=31)
    assert op.params() == 3 * (31 * 31 + 25 + 4)
    assert op.fuse().params() == 3 * (31 * 31 + 1)


@pytest.mark.parametrize(
    ("name", "contains"), [("replk", (3, 5, 7, 13)), ("slak", (3, 5)), ("dwconv", (3, 5, 7, 13))]
)
def test_carries_what_fits(name, contains):
    """A depthwise kernel that fits in one of the branches is the operator's first value."""
    x = torch.randn(2, 3, 9, 14)
    for size in (3, 5, 7, 13, 15):
        op = create(name, in_channels=3, out_channels=3, kernel_size=13).eval()
        old = nn.Conv2d(3, 3, size, padding="same", groups=3)
        assert op.carry(old) == (size in contains)
        if size in contains:
            torch.testing.assert_close(op(x), old(x))
            torch.testing.assert_close(op.fuse()(x), old(x))
