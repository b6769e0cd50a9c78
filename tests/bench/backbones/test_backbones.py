"""Slots, selections and swaps over real timm hosts, with no knowledge of any of them."""

import copy
import re

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from bench.backbones import build, find_slots, fuse, macs, swap, swap_report
from bench.backbones.select import select
from bench.operators import ConvSpec, Operator, names

HOSTS = {
    "resnet18": 64,
    "convnext_atto": 64,
    "mobilenetv2_050": 64,
    "efficientnet_b0": 64,
    "regnety_002": 64,
    "mobilevit_xxs": 64,
    "fastvit_t8": 64,
    **dict.fromkeys(timm.list_models("test_*"), 160),
}
# Every convolution of these makes its own weights, so all are listed and all are refused.
ALL_REFUSED = {"test_nfnet": "ScaledStdConv2d"}
SWAPPABLE = {name: size for name, size in HOSTS.items() if name not in ALL_REFUSED}


def hosted(name, **options):
    torch.manual_seed(0)
    return timm.create_model(name, **options).eval()


def output(model, size, batch=2):
    image = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(image)


def small_resnet(**options):
    return hosted("test_resnet", **options)


# --- slots -----------------------------------------------------------------------------------


def reference_slots(model, size):
    """Every convolution with a kernel above 1×1 that runs, seen by wrapping its forward."""
    seen = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):

            def forward(x, name=name, run=module.forward):
                out = run(x)
                seen.setdefault(name, (tuple(x.shape[2:]), tuple(out.shape[2:])))
                return out

            module.forward = forward
    output(model, size, batch=1)
    return seen


@pytest.mark.parametrize("host", HOSTS)
def test_every_spatial_convolution_is_found(host):
    size = (HOSTS[host],) * 2
    slots = find_slots(hosted(host), size)
    found = {slot.name: (slot.spec.resolution, slot.output_size) for slot in slots}
    assert found == reference_slots(hosted(host), size)
    assert found


def test_slots_say_what_the_convolution_is():
    model = hosted("mobilenetv2_050")
    for slot in find_slots(model, (64, 96)):
        conv = model.get_submodule(slot.name)
        spec = slot.spec
        assert spec.conv_params() == sum(p.numel() for p in conv.parameters())
        assert (spec.stride, spec.groups, spec.bias) == (conv.stride, conv.groups, False)
        assert spec.output_size(*spec.resolution) == slot.output_size
        assert slot.reduction == 64 / slot.output_size[0]
        assert isinstance(model.get_submodule(slot.norm), BatchNormAct2d)


def test_stages_follow_the_total_stride():
    slots = {slot.name: slot for slot in find_slots(hosted("resnet18"), (96, 64))}
    assert {name: slots[name].stage for name in ("conv1", "layer1.0.conv1")} == {
        "conv1": 0,
        "layer1.0.conv1": 1,
    }
    for stage in (1, 2, 3, 4):
        inside = [slot for name, slot in slots.items() if name.startswith(f"layer{stage}.")]
        assert {slot.stage for slot in inside} == {stage}
        assert {round(slot.reduction) for slot in inside} == {2 ** (stage + 1)}


def test_the_norm_behind_is_the_one_that_takes_the_same_tensor():
    norms = {slot.name: slot.norm for slot in find_slots(hosted("resnet18"), (64, 64))}
    assert norms["layer2.0.conv1"] == "layer2.0.bn1"
    assert norms["layer2.0.conv2"] == "layer2.0.bn2"

    class Tricky(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)])
            self.bn = nn.ModuleList([nn.BatchNorm2d(3) for _ in range(4)])
            self.act = nn.ReLU(inplace=True)

        def forward(self, x):
            x = self.bn[0](self.act(self.conv[0](x)))  # the same tensor, changed in place
            y = self.conv[1](x)
            x = self.bn[1](y) + self.bn[2](y)  # two norms take one output
            y = self.conv[2](x)
            return self.bn[3](y + 1) + self.conv[3](x)  # another tensor

    assert [slot.norm for slot in find_slots(Tricky(), (8, 8))] == [None] * 4


def test_a_shared_convolution_is_one_slot():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.again = self.conv
            self.bn = nn.BatchNorm2d(3)

        def forward(self, x):
            return self.bn(self.conv(self.again(x)))

    model = Shared().eval()
    (slot,) = find_slots(model, (8, 8))
    assert (slot.name, slot.calls, slot.norm) == ("conv", 2, None)
    swap(model, "conv", input_size=(8, 8))
    assert model.conv is model.again
    assert isinstance(model.conv, Operator)


