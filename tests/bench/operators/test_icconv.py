"""What is particular to IC-Conv: patterns and their files, the fan, groups, the fast forms."""

import itertools
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench import operators
from bench.operators import jit
from bench.operators.conv import Conv
from bench.operators.icconv_patterns import (
    default_pattern,
    key,
    read_patterns,
    strands,
    write_patterns,
)


def make(cin=8, cout=8, **options):
    torch.manual_seed(0)
    return operators.create("icconv", in_channels=cin, out_channels=cout, **options)


def concatenated(op, x):
    """One grouped dilated convolution after the other, side by side."""
    s, parts = op.spec, []
    for (dh, dw), start, stop in op.layout:
        padding = (dh * (s.kernel_size[0] // 2), dw * (s.kernel_size[1] // 2))
        weight, bias = op.weight[start:stop], op.bias[start:stop]
        parts.append(F.conv2d(x, weight, bias, s.stride, padding, (dh, dw), s.groups))
    return torch.cat(parts, 1)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kernel_size", [3, 5, (1, 7)])
@pytest.mark.parametrize("stride", [1, 2])
def test_equals_the_concatenation(groups, kernel_size, stride):
    pattern = default_pattern(64, plain_share=0.25, unit=groups) | {"(7, 5)": 0}
    op = make(8, 64, groups=groups, kernel_size=kernel_size, stride=stride, pattern=pattern)
    x = torch.randn(2, 8, 9, 14)
    for form in (op, op.fuse()):
        torch.testing.assert_close(form(x), concatenated(op, x), rtol=1e-5, atol=1e-6)


def test_gradients_of_the_fast_form_are_those_of_the_concatenation():
    op, x = make(8, 20).double(), torch.randn(2, 8, 9, 14, dtype=torch.float64)
    grads = []
    for value in (op, lambda x: concatenated(op, x)):
        leaf = x.clone().requires_grad_()
        inputs = [leaf, op.weight, op.bias]
        grads.append(torch.autograd.grad(value(leaf).sin().sum(), inputs))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_wide_strands_are_convolutions_and_narrow_ones_share_a_product():
    op = make(8, 48, pattern={"(0, 0)": 4, "(1, 1)": 32, "(0, 2)": 12})
    assert [op.inception.narrow(strand) for strand in op.layout] == [False, False, True]
    assert op.inception.points(op.layout[2:]).shape == (12 * 9, 8, 1, 1)
    x = torch.zeros(1, 8, 9, 9)
    assert op.forms(x)[0] == "folded"
    assert make(8, 48, pattern={"(0, 0)": 4, "(1, 1)": 44}, stride=2).forms(x) == ("strands",)


def test_one_dilation_fuses_to_a_plain_convolution():
    op = make(pattern={"(1, 2)": 8})
    fused = op.fuse()
    assert isinstance(fused, Conv)
    assert (fused.spec.dilation, fused.spec.padding) == ((2, 3), (2, 3))


def test_weights_start_with_the_fan_of_the_whole_layer():
    ours = make(8, 20, kernel_size=5)
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 20, 5)
    assert torch.equal(ours.weight, plain.weight)
    assert torch.equal(ours.bias, plain.bias)


def test_depthwise_keeps_channel_to_channel():
    op = make(groups=8, pattern={"(0, 0)": 3, "(2, 3)": 5})
    x = torch.randn(1, 8, 9, 14)
    moved = x.clone()
    moved[:, 4] += 1
    assert (op(moved) - op(x)).abs().amax((0, 2, 3)).nonzero().tolist() == [[4]]


def test_weights_of_another_pattern_are_refused():
    source, target = make(pattern={"(0, 0)": 8}), make(pattern={"(1, 0)": 8})
    with pytest.raises(RuntimeError, match=r"`pattern` \(=\{'\(1, 0\)': 8\}\).*dilations differ"):
        target.load_state_dict(source.state_dict())
    assert target.dilations.tolist() == [[2, 1]] * 8


def test_carries_a_plain_convolution_where_nothing_is_dilated():
    conv, x = nn.Conv2d(8, 8, 3, padding=1, bias=False), torch.randn(1, 8, 9, 14)
    plain, dilated = make(pattern={"(0, 0)": 8}), make()
    assert plain.carry(conv)
    torch.testing.assert_close(plain(x), conv(x))
    assert not dilated.carry(conv)
    assert not make(pattern={"(0, 0)": 8}, bias=False).carry(nn.Conv2d(8, 8, 3, padding=1))


@pytest.mark.parametrize(("channels", "unit"), [(64, 1), (8, 1), (128, 32), (30, 6), (1, 1)])
def test_default_pattern_counts_every_channel(channels, unit):
    pattern = default_pattern(channels, unit=unit)
    assert sum(pattern.values()) == channels
    assert len(pattern) == 16
    assert all(n % unit == 0 for n in pattern.values())
    assert max(pattern, key=pattern.get) == "(0, 0)"
    others = list(pattern.values())[1:]
    assert max(others) - min(others) <= unit
    assert default_pattern(channels, dmax=1, unit=unit) == {"(0, 0)": channels}


def test_pattern_file_keeps_order_and_zeros(tmp_path):
    patterns = [{"(1, 0)": 3, "(0, 0)": 0, "(3, 3)": 5}, default_pattern(16)]
    write_patterns(tmp_path / "patterns.json", patterns)
    read = read_patterns(tmp_path / "patterns.json")
    assert [list(p.items()) for p in read] == [list(p.items()) for p in patterns]
    assert json.loads((tmp_path / "patterns.json").read_text()) == patterns
    assert [s.dilation for s in strands(read[0], 8)] == [(2, 1), (4, 4)]
    assert key((2, 1)) == "(1, 0)"


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("{", "must be a JSON file"),
        ("{}", "must hold a list of patterns"),
        ("[8]", "must hold a list of patterns"),
        ('[{"(0, 0)": 8}, {"0": 8}]', r"entry 1: `pattern` \(='0'\)"),
        ('[{"(0, 0)": 1.5}]', "entry 0: .* must count channels"),
    ],
)
def test_wrong_pattern_files_name_file_and_rule(tmp_path, content, rule):
    path = tmp_path / "patterns.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"`path` .*{rule}"):
        read_patterns(path)


def test_missing_pattern_file(tmp_path):
    with pytest.raises(ValueError, match=r"`path` .* must be a file"):
        read_patterns(tmp_path / "none.json")


@pytest.mark.parametrize("kernel_size", [3, (3, 5)])
@pytest.mark.parametrize("groups", [1, 20])
@torch.no_grad()
def test_compiled_forms_compute_the_concatenation(groups, kernel_size):
    op = make(20, 20, groups=groups, kernel_size=kernel_size)
    for size in ((9, 14), (2, 1), (16, 32)):
        x = torch.randn(2, 20, *size)
        compiled = [form for form in op.forms(x) if not op.learnable(form)]
        assert compiled == (["summed", "summed, all"] if groups == 1 else ["added"])
        for form, layout in itertools.product(
            compiled, (torch.contiguous_format, torch.channels_last)
        ):
            y = op.prepared(form, x)(x.contiguous(memory_format=layout))
            torch.testing.assert_close(y, op.prepared("strands", x)(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_without_numba_the_others_remain(monkeypatch):
    monkeypatch.setattr(jit, "INSTALLED", False)
    x = torch.randn(1, 20, 9, 9)
    assert make(20, 20).forms(x) == ("folded", "strands")
    assert "added" not in make(20, 20, groups=20).forms(x)
