"""The networks of the papers: figures as published, timm's interface, values of their own."""

import copy
import json
import math

import pytest
import timm
import torch
from torch import nn

from bench.backbones import find_slots, fuse
from bench.backbones.networks import measure, names
from bench.backbones.parcnet import ParcBlock
from bench.backbones.unireplknet import UniRepLKNet
from bench.operators import Operator
from bench.operators.acb import ACB
from bench.operators.icconv import ICConv
from bench.operators.parc import Parc
from bench.operators.shift import Shiftwise

# name: parameters in training, of the inference form, GMACs, of which form. None: not known to
# the unit. Sources: shared/operators.md; ResNet's figures for the networks that keep them.
FIGURES = {
    "unireplknet_a": (4_649_060, 4_437_300, 0.640, "fused"),
    "unireplknet_f": (6_489_328, 6_235_216, 0.905, "fused"),
    "unireplknet_p": (11_080_520, 10_741_704, 1.573, "fused"),
    "unireplknet_n": (18_818_880, 18_318_560, 2.767, "fused"),
    "unireplknet_t": (31_693_420, 31_037_980, 4.899, "fused"),
    "unireplknet_s": (56_456_704, 55_645_984, 9.094, "fused"),
    "unireplknet_b": (99_089_416, 98_008_456, 16.06, "fused"),
    "unireplknet_l": (220_076_056, 218_454_616, 35.88, "fused"),
    "unireplknet_xl": (388_690_984, 386_529_064, 63.57, "fused"),
    "parc_convnext_xt": (7_412_824, None, 1.14, "training"),
    "parc_resnet50": (23_737_640, None, 3.94, "training"),
    "parc_mobilenetv2": (3_532_136, None, 0.30, "training"),
    "parcnet_s": (5_037_088, None, 1.66, "training"),
    "ic_resnet50": (25_557_032, 25_557_032, 4.089, "training"),
    "ic_resnet101": (44_549_160, 44_549_160, 7.801, "training"),
}
# Ours computes dense strips, the public code shifts: its merged form has one set of weights and
# the figures below (see test_shiftwise_figures_are_those_of_the_split_form).
SHIFTWISE = {
    "shiftwise_t": (31_790_260, 31_002_670, 5.02),
    "shiftwise_s": (57_312_892, 55_990_108, 9.33),
}
# Fused, an ACNet is its host with a bias for each batch norm: ACB leaves no other trace.
ACNETS = {
    "ac_resnet18": "resnet18",
    "ac_resnet50": "resnet50",
    "ac_vgg16": "vgg16_bn",
    "ac_mobilenet": "mobilenetv1_100",
}
EVERY = names()
# One function builds all sizes of UniRepLKNet from a table that FIGURES holds: two stand for all.
CONTRACT = [n for n in EVERY if n not in {f"unireplknet_{size}" for size in "fpntsbl"}]


def on_meta(name, **options):
    with torch.device("meta"):
        return timm.create_model(name, **options)


def meta_image(channels=3, size=(96, 64)):
    return torch.zeros(2, channels, *size, device="meta")


def test_every_network_of_the_list_is_registered():
    tested = {*FIGURES, *SHIFTWISE, *ACNETS, "ac_alexnet", "ic_resnext101_32x4d"}
    assert set(EVERY) == tested


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_those_of_the_papers(name):
    params, params_fused, gmacs, form = FIGURES[name]
    network = measure(name)
    assert network.params == params
    if params_fused is not None:
        assert network.params_fused == params_fused
    counted = network.gmacs if form == "fused" else network.gmacs_training
    # Figures of two digits are exact to half of the last one only.
    assert counted == pytest.approx(gmacs, rel=0.01, abs=0.0 if gmacs > 0.35 else 0.005)
    assert (network.status, network.note) == ("ok", "")


@pytest.mark.parametrize("name", SHIFTWISE)
def test_shiftwise_figures_are_those_of_the_split_form(name):
    params, merged, gmacs = SHIFTWISE[name]
    model, split = on_meta(name).eval(), 0

    def as_public(op, args, out):
        """Count the split convolution, padded by N − 1, for the strips of ours."""
        nonlocal split
        h, w = args[0].shape[2:]
        grown = 2 * (op.small_kernel - 1) - (op.small_kernel - 1)
        _, channels, nk = op.horizontal.shape
        taps = channels * nk * op.small_kernel**2
        split += (h + grown) * (w + grown) * taps - op.macs(h, w)

    ops = [module for module in model.modules() if isinstance(module, Shiftwise)]
    for op in ops:
        op.register_forward_hook(as_public)
    model(meta_image(size=(224, 224))[:1])
    network = measure(name)
    assert network.params == params
    assert network.params - sum(op.weight[0].numel() for op in ops) == merged
    assert network.gmacs_training + split / 1e9 == pytest.approx(gmacs, rel=0.01)
    assert [op.spec.kernel_size[0] for op in ops[:3]] == [51, 51, 51]