def test_finding_slots_leaves_everything_as_it_was():
    model = hosted("mobilenetv2_050").train()
    model.blocks[1].eval()
    flags = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    generator = torch.get_rng_state()
    find_slots(model, (64, 64))
    assert flags == [module.training for module in model.modules()]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_hooks_go_when_the_forward_fails():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"`input_size` \(=\(64, 64\)\).*runs on"):
        find_slots(model, (64, 64))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_any_number_of_input_channels(channels):
    slots = find_slots(timm.create_model("test_convnext", in_chans=channels), (64, 64))
    assert slots[0].spec.in_channels == channels


def test_on_the_meta_device():
    with torch.device("meta"):
        model = timm.create_model("resnet18")
    swap(model, "conv", input_size=(64, 64))
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert len(swap_report(model).swapped) == 17


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda: nn.Conv2d(3, 3, 2, padding="same"), "not equal on both sides"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3)), "Parametrized"),
        (lambda: nn.utils.spectral_norm(nn.Conv2d(3, 3, 3)), "computed by a hook"),
    ],
)
def test_what_is_no_plain_convolution_is_listed_with_the_reason(change, reason):
    slots = find_slots(nn.Sequential(change(), nn.Conv2d(3, 3, 3, padding="same")), (8, 8))
    assert reason in slots[0].refusal
    assert slots[1].refusal is None
    assert slots[1].spec.padding == (1, 1)


@pytest.mark.parametrize(("host", "kind"), ALL_REFUSED.items())
def test_hosts_with_weights_of_their_own_making_refuse(host, kind):
    with pytest.raises(ValueError, match=f"it is a {kind}"):
        swap(hosted(host), "conv", input_size=(HOSTS[host],) * 2)


def test_slots_of_a_form_for_inference_are_found():
    model = hosted("test_convnext")
    swap(model, "shift", where={"kernel_size": 7}, input_size=(64, 64))
    held = [slot.holds for slot in find_slots(model, (64, 64))]
    fused = [slot.holds for slot in find_slots(fuse(model), (64, 64))]
    assert [name is None for name in fused] == [name is None for name in held]


# --- swap ------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", SWAPPABLE)
def test_conv_for_itself_changes_nothing(host):
    size, model = (HOSTS[host],) * 2, hosted(host)
    before = output(model, size)
    assert swap(model, "conv", input_size=size) is model
    report = swap_report(model)
    assert report.carried == report.swapped == [s.name for s in find_slots(hosted(host), size)]
    assert torch.equal(output(model, size), before)
    assert torch.equal(output(fuse(model), size), before)
    specs = [slot.spec for slot in find_slots(hosted(host), size)]
    again = find_slots(model, size)
    assert [(slot.holds, slot.spec) for slot in again] == [("conv", spec) for spec in specs]


@pytest.mark.parametrize("host", ["convnext_atto", "efficientnet_b0", "mobilevit_xxs"])
def test_dwconv_for_itself_changes_nothing(host):
    model = hosted(host)
    before = output(model, (64, 64))
    swap(model, "dwconv", where={"depthwise": True}, input_size=(64, 64))
    assert swap_report(model).refused == {}
    assert torch.equal(output(model, (64, 64)), before)


@pytest.mark.parametrize("operator", ["dwconv", "acb"])
@pytest.mark.parametrize("host", [name for name in SWAPPABLE if "_vit" not in name])
def test_shapes_and_feature_info_stay(host, operator):
    size = (HOSTS[host],) * 2
    other = size if "vit" in host or "coat" in host else (size[0], size[1] + 32)
    plain = hosted(host, features_only=True)
    swapped = hosted(host, features_only=True)
    swap(swapped, operator, input_size=size, mix="pointwise")
    assert swapped.feature_info.get_dicts() == plain.feature_info.get_dicts()
    for image in (size, other):
        shapes = [feature.shape for feature in output(swapped, image)]
        assert shapes == [feature.shape for feature in output(plain, image)]
    classifier = hosted(host)
    swap(classifier, operator, input_size=size, mix="pointwise")
    assert output(classifier, size).shape == (2, 1000)


