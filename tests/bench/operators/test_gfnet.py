"""What is particular to GFNet's filter: its spectrum, and other sizes of the map."""

import math

import pytest
import torch

from bench import operators
from bench.operators.gfnet import global_filter, resample_filter


def test_gains_of_one_leave_the_map_as_it_is():
    x = torch.randn(2, 3, 9, 14, dtype=torch.float64)
    gains = torch.zeros(2, 3, 9, 8, dtype=torch.float64)
    gains[0] = 1
    torch.testing.assert_close(global_filter(x, gains), x)


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (16, 5), (1, 1), (31, 64)])
def test_a_constant_map_keeps_its_gain_at_every_size(size):
    op = operators.create("gfnet", in_channels=4, out_channels=4, resolution=(8, 10))
    y = op(torch.ones(1, 4, *size))
    torch.testing.assert_close(
        y, op.gains[0, :, 0, 0].view(1, 4, 1, 1).expand_as(y), rtol=1e-4, atol=1e-6
    )


def test_a_frequency_keeps_its_gain_on_a_map_twice_as_large():
    gains = torch.randn(2, 3, 8, 5, dtype=torch.float64)
    large = resample_filter(gains, 16, 16)
    torch.testing.assert_close(large[:, :, ::2, ::2], gains)
    torch.testing.assert_close(large[:, :, 15], (large[:, :, 14] + large[:, :, 0]) / 2)


def test_shifts_by_a_linear_phase():
    x = torch.randn(1, 1, 8, 12, dtype=torch.float64)
    phase = (
        -2
        * math.pi
        * (
            3 * torch.arange(8, dtype=torch.float64)[:, None] / 8
            + 5 * torch.arange(7, dtype=torch.float64)[None] / 12
        )
    )
    gains = torch.stack([phase.cos(), phase.sin()])[:, None]
    torch.testing.assert_close(global_filter(x, gains), x.roll((3, 5), (2, 3)))


def test_half_precision_is_computed_in_single():
    op = operators.create("gfnet", in_channels=4, out_channels=4, resolution=8)
    x = torch.randn(1, 4, 8, 8)
    for dtype in (torch.float16, torch.bfloat16):
        y = op(x.to(dtype))
        assert y.dtype == dtype
        torch.testing.assert_close(y.float(), op(x), rtol=0.02, atol=0.002)