@pytest.mark.parametrize(("name", "host"), ACNETS.items())
def test_acnets_fuse_to_their_hosts(name, host):
    plain, model = on_meta(host), on_meta(name)
    ops = [module for module in model.modules() if isinstance(module, ACB)]
    slots = [slot for slot in find_slots(plain) if slot.spec.kernel_size == (3, 3)]
    assert [op.spec for op in ops] == [slot.spec for slot in slots]
    count = {m: sum(p.numel() for p in m.parameters()) for m in (plain, model)}
    fused = sum(p.numel() for p in fuse(model).parameters())
    norms = sum(op.spec.out_channels for op in ops)
    biases = sum(op.spec.out_channels for op in ops if op.spec.bias)
    assert fused == count[plain] - norms - biases
    strips = sum(op.params() - op.spec.conv_params() - 2 * op.spec.out_channels for op in ops)
    assert count[model] == count[plain] + strips


def test_alexnet_is_the_seed_papers():
    model = on_meta("ac_alexnet")
    ops = [module for module in model.modules() if isinstance(module, ACB)]
    assert [op.spec.out_channels for op in ops] == [64, 192, 384, 256, 256]
    assert {op.spec.kernel_size for op in ops} == {(3, 3)}
    assert model.forward_features(meta_image(size=(224, 224))).shape == (2, 256, 6, 6)


# --- timm's interface ------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONTRACT)
def test_timm_interface(name):
    model = on_meta(name, num_classes=11, in_chans=5)
    image = meta_image(5)
    assert model.pretrained_cfg["architecture"] == name
    assert model(image).shape == (2, 11)
    assert model.get_classifier().out_features == 11
    last = model.forward_features(image)
    assert model.forward_head(last).shape == (2, 11)
    logits = model.forward_head(last, pre_logits=True)
    assert logits.shape == (2, model.head_hidden_size)
    final, maps = model.forward_intermediates(image)
    assert final.shape == last.shape
    assert last.shape[1] == model.num_features
    assert model.forward_intermediates(image, indices=1, intermediates_only=True)[0].shape == (
        maps[-1].shape
    )
    model.reset_classifier(4)
    assert model(image).shape == (2, 4)
    model.reset_classifier(0)
    assert model(image).shape == (2, model.head_hidden_size)


@pytest.mark.parametrize("name", CONTRACT)
def test_features_only(name):
    model = on_meta(name, features_only=True)
    maps = model(meta_image(size=(128, 96)))
    assert [m.shape[1] for m in maps] == model.feature_info.channels()
    for feature, reduction in zip(maps, model.feature_info.reduction(), strict=True):
        assert [feature.shape[2], feature.shape[3]] == pytest.approx(
            [128 / reduction, 96 / reduction], abs=1
        )
    cut = on_meta(name, features_only=True, out_indices=(0, 1))
    assert [m.shape for m in cut(meta_image(size=(128, 96)))] == [m.shape for m in maps[:2]]


@pytest.mark.parametrize("name", EVERY)
def test_no_weights_are_promised(name):
    with pytest.raises((ValueError, RuntimeError), match=r"(?i)pretrained"):
        on_meta(name, pretrained=True)


# --- values ----------------------------------------------------------------------------------


def randomised(model):
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.1, generator=generator)
    for name, parameter in model.named_parameters():
        if name.endswith(("gamma", "beta")):
            nn.init.normal_(parameter, 0, 0.3, generator=generator)
    return model.eval()


SMALL = {
    "unireplknet_a": {},
    "shiftwise_t": {"depths": (1, 1, 1, 1), "kernel_sizes": ((13,), (11,), (9,), (5,))},
    "parc_convnext_xt": {},
    "parc_mobilenetv2": {},
    "parcnet_s": {},
    "ac_resnet18": {},
    "ac_mobilenet": {},
    "ic_resnet50": {},
}


@pytest.mark.parametrize("name", SMALL)
def test_fused_networks_give_the_same_values(name):
    torch.manual_seed(0)
    model = randomised(timm.create_model(name, num_classes=6, **SMALL[name]))
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        ours, fused = model(image), fuse(model)(image)
    assert ours.std() > 1e-3
    torch.testing.assert_close(fused, ours, rtol=1e-3, atol=1e-4 * ours.abs().max().item())