@pytest.mark.parametrize("operator", names())
@pytest.mark.parametrize("host", ["test_resnet", "test_convnext"])
def test_every_operator_enters_and_fuses(host, operator):
    size, model = (64, 64), hosted(host, num_classes=5)
    where = {"kernel_size": [3, 7]}
    swap(model, operator, where=where, input_size=size, mix="pointwise", kernel_size=7)
    assert swap_report(model).swapped
    for image in (size, (64, 96)):
        out, fused = output(model, image), output(fuse(model), image)
        assert out.shape == (2, 5)
        torch.testing.assert_close(fused, out, rtol=1e-4, atol=1e-5 * out.abs().max().item())
    model.train()(torch.randn(2, 3, *size)).sum().backward()
    ours = [m for m in model.modules() if isinstance(m, Operator)]
    assert all(p.grad is not None for op in ours for p in op.parameters() if p.requires_grad)


def test_what_absorbs_a_norm_leaves_its_activation():
    model = hosted("efficientnet_b0")
    assert isinstance(model.blocks[0][0].bn1, BatchNormAct2d)
    act = model.blocks[0][0].bn1.act
    swap(model, "acb", where={"names": "blocks.0.0.conv_dw"}, input_size=(64, 64))
    assert swap_report(model).absorbed == {"blocks.0.0.conv_dw": "blocks.0.0.bn1"}
    assert model.blocks[0][0].bn1 is act
    model = hosted("resnet18")
    swap(model, "acb", where={"names": "layer1.0.conv1"}, input_size=(64, 64))
    assert type(model.layer1[0].bn1) is nn.Identity


@pytest.mark.parametrize("operator", ["acb", "unireplk", "replk"])
def test_what_contains_the_convolution_takes_its_weights_over(operator):
    """The output stays, with the statistics of the absorbed norms at random."""
    model, generator = hosted("test_convnext"), torch.Generator().manual_seed(2)
    if operator == "acb":
        model = small_resnet()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.1, generator=generator)
            norm.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(norm.weight, 0.5, 2, generator=generator)
            nn.init.normal_(norm.bias, generator=generator)
    before = output(model, (64, 64))
    where = {"kernel_size": 3 if operator == "acb" else 7}
    swap(model, operator, where=where, input_size=(64, 64))
    report = swap_report(model)
    assert report.carried == report.swapped
    assert (report.absorbed != {}) == (operator == "acb")
    torch.testing.assert_close(output(model, (64, 64)), before, rtol=1e-4, atol=1e-5)


def test_a_family_with_a_dense_form_needs_no_mix():
    model = hosted("resnet18")
    swap(model, "parc", where={"names": "layer3.1.conv2"}, input_size=(64, 64))
    assert swap_report(model).mixed == []
    assert model.layer3[1].conv2.params() == 256 * 256 * 4 // 2 + 256 * 4 + 256


def test_other_norms_are_not_absorbed():
    model = hosted("convnext_atto")
    swap(model, "acb", where={"stages": 1, "depthwise": True}, input_size=(64, 64))
    assert swap_report(model).absorbed == {}


def test_slots_keep_dtype_training_mode_and_hooks():
    model = small_resnet().double().train()
    calls = []
    model.layer1[0].conv1.register_forward_hook(lambda *_: calls.append("conv1"))
    model.layer2.eval()
    swap(model, "conv", input_size=(64, 64))
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model.layer1[0].conv1.training
    assert not model.layer2[0].conv1.training
    calls.clear()
    model(torch.zeros(2, 3, 64, 64, dtype=torch.float64))
    assert calls == ["conv1"]


def test_depthwise_into_dense_only_when_asked():
    with pytest.raises(
        ValueError, match=r"must equal `in_channels`.*help: mix 'pointwise'"
    ) as refusal:
        swap(small_resnet(), "dwconv", input_size=(64, 64))
    assert "depthwise" in str(refusal.value)
    model = swap(small_resnet(), "dwconv", input_size=(64, 64), mix="pointwise")
    report = swap_report(model)
    assert report.mixed == report.swapped
    assert report.carried == []
    slot = find_slots(small_resnet(), (64, 64))[-1]
    mixed = model.get_submodule(slot.name)
    depthwise = ConvSpec.make(
        in_channels=slot.spec.in_channels,
        out_channels=slot.spec.in_channels,
        groups=slot.spec.in_channels,
        stride=slot.spec.stride,
        bias=False,
    )
    pointwise = slot.spec.in_channels * slot.spec.out_channels
    assert sum(p.numel() for p in mixed.parameters()) == depthwise.conv_params() + pointwise
    assert mixed.pointwise.kernel_size == (1, 1)


