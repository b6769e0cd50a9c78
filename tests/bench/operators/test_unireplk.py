"""What is particular to UniRepLKNet's operator and block."""

import copy
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.backbones.unireplk_block import GRN, SqueezeExcite, UniRepLKBlock
from bench.operators import create
from bench.operators.conv import Conv
from bench.operators.unireplk import BRANCHES, dilated_branches


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomise(module):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
        for m in module.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.normal_(0, 0.5, generator=generator)
                m.running_var.uniform_(0.5, 2, generator=generator)
    return module.eval()


def relative(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def block(name="unireplk", kernel_size=13, channels=6, **options):
    operator = create(
        name, in_channels=channels, out_channels=channels, kernel_size=kernel_size,
        resolution=14, bias=False, **options,
    )  # fmt: skip
    return UniRepLKBlock(operator)


@pytest.mark.parametrize("kernel_size", BRANCHES)
def test_papers_branches_fit(kernel_size):
    assert dilated_branches(kernel_size, BRANCHES[kernel_size]) == BRANCHES[kernel_size]


def test_params_of_13():
    """K² + Σk² + 2(1 + n) = 169 + 101 + 12 a channel; fused K² + 1."""
    op = create("unireplk", in_channels=10, out_channels=10, kernel_size=13)
    assert op.params() == 10 * 282
    assert op.fuse().params() == 10 * 170


def test_every_dilated_tap_lies_on_the_spread_grid():
    """A branch alone, fused, has its weights at multiples of r from the centre and zeros else."""
    op = create("unireplk", in_channels=1, out_channels=1, kernel_size=13, branches=[(3, 5)]).eval()
    with torch.no_grad():
        op.large.conv.weight.zero_()
        op.dilated[0].norm.running_var.fill_(1 - op.dilated[0].norm.eps)
    kernel = op.fuse().conv.weight[0, 0]
    expected = torch.zeros(13, 13)
    for u in range(3):
        for v in range(3):
            expected[6 + 5 * (u - 1), 6 + 5 * (v - 1)] = op.dilated[0].conv.weight[0, 0, u, v]
    torch.testing.assert_close(kernel, expected)


def test_small_weights_are_carried_into_the_middle():
    op = create("unireplk", in_channels=4, out_channels=4, kernel_size=7).eval()
    old = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4)
    assert op.carry(old)
    x = torch.randn(2, 4, 9, 11)
    assert relative(op(x), old(x)) < 1e-5
    op.train()(x).square().mean().backward()
    assert all(branch.norm.weight.grad.any() for branch in op.dilated)


@pytest.mark.parametrize(
    "old",
    [
        nn.Conv2d(4, 4, 9, padding=4, groups=4),
        nn.Conv2d(4, 4, 3, padding=0, groups=4),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding=1, stride=2, groups=4),
        nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="circular"),
    ],
    ids=["larger", "padding", "dense", "stride", "padding_mode"],
)
def test_what_is_not_contained_is_not_carried(old):
    op = create("unireplk", in_channels=4, out_channels=4, kernel_size=7)
    before = copy.deepcopy(op.state_dict())
    assert not op.carry(old)
    assert all(torch.equal(before[k], v) for k, v in op.state_dict().items())


def test_grn_by_loops():
    grn = randomise(GRN(5)).double()
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    out = grn(x)
    for n in range(2):
        strengths = [sum(v.item() ** 2 for v in x[n, c].flatten()) ** 0.5 for c in range(5)]
        for c in range(5):
            factor = strengths[c] / (sum(strengths) / 5 + 1e-6)
            expected = grn.gamma[c] * x[n, c] * factor + grn.beta[c] + x[n, c]
            torch.testing.assert_close(out[n, c], expected)


def test_squeeze_excite_is_a_factor_per_channel():
    se = randomise(SqueezeExcite(8))
    x = torch.randn(2, 8, 5, 6)
    hidden = F.relu(F.linear(x.mean((2, 3)), se.down.weight[:, :, 0, 0], se.down.bias))
    factor = torch.sigmoid(F.linear(hidden, se.up.weight[:, :, 0, 0], se.up.bias))
    torch.testing.assert_close(se(x), x * factor[:, :, None, None])


@pytest.mark.parametrize(
    ("name", "kernel_size", "folds"),
    [("unireplk", 13, True), ("dwconv", 3, True), ("slak", 13, False), ("acb", 3, False)],
)
def test_block_fuses_exactly(name, kernel_size, folds):
    """`folds`: the norm behind the operator goes into the operator's one convolution."""
    ours = randomise(block(name, kernel_size))
    before = copy.deepcopy(ours.state_dict())
    fused = ours.fuse()
    x = torch.randn(2, 6, 14, 9)
    # The branch alone: with the input added the comparison would be weaker.
    assert relative(fused(x) - x, ours(x) - x) < 1e-5
    assert relative(ours(x), x) > 0.03
    assert (isinstance(fused.operator, Conv) and isinstance(fused.norm, nn.Identity)) == (
        folds or name == "acb"
    )
    assert fused.grn.beta is None
    assert fused.gamma is None
    assert all(torch.equal(before[k], v) for k, v in ours.state_dict().items())
    again = fused.fuse()
    assert relative(again(x), fused(x)) < 1e-6


def test_params_of_a_fused_block():
    """Operators.md: train − fused is 120 C for a LarK block of K = 13, and 7 C for a SmaK block."""
    for name, kernel_size, fewer in (("unireplk", 13, 120), ("dwconv", 3, 7)):
        ours = block(name, kernel_size, channels=8)
        count = sum(p.numel() for p in ours.parameters())
        assert count - sum(p.numel() for p in ours.fuse().parameters()) == fewer * 8


def test_block_round_trips_in_both_forms():
    ours, other = randomise(block()), block()
    x = torch.randn(1, 6, 9, 14)
    other.load_state_dict(ours.state_dict())
    assert torch.equal(other.eval()(x), ours(x))
    fused = block().fuse()
    fused.load_state_dict(ours.fuse().state_dict())
    assert torch.equal(fused(x), ours.fuse()(x))


def test_block_gradients():
    ours = randomise(block(channels=16)).double()
    ours(torch.randn(2, 16, 7, 6, dtype=torch.float64)).square().sum().backward()
    assert all(p.grad.any() for p in ours.parameters())


def test_block_refuses_an_operator_that_changes_the_map():
    with pytest.raises(ValueError, match=r"`stride` \(=\(2, 2\)\)"):
        UniRepLKBlock(create("dwconv", in_channels=4, out_channels=4, stride=2))
    with pytest.raises(ValueError, match=r"`out_channels` \(=8\)"):
        UniRepLKBlock(create("conv", in_channels=4, out_channels=8))


@pytest.mark.slow
def test_block_compiles_and_exports():
    ort = pytest.importorskip("onnxruntime")
    ours = randomise(block())
    x = torch.randn(1, 6, 9, 14)
    for form in (ours, ours.fuse()):
        torch.compiler.reset()
        expected = form(x)
        assert (
            relative(torch.compile(form, fullgraph=True, backend="aot_eager")(x), expected) < 1e-5
        )
        file = io.BytesIO()
        torch.onnx.export(form, (x,), dynamo=True, verbose=False).save(file)
        session = ort.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
        (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert relative(torch.from_numpy(np.asarray(out)), expected) < 1e-5
    torch.compiler.reset()