def test_every_parameter_learns():
    model = timm.create_model(
        "unireplknet_a",
        num_classes=3,
        depths=(1, 1, 1, 1),
        kernel_sizes=((3,), (13,), (13,), (13,)),
        drop_path_rate=0.1,
    )
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_checkpointing_changes_no_gradient():
    torch.manual_seed(0)
    plain = UniRepLKNet(
        num_classes=3,
        depths=(1, 2, 1, 1),
        dims=(8, 16, 16, 16),
        kernel_sizes=((3,), (13, 3), (7,), (5,)),
        layer_scale=1.0,
    )
    saving = copy.deepcopy(plain)
    saving.set_grad_checkpointing()
    image = torch.randn(2, 3, 64, 64)
    for model in (plain, saving):
        model(image).square().sum().backward()
    for ours, theirs in zip(saving.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_features_of_unireplknet_are_normed():
    model = timm.create_model("unireplknet_a", features_only=True, out_indices=(1, 3))
    with torch.no_grad():
        maps = model.eval()(torch.randn(1, 3, 64, 64))
    for feature in maps:
        assert feature.mean(1).abs().max() < 1e-5
        assert (feature.var(1, unbiased=False) - 1).abs().max() < 1e-2
    assert len(model.model.stages) == 4


def test_kernels_must_fit_the_depths():
    with pytest.raises(ValueError, match=r"`kernel_sizes` .* one size per block: `depths`"):
        UniRepLKNet(depths=(1, 1, 1, 1), kernel_sizes=((3,), (13,), (13, 13), (13,)))


def test_parc_stands_where_the_papers_put_it():
    def places(name):
        return {n: m for n, m in on_meta(name).named_modules() if isinstance(m, Parc)}

    assert list(places("parc_convnext_xt")) == [
        "stages.2.blocks.6.conv_dw",
        "stages.2.blocks.7.conv_dw",
        "stages.2.blocks.8.conv_dw",
        "stages.3.blocks.2.conv_dw",
    ]
    dense = places("parc_resnet50")
    assert list(dense) == [*(f"layer3.{i}.conv2" for i in (3, 4, 5)), "layer4.2.conv2"]
    assert {op.spec.groups for op in dense.values()} == {1}
    mobile = places("parc_mobilenetv2")
    embedded = {name: all(a.pe is not None for a in op.axes) for name, op in mobile.items()}
    assert embedded == {
        "blocks.3.2.conv_dw": True,
        "blocks.3.3.conv_dw": False,
        "blocks.4.2.conv_dw": True,
        "blocks.5.2.conv_dw": True,
    }
    assert {op.axes[0].weight.shape[-1] for op in mobile.values()} == {14, 7}


def circular(x, weight, pe, dim):
    """Σ_k w[c, k] · (x + pe)[(i + k) mod H], by rolling."""
    line = pe.unsqueeze(-1) if dim == 2 else pe.unsqueeze(-2)
    shifted = [torch.roll(x + line, -k, dims=dim) for k in range(x.shape[dim])]
    return sum(w.view(1, -1, 1, 1) * s for w, s in zip(weight.unbind(-1), shifted, strict=True))


def test_the_parcnet_block_is_its_formula():
    torch.manual_seed(0)
    block = randomised(ParcBlock(32, 6, position_embedding=True))
    x = torch.randn(2, 32, 6, 6)
    halves = []
    for part, norm, axes, dims in zip(
        x.chunk(2, 1), block.norms, block.axes, ((2, 3), (3, 2)), strict=True
    ):
        y = norm(part)
        for op, dim in zip(axes, dims, strict=True):
            y = circular(y, op.axes[0].weight[:, 0], op.axes[0].pe, dim)
        halves.append(part + y)
    z = torch.cat(halves, 1)
    norm, up, act, down, _, excite = block.mix
    y = down(act(up(norm(z))))
    gate = y.mean((2, 3), keepdim=True)
    for layer in excite.gate:
        gate = layer(gate)
    torch.testing.assert_close(block(x), z + y * gate, rtol=1e-4, atol=1e-5)
    ops = [module for module in block.modules() if isinstance(module, Operator)]
    for op in ops:
        assert op.params() == sum(p.numel() for p in op.parameters())
        assert op.fuse().params() == sum(p.numel() for p in op.fuse().parameters())


def test_patterns_come_from_a_file(tmp_path):
    widths = [64] * 3 + [128] * 4 + [256] * 6 + [512] * 3
    patterns = [{"(0, 0)": w - 8, "(1, 2)": 0, "(3, 1)": 8} for w in widths]
    file = tmp_path / "patterns.json"
    file.write_text(json.dumps(patterns))
    for given in (str(file), file, patterns):
        model = on_meta("ic_resnet50", patterns=given)
        ops = [module for module in model.modules() if isinstance(module, ICConv)]
        assert [op.spec.out_channels for op in ops] == widths
        assert {tuple(d) for op in ops for d in op.layout[-1][:1]} == {(4, 2)}
    with pytest.raises(ValueError, match=r"each of the 16 bottlenecks of ic_resnet50, not 15"):
        on_meta("ic_resnet50", patterns=patterns[:15])
    with pytest.raises(ValueError, match=r"must count `out_channels` \(=64\)"):
        on_meta("ic_resnet50", patterns=[{"(0, 0)": 7}, *patterns[1:]])


def test_the_default_pattern_is_the_authors_fallback():
    model = on_meta("ic_resnet50")
    ops = [module for module in model.modules() if isinstance(module, ICConv)]
    shares = [
        sum(s.stop - s.start for s in op.layout if s.dilation == (1, 1)) / op.spec.out_channels
        for op in ops
    ]
    assert shares[0] == 0.5
    assert all(math.isclose(share, 0.7, abs_tol=0.01) for share in shares[1:])
    assert {len(op.layout) for op in ops} == {16}