def test_refused_slots_are_listed_with_the_reason():
    model = hosted("mobilenetv2_050")
    report = swap_report(swap(model, "dwconv", input_size=(64, 64)))
    assert list(report.refused) == ["conv_stem"]
    assert "`out_channels` (=16) must equal `in_channels` (=3)" in report.refused["conv_stem"]
    assert len(report.swapped) == 17


def test_options_override_the_slot():
    model = hosted("test_convnext")
    swap(model, "dwconv", where={"depthwise": True}, input_size=(64, 64), kernel_size=5, dilation=2)
    op = model.stages[0].blocks[0].conv_dw
    assert (op.spec.kernel_size, op.spec.dilation, op.spec.padding) == ((5, 5), (2, 2), (4, 4))
    assert swap_report(model).carried == []
    model = swap(small_resnet(), "conv", where={"stages": 4}, input_size=(64, 64), groups=2)
    assert model.layer4[0].conv2.spec.groups == 2


def test_a_kernel_that_changes_the_size_of_the_map_is_refused():
    message = r"`kernel_size` \(=\(2, 2\)\).*must give the slot's output \(64, 64\)"
    with pytest.raises(ValueError, match=message):
        swap(small_resnet(), "conv", where={"indices": [1]}, input_size=(128, 128), kernel_size=2)


def test_a_slot_can_be_swapped_again():
    model, depthwise = hosted("test_convnext"), {"depthwise": True}
    before = output(model, (64, 64))
    swap(model, "dwconv", where=depthwise, input_size=(64, 64))
    swap(model, "replk", where={**depthwise, "stages": 3}, input_size=(64, 64))
    report = swap_report(model)
    slots = find_slots(model, (64, 64))
    held = {slot.holds for slot in slots if slot.stage == 3 and slot.spec.depthwise}
    assert held == {"replk"}
    assert sorted(report.swapped) == sorted(s.name for s in slots if s.spec.depthwise)
    assert sorted(report.carried) == sorted(report.swapped)
    assert swap_report(copy.deepcopy(model)) == report
    torch.testing.assert_close(output(model, (64, 64)), before, rtol=1e-4, atol=1e-5)


def test_an_operator_that_took_the_norm_stays():
    model = swap(small_resnet(), "acb", where={"stages": 4}, input_size=(64, 64))
    report = swap_report(swap(model, "conv", input_size=(64, 64)))
    assert "it holds acb, which took the place of the norm" in report.refused["layer4.0.conv1"]
    assert "layer4.0.conv1" in report.swapped


def test_operators_of_a_papers_network_are_slots():
    model = build(
        "unireplknet_a",
        operator="acb",
        where={"names": "stages.1.*.operator"},
        input_size=(64, 64),
        host_options={"num_classes": 3},
    )
    blocks = model.stages[1].blocks
    assert {type(block.operator).__name__ for block in blocks} == {"ACB"}
    assert {type(block.norm) for block in blocks} == {nn.Identity}
    assert {block.operator.spec.kernel_size for block in blocks} == {(13, 13)}
    assert output(model.eval(), (64, 96)).shape == (2, 3)


@pytest.mark.parametrize(
    ("operator", "arguments", "message"),
    [
        ("dwcon", {}, "did you mean 'dwconv'"),
        (
            "conv",
            {"kernel": 3},
            r"`kernel` \(=3\) is no option of conv; did you mean 'kernel_size'",
        ),
        ("conv", {"mix": "dense"}, r"`mix` \(='dense'\) must be None or 'pointwise'"),
        ("conv", {"where": {"stage": 1}}, "has no key 'stage'; did you mean 'stages'"),
        ("conv", {"where": {"stages": 7}}, "must be stages that have slots"),
        ("conv", {"where": {"stages": "3"}}, "must be integers"),
        ("conv", {"where": {"names": "layr*"}}, "must match the name of a slot"),
        ("conv", {"where": {"names": 3}}, "must be a pattern"),
        ("conv", {"where": {"kernel_size": 9}}, "must be among the slots'"),
        ("conv", {"where": {"every": 0}}, "must be an integer >= 1"),
        ("conv", {"where": {"indices": [99]}}, "must be below the number of slots"),
        ("conv", {"where": {"depthwise": 1}}, "must be true or false"),
        ("conv", {"where": {"depthwise": True}}, "selects no slot"),
        ("conv", {"groups": 7}, r"must be divisible by `groups` \(=7\)"),
        ("conv", {"input_size": (0, 64)}, r"`input_size` \(=\(0, 64\)\)"),
    ],
)
def test_errors_name_argument_value_and_rule_and_change_nothing(operator, arguments, message):
    model = small_resnet()
    before = repr(model)
    with pytest.raises(ValueError, match=message):
        swap(model, operator, **{"input_size": (64, 64), **arguments})
    assert repr(model) == before
    assert swap_report(model).swapped == []


