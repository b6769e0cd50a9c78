"""What is particular to ParC: equal forms, exports, choice of the form, the halves, its size."""

import io
import itertools

import pytest
import torch

from bench import operators
from bench.operators.parc_circular import circular_circulant, circular_direct, circular_fft


def make(channels=6, **options):
    torch.manual_seed(0)
    options.setdefault("resolution", (8, 12))
    op = operators.create("parc", in_channels=channels, out_channels=channels, **options)
    with torch.no_grad():
        for p in op.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return op.eval()


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("fan", [1, 4])
def test_forms_are_equal(fan, dim, stride):
    x = torch.randn(2, 4, 9, 14, dtype=torch.float64)
    weight = torch.randn(4, fan, x.shape[dim], dtype=torch.float64)
    direct = circular_direct(x, weight, dim, stride)
    for other in (circular_fft, circular_circulant):
        torch.testing.assert_close(other(x, weight, dim, stride), direct, rtol=1e-12, atol=1e-12)


def test_tap_zero_lies_on_the_pixel():
    op = make(position_embedding=False, axis="height")
    with torch.no_grad():
        for p in op.parameters():
            p.zero_()
        op.axes[0].weight[:, :, 0] = 1
    x = torch.randn(2, 6, 8, 12)
    torch.testing.assert_close(op(x), x)


def test_single_precision_forms_agree_to_paper():
    op, x = make(64, resolution=56), torch.randn(2, 64, 56, 56)
    values = []
    for op.form in ("direct", "fft", "circulant"):
        values.append(op(x))
    for a, b in itertools.combinations(values, 2):
        assert (a - b).abs().max() / a.abs().max() < 1e-6


@pytest.mark.parametrize("groups", [1, 6])
def test_form_is_chosen_and_checked(groups):
    op = make(groups=groups)
    assert op.computed_form() == ("direct" if groups == 1 else "circulant")
    op.form = "fft"
    assert op.computed_form() == "fft"
    with pytest.raises(ValueError, match=r"`form` \(='fast'\)"):
        op.form = "fast"


def test_odd_channels_split_unevenly():
    op = make(5)
    assert [conv.weight.shape[0] for conv in op.axes] == [2, 3]
    x = torch.randn(1, 5, 8, 12)
    moved = x.clone()
    moved[:, 0] += torch.randn(8, 1)  # the first half runs along the height
    changed = (op(moved) - op(x)).abs().amax((0, 2, 3)) > 1e-6
    assert changed.tolist() == [True, False, False, False, False]


def test_reaches_every_pixel_of_its_line():
    op = make()
    x = torch.zeros(1, 6, 8, 12, requires_grad=True)
    op(x)[0, :, 3, 5].sum().backward()
    reach = x.grad[0].ne(0)
    assert reach[:3, :, 5].all()
    assert reach[3:, 3, :].all()
    assert reach.sum() == 3 * 8 + 3 * 12


def test_folded_bias_at_the_stored_size_and_at_others():
    op = make(stride=2)
    fused = op.fuse()
    assert {"axes.0.weight", "axes.0.position_bias", "axes.0.bias", "axes.0.pe"} < set(
        fused.state_dict()
    )
    assert dict(fused.named_parameters()).keys().isdisjoint({"axes.0.pe", "axes.0.bias"})
    for size in ((8, 12), (16, 11), (1, 1)):
        x = torch.randn(2, 6, *size)
        torch.testing.assert_close(fused(x), op(x))
        torch.testing.assert_close(fused.fuse()(x), op(x))


@pytest.mark.parametrize(("groups", "expected"), [(96, 96 * (2 * 14 + 1)), (1, 96 * 48 * 14)])
def test_size_and_cost_of_a_pair(groups, expected):
    """C(2K + 1) parameters and C·S³ MACs depthwise; C²K/2 weights and C²S³/2 MACs dense."""
    op = operators.create("parc", in_channels=96, out_channels=96, groups=groups, resolution=14)
    fan = 96 // groups
    tables = 0 if groups == 96 else 96 * (14 + 1)
    assert op.params() == expected + tables
    assert op.macs(14, 14) == (96 * 14**3 if fan == 1 else 96 * 96 * 14**3 // 2)


def test_fft_cost_beats_direct_on_large_maps_only():
    op = make(resolution=56)
    costs = {}
    for op.form in ("direct", "fft", "circulant"):
        costs[op.form] = (op.macs(112, 112), op.macs(7, 7))
    assert costs["direct"] == costs["circulant"] == (6 * 112**3, 6 * 7**3)
    assert costs["fft"][0] < costs["direct"][0] / 4
    assert costs["fft"][1] > costs["direct"][1]


def test_half_precision_fft_stays_near():
    op, x = make(form="fft"), torch.randn(2, 6, 8, 12)
    with torch.autocast("cpu", torch.bfloat16):
        assert (op(x.bfloat16()) - op(x)).abs().max() < 0.1
    half = make(form="fft").half()
    assert half(x.half()).dtype == torch.float16
    torch.testing.assert_close(half(x.half()).float(), op(x), rtol=0.02, atol=0.02)


@pytest.mark.slow
def test_fft_form_exports_as_the_circulant_one():
    ort = pytest.importorskip("onnxruntime")
    op, x = make(form="fft"), torch.randn(1, 6, 8, 12)
    program = torch.export.export(op, (x,))
    assert not any("fft" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(x), op(x))
    file = io.BytesIO()
    torch.onnx.export(op, (x,), dynamo=True, verbose=False).save(file)
    session = ort.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(out), op(x).detach(), rtol=1e-5, atol=1e-5)
    assert op.computed_form() == "fft"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["direct", "fft", "circulant"])
def test_every_form_compiles_whole(form):
    op, x = make(form=form), torch.randn(2, 6, 8, 12)
    torch.compiler.reset()
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), op(x))


@pytest.mark.parametrize("axis", ["height", "width", "both"])
@torch.no_grad()
def test_both_axes_are_written_into_one_map(axis):
    torch.manual_seed(0)
    op = operators.create(
        "parc", in_channels=6, out_channels=6, groups=6, resolution=(9, 14), axis=axis
    )
    assert op.eval().forms(torch.zeros(1, 6, 9, 14)) == ("axes",)  # the embedding is added before
    fused = op.fuse()
    for size in ((9, 14), (14, 9), (1, 7), (56, 3)):
        x = torch.randn(2, 6, *size)
        assert fused.forms(x) == ("axes", "stacked", "lines")
        for form, layout in itertools.product(
            ("stacked", "lines"), (torch.contiguous_format, torch.channels_last)
        ):
            y = fused.prepared(form, x)(x.contiguous(memory_format=layout))
            torch.testing.assert_close(y, op(x), rtol=1e-4, atol=1e-5)