# --- selections ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slots():
    return find_slots(hosted("mobilenetv2_050"), (64, 64))


def test_selection_by_each_key(slots):
    def names_of(where):
        return [slot.name for slot in select(slots, where)]

    everything = [slot.name for slot in slots]
    assert names_of(None) == names_of({}) == everything
    assert names_of({"stages": [1, 3]}) == [s.name for s in slots if s.stage in (1, 3)]
    assert names_of({"names": "blocks.3.*"}) == [n for n in everything if n[:9] == "blocks.3."]
    assert names_of({"names": ["conv_stem", "blocks.?.0.*"]}) == [
        n for n in everything if re.fullmatch(r"conv_stem|blocks\..\.0\..*", n)
    ]
    assert names_of({"kernel_size": 3}) == names_of({"kernel_size": [[3, 3]]}) == everything
    assert names_of({"depthwise": False}) == ["conv_stem"]
    assert names_of({"every": 3}) == everything[::3]
    assert names_of({"indices": [0, 2]}) == [everything[0], everything[2]]
    deep = [n for n in everything if n[:9] == "blocks.3."]
    assert names_of({"every": 2, "names": "blocks.3.*"}) == deep[::2]
    assert names_of({"indices": 1, "stages": 3, "names": "blocks.3.*"}) == deep[1:2]


# --- cost and build --------------------------------------------------------------------------


def test_macs_equal_the_published_ones():
    assert macs(hosted("resnet18"), (224, 224)) == (1_814_073_344, "ok", "")
    assert macs(hosted("mobilenetv2_050"), (224, 224))[0] == pytest.approx(97e6, rel=0.01)
    total, status, _ = macs(hosted("test_vit3"), (160, 160))
    assert (total, status) == (94_051_200, "ok")


def test_macs_of_operators_are_their_formulas():
    plain, model = hosted("test_convnext"), hosted("test_convnext")
    swap(model, "dwconv", where={"depthwise": True}, input_size=(64, 64), kernel_size=9)
    more = sum(
        slot.spec.in_channels * slot.output_size[0] * slot.output_size[1] * (81 - 49)
        for slot in find_slots(plain, (64, 64))
        if slot.spec.depthwise
    )
    assert macs(model, (64, 64)) == (macs(plain, (64, 64))[0] + more, "ok", "")


class Fourier(Operator):
    """y = irfft2(rfft2(x)): an operation that the counter does not know."""

    name = "fourier"

    def forward(self, x):
        return torch.fft.irfft2(torch.fft.rfft2(x), s=x.shape[-2:])

    def macs(self, h, w):
        return 1000

    def params(self):
        return 0


class Wrong(Operator):
    """Its formula is not what it does."""

    name = "wrong"

    def __init__(self, spec):
        super().__init__(spec)
        self.conv = spec.conv()

    def forward(self, x):
        return self.conv(x)

    def macs(self, h, w):
        return 1

    def params(self):
        return self.spec.conv_params()


def test_macs_are_incomplete_where_the_counter_does_not_know():
    spec = ConvSpec.make(in_channels=3, out_channels=3)
    total, status, note = macs(nn.Sequential(nn.Conv2d(3, 3, 1), Fourier(spec)), (8, 8))
    assert (total, status) == (9 * 64 + 1000, "incomplete")
    assert "aten._fft_r2c ran 1 times, unknown to the counter" in note
    assert "fourier: 1000 MACs by formula, 0 by counter" in note


def test_macs_are_incomplete_where_formula_and_counter_differ():
    spec = ConvSpec.make(in_channels=3, out_channels=3)
    total, status, note = macs(nn.Sequential(nn.Conv2d(3, 3, 1), Wrong(spec)), (8, 8))
    assert (total, status) == (9 * 64 + 1, "incomplete")
    assert "wrong: 1 MACs by formula, 5184 by counter" in note
