"""Synthetic public checkpoints, compared by value with slow references of the public forms."""

import copy
import pickle

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import bench.backbones  # noqa: F401  (registers the networks)
from bench.backbones import fuse
from bench.backbones.unireplknet import UniRepLKNet
from bench.checkpoints import CheckpointError, load_official
from bench.errors import UserError
from bench.operators import create


class Public(dict):
    """A public state_dict with random values, and slow layers that read it by name."""

    def __init__(self, seed=0):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def tensor(self, name, *shape, scale=1.0):
        self[name] = torch.randn(shape, generator=self.generator) * scale

    def norm(self, name, channels):
        self.tensor(f"{name}.weight", channels)
        self.tensor(f"{name}.bias", channels)

    def batch_norm(self, name, channels):
        self.norm(name, channels)
        self.tensor(f"{name}.running_mean", channels)
        variance = torch.rand(channels, generator=self.generator) + 0.5
        self[f"{name}.running_var"] = variance
        self[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def layer(self, name, *shape, bias=True):
        fan = shape[1] * int(np.prod(shape[2:]))
        self.tensor(f"{name}.weight", *shape, scale=fan**-0.5)
        if bias:
            self.tensor(f"{name}.bias", shape[0])

    def bn(self, name, x):
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(self[f"{name}.{key}"] for key in keys))

    def ln(self, name, x):
        """Over the channels of (N, C, H, W)."""
        centred = x - x.mean(1, keepdim=True)
        x = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
        return x * self[f"{name}.weight"].view(-1, 1, 1) + self[f"{name}.bias"].view(-1, 1, 1)

    def conv(self, name, x, **kwargs):
        return F.conv2d(x, self[f"{name}.weight"], self.get(f"{name}.bias"), **kwargs)

    def linear(self, name, x):
        return F.linear(x, self[f"{name}.weight"], self.get(f"{name}.bias"))


def close(ours, public):
    torch.testing.assert_close(ours, public, rtol=1e-4, atol=1e-4 * public.abs().max().item())


def image(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(9))


# --- operators alone -------------------------------------------------------------------------


def test_acb():
    public = Public()
    for name, shape in (("square", (3, 3)), ("ver", (3, 1)), ("hor", (1, 3))):
        public.layer(f"{name}_conv", 8, 6, *shape, bias=False)
        public.batch_norm(f"{name}_bn", 8)
    op = load_official(create("acb", in_channels=6, out_channels=8, stride=2), public).eval()
    x = image(2, 6, 9, 12)
    paddings = {"square": (1, 1), "ver": (1, 0), "hor": (0, 1)}
    expected = sum(
        public.bn(f"{name}_bn", public.conv(f"{name}_conv", x, stride=2, padding=padding))
        for name, padding in paddings.items()
    )
    close(op(x), expected)


def test_acb_fused():
    public = Public()
    public.layer("fused_conv", 8, 6, 3, 3)
    op = load_official(create("acb", in_channels=6, out_channels=8).fuse(), public)
    x = image(2, 6, 9, 12)
    close(op(x), public.conv("fused_conv", x, padding=1))


def dilated_state(public, name, channels, branches, size):
    public.layer(f"{name}lk_origin", channels, 1, size, size, bias=False)
    public.batch_norm(f"{name}origin_bn", channels)
    for k, r in branches:
        public.layer(f"{name}dil_conv_k{k}_{r}", channels, 1, k, k, bias=False)
        public.batch_norm(f"{name}dil_bn_k{k}_{r}", channels)


def dilated_block(public, name, x, branches, size):
    groups = x.shape[1]
    y = public.conv(f"{name}lk_origin", x, padding=size // 2, groups=groups)
    y = public.bn(f"{name}origin_bn", y)
    for k, r in branches:
        padding = ((k - 1) * r + 1) // 2
        z = public.conv(f"{name}dil_conv_k{k}_{r}", x, padding=padding, dilation=r, groups=groups)
        y = y + public.bn(f"{name}dil_bn_k{k}_{r}", z)
    return y


NINE = ((5, 1), (5, 2), (3, 3), (3, 4))


def test_unireplk():
    public = Public()
    dilated_state(public, "", 6, NINE, 9)
    op = load_official(create("unireplk", in_channels=6, out_channels=6, kernel_size=9), public)
    x = image(2, 6, 11, 14)
    close(op.eval()(x), dilated_block(public, "", x, NINE, 9))


def test_unireplk_fused():
    public = Public()
    public.layer("lk_origin", 6, 1, 9, 9)
    op = create("unireplk", in_channels=6, out_channels=6, kernel_size=9)
    x = image(2, 6, 11, 14)
    close(load_official(op.fuse(), public)(x), public.conv("lk_origin", x, padding=4, groups=6))


def axis_state(public, name, channels, size, letter, fan=1):
    line = (size, 1) if letter == "H" else (1, size)
    public.tensor(f"{name}pe", 1, channels, *line)
    public.layer(f"{name}gcc_conv", channels, fan, *line)


def axis_forward(public, name, x, letter, groups):
    """Tap k of the kernel meets the map rolled by k; pe is constant across the axis."""
    dim = 2 if letter == "H" else 3
    x = x + public[f"{name}pe"]
    weight = public[f"{name}gcc_conv.weight"]
    taps = weight.unbind(dim)
    y = sum(
        F.conv2d(torch.roll(x, -k, dim), tap.unsqueeze(dim), groups=groups)
        for k, tap in enumerate(taps)
    )
    return y + public[f"{name}gcc_conv.bias"].view(1, -1, 1, 1)


@pytest.mark.parametrize(("axis", "letter"), [("height", "H"), ("width", "W")])
def test_parc_of_one_axis(axis, letter):
    public = Public()
    axis_state(public, "", 6, 7, letter)
    op = create("parc", in_channels=6, out_channels=6, resolution=7, axis=axis)
    load_official(op, public)
    x = image(2, 6, 7, 7)
    close(op(x), axis_forward(public, "", x, letter, groups=6))


@pytest.mark.parametrize("groups", [8, 1])
@pytest.mark.parametrize("family", ["gcc", "parc"])
def test_parc_of_two_axes(family, groups):
    public = Public()
    for letter in "HW":
        fan = 1 if groups == 8 else 4
        axis_state(public, f"{family}_{letter}.", 4, 7, letter, fan)
    op = create("parc", in_channels=8, out_channels=8, groups=groups, resolution=7)
    load_official(op, public)
    x = image(2, 8, 7, 7)
    inner = 1 if groups == 1 else 4
    halves = [
        axis_forward(public, f"{family}_{letter}.", half, letter, inner)
        for letter, half in zip("HW", x.chunk(2, 1), strict=True)
    ]
    close(op(x), torch.cat(halves, 1))


def test_a_parc_of_the_other_axis_is_not_taken():
    public = Public()
    axis_state(public, "", 6, 7, "W")
    op = create("parc", in_channels=6, out_channels=6, resolution=7, axis="height")
    with pytest.raises(CheckpointError) as error:
        load_official(op, public)
    assert error.value.shapes == {
        "gcc_conv.weight": ((6, 1, 1, 7), (6, 1, 7, 1)),
        "pe": ((1, 6, 1, 7), (1, 6, 7, 1)),
    }


C, M, N, EDGES, GHOST = 12, 13, 3, 4, 0.23


def shift_state(public, name, paths, channels=C, small=N, large=M):
    count = int(channels * (1 - GHOST)) // 2 * 2
    rows = count * -(-large // small)
    names = ["LoRA"] if paths is None else [f"LoRAs.{path}" for path in range(paths)]
    for path in names:
        public.layer(f"{name}{path}", rows, 1, small, small, bias=False)
    for norm in ("bn_lora1", "bn_lora2", "bn_small"):
        public.batch_norm(f"{name}{norm}", count)


def shift_forward(public, name, x, small=N, large=M):
    """Small kernels, then every output moved by its pad and added, as the public code does."""
    channels, (h, w) = x.shape[1], x.shape[2:]
    count, nk = int(channels * (1 - GHOST)) // 2 * 2, -(-large // small)
    draw = np.random.RandomState(123)
    ghosts = sorted(draw.choice(channels, channels - count, replace=False).tolist())
    active = [c for c in range(channels) if c not in ghosts]
    with torch.random.fork_rng():
        torch.manual_seed(123)
        across = [
            [torch.randperm(nk).argsort().tolist() for _ in range(count)] for _ in range(EDGES)
        ]
        down = [[torch.randperm(nk).argsort().tolist() for _ in range(count)] for _ in range(EDGES)]
        picks = [torch.randint(nk, (count,)).tolist() for _ in range(EDGES)]
    weights = [value for key, value in public.items() if key.startswith(f"{name}LoRA")]
    y = sum(F.conv2d(x[:, active], weight, padding=small - 1, groups=count) for weight in weights)
    e = (small - 1) - small // 2  # the golden draws are of where each kernel goes: the argsort
    pads = [large // 2 - i * small - (small - 1) for i in range(nk)]
    far = 2 * large
    y = F.pad(y, (far, far, far, far))

    def read(plane, top, left):
        return y[:, plane, far + top : far + top + h, far + left : far + left + w]

    outs = []
    for c in range(count):
        moved = torch.zeros(3, x.shape[0], h, w)
        for r in range(EDGES):
            for j in range(nk):
                moved[0] += read(c * nk + j, e, -pads[across[r][c][j]])
                moved[1] += read(c * nk + j, -pads[down[r][c][j]], e)
            moved[2] += read(c * nk + picks[r][c], e, e)
        outs.append(moved)
    stacked = torch.stack(outs, dim=2)
    sums = zip(("bn_lora1", "bn_lora2", "bn_small"), stacked, strict=True)
    total = sum(public.bn(f"{name}{norm}", part) for norm, part in sums)
    return torch.cat([total + x[:, active], x[:, ghosts]], 1)


@pytest.mark.parametrize("paths", [1, 2, None])
def test_shiftwise(paths):
    """The tables of the module itself are drawn otherwise; None is the public merged form."""
    public = Public()
    shift_state(public, "", paths)
    op = create("shift", in_channels=C, out_channels=C, kernel_size=M, paths=paths or 2, seed=5)
    load_official(op, public).eval()
    x = image(2, C, 16, 19)
    close(op(x), shift_forward(public, "", x))
    close(op.fuse()(x), shift_forward(public, "", x))


PATTERN = {"(0, 0)": 4, "(0, 2)": 0, "(1, 3)": 2, "(2, 0)": 6}


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_icconv(bias, groups):
    public, dilations = Public(), ((4, (1, 1)), (2, (2, 4)), (6, (3, 1)))
    for index, (count, _) in enumerate(dilations):
        public.layer(f"conv_list.{index}", count, 8 // groups, 3, 3, bias=bias)
    op = create("icconv", in_channels=8, out_channels=12, bias=bias, groups=groups, pattern=PATTERN)
    load_official(op, public)
    x = image(2, 8, 10, 13)
    expected = [
        public.conv(f"conv_list.{index}", x, padding=dilation, dilation=dilation, groups=groups)
        for index, (_, dilation) in enumerate(dilations)
    ]
    close(op(x), torch.cat(expected, 1))


def test_icconv_of_another_pattern_is_not_taken():
    public = Public()
    for index, count in enumerate((6, 6)):
        public.layer(f"conv_list.{index}", count, 8, 3, 3, bias=False)
    op = create("icconv", in_channels=8, out_channels=12, bias=False, pattern=PATTERN)
    with pytest.raises(CheckpointError) as error:
        load_official(op, public)
    assert error.value.missing == ["conv_list.2.weight"]
    assert error.value.shapes["conv_list.0.weight"] == ((6, 8, 3, 3), (4, 8, 3, 3))


# --- whole networks --------------------------------------------------------------------------

DEPTHS, DIMS = (1, 2, 2, 1), (8, 12, 16, 20)
KERNELS = ((3,), (9, 3), (3, 9), (9,))


def stem_state(public):
    public.layer("downsample_layers.0.0", DIMS[0] // 2, 3, 3, 3)
    public.norm("downsample_layers.0.1", DIMS[0] // 2)
    public.layer("downsample_layers.0.3", DIMS[0], DIMS[0] // 2, 3, 3)
    public.norm("downsample_layers.0.4", DIMS[0])
    for i in (1, 2, 3):
        public.layer(f"downsample_layers.{i}.0", DIMS[i], DIMS[i - 1], 3, 3)
        public.norm(f"downsample_layers.{i}.1", DIMS[i])


def down(public, i, x):
    name = f"downsample_layers.{i}"
    x = public.ln(f"{name}.1", public.conv(f"{name}.0", x, stride=2, padding=1))
    if i == 0:
        x = public.conv(f"{name}.3", F.gelu(x), stride=2, padding=1)
        x = public.ln(f"{name}.4", x)
    return x


def block_state(public, name, channels, size, fused, shift):
    if shift:
        shift_state(public, f"{name}.large_kernel.", 2, channels, N, size)
    elif size == 3:
        public.layer(f"{name}.dwconv", channels, 1, 3, 3, bias=fused)
    elif fused:
        public.layer(f"{name}.dwconv.lk_origin", channels, 1, size, size)
    else:
        dilated_state(public, f"{name}.dwconv.", channels, NINE, size)
    public.layer(f"{name}.se.down", channels // 4, channels, 1, 1)
    public.layer(f"{name}.se.up", channels, channels // 4, 1, 1)
    public.layer(f"{name}.pwconv1.1", 4 * channels, channels)
    public.tensor(f"{name}.act.1.gamma", 1, 1, 1, 4 * channels)
    public.layer(f"{name}.pwconv2.0", channels, 4 * channels, bias=fused)
    if not fused:
        public.batch_norm(f"{name}.norm", channels)
        public.tensor(f"{name}.act.1.beta", 1, 1, 1, 4 * channels)
        public.batch_norm(f"{name}.pwconv2.2", channels)
        public.tensor(f"{name}.gamma", channels)


def block_forward(public, name, x, size, fused, shift):
    if shift:
        y = shift_forward(public, f"{name}.large_kernel.", x, N, size)
    elif size == 3:
        y = public.conv(f"{name}.dwconv", x, padding=1, groups=x.shape[1])
    elif fused:
        y = public.conv(f"{name}.dwconv.lk_origin", x, padding=size // 2, groups=x.shape[1])
    else:
        y = dilated_block(public, f"{name}.dwconv.", x, NINE, size)
    y = y if fused else public.bn(f"{name}.norm", y)
    gate = public.conv(f"{name}.se.down", y.mean((2, 3), keepdim=True)).relu()
    y = y * public.conv(f"{name}.se.up", gate).sigmoid()
    y = F.gelu(public.linear(f"{name}.pwconv1.1", y.permute(0, 2, 3, 1)))
    strength = y.square().sum((1, 2), keepdim=True).sqrt()
    strength = strength / (strength.mean(-1, keepdim=True) + 1e-6)
    y = y + y * strength * public[f"{name}.act.1.gamma"]
    y = y + public.get(f"{name}.act.1.beta", torch.zeros(()))
    y = public.linear(f"{name}.pwconv2.0", y).permute(0, 3, 1, 2)
    if not fused:
        y = public[f"{name}.gamma"].view(-1, 1, 1) * public.bn(f"{name}.pwconv2.2", y)
    return x + y


def network_state(fused=False, shift=False, features=False):
    public = Public()
    stem_state(public)
    for i, sizes in enumerate(KERNELS):
        for j, size in enumerate(sizes):
            block_state(public, f"stages.{i}.{j}", DIMS[i], size, fused, shift)
    if features:
        for i in range(4):
            public.norm(f"norm{i}", DIMS[i])
    else:
        public.norm("norm", DIMS[-1])
        public.layer("head", 5, DIMS[-1])
    return public


def network_maps(public, x, fused=False, shift=False):
    maps = []
    for i, sizes in enumerate(KERNELS):
        x = down(public, i, x)
        for j, size in enumerate(sizes):
            x = block_forward(public, f"stages.{i}.{j}", x, size, fused, shift)
        maps.append(x)
    return maps


def logits(public, x):
    pooled = public.ln("norm", x.mean((2, 3), keepdim=True)).flatten(1)
    return public.linear("head", pooled)


OPTIONS = {"depths": DEPTHS, "dims": DIMS, "kernel_sizes": KERNELS}


def test_unireplknet():
    public = network_state()
    model = load_official(UniRepLKNet(num_classes=5, **OPTIONS), public).eval()
    x = image(2, 3, 64, 96)
    with torch.no_grad():
        close(model(x), logits(public, network_maps(public, x)[-1]))


def test_unireplknet_fused():
    public = network_state(fused=True)
    model = load_official(fuse(UniRepLKNet(num_classes=5, **OPTIONS)), public)
    x = image(2, 3, 64, 96)
    with torch.no_grad():
        close(model(x), logits(public, network_maps(public, x, fused=True)[-1]))


def test_unireplknet_features():
    public = network_state(features=True)
    model = timm.create_model("unireplknet_a", features_only=True, **OPTIONS)
    load_official(model, public)
    x = image(2, 3, 64, 96)
    with torch.no_grad():
        maps = zip(model.eval()(x), network_maps(public, x), strict=True)
        for i, (ours, theirs) in enumerate(maps):
            close(ours, public.ln(f"norm{i}", theirs))


def test_a_classifier_starts_a_feature_extractor_when_allowed():
    public = network_state()
    model = timm.create_model("unireplknet_a", features_only=True, **OPTIONS)
    with pytest.raises(CheckpointError) as error:
        load_official(model, public)
    ends = ("weight", "bias")
    assert error.value.missing == [f"norm{i}.{end}" for i in range(4) for end in ends]
    assert error.value.unexpected == [f"{name}.{end}" for name in ("norm", "head") for end in ends]
    load_official(model, public, allow=["head.*", "norm.*", "norm?.*"])
    assert torch.equal(model.model.stem[0].weight, public["downsample_layers.0.0.weight"])
    assert torch.equal(model.model.feature_norms[0].weight, torch.ones(DIMS[0]))


def test_shiftwise_network():
    public = network_state(shift=True)
    model = timm.create_model("shiftwise_t", num_classes=5, **OPTIONS)
    load_official(model, public).eval()
    x = image(1, 3, 64, 64)
    with torch.no_grad():
        close(model(x), logits(public, network_maps(public, x, shift=True)[-1]))


PARC = {"depths": (1, 1, 9, 3), "dims": (4, 6, 8, 12)}
PARC_BLOCKS = {"stages.2.6": 14, "stages.2.7": 14, "stages.2.8": 14, "stages.3.2": 7}


def parc_convnext_state(features):
    public, dims = Public(), PARC["dims"]
    public.layer("downsample_layers.0.0", dims[0], 3, 4, 4)
    public.norm("downsample_layers.0.1", dims[0])
    for i in range(4):
        if i:
            public.norm(f"downsample_layers.{i}.0", dims[i - 1])
            public.layer(f"downsample_layers.{i}.1", dims[i], dims[i - 1], 2, 2)
        for j in range(PARC["depths"][i]):
            name = f"stages.{i}.{j}"
            public.tensor(f"{name}.gamma", dims[i])
            if name in PARC_BLOCKS:
                for letter in "HW":
                    axis_state(
                        public, f"{name}.gcc_{letter}.", dims[i] // 2, PARC_BLOCKS[name], letter
                    )
            else:
                public.layer(f"{name}.dwconv", dims[i], 1, 7, 7)
            public.norm(f"{name}.norm", dims[i])
            public.layer(f"{name}.pwconv1", 4 * dims[i], dims[i])
            public.layer(f"{name}.pwconv2", dims[i], 4 * dims[i])
    if not features:
        public.norm("norm", dims[-1])
        public.layer("head", 5, dims[-1])
    return public


def parc_convnext_maps(public, x):
    x = public.ln("downsample_layers.0.1", public.conv("downsample_layers.0.0", x, stride=4))
    maps = []
    for i, depth in enumerate(PARC["depths"]):
        if i:
            name = f"downsample_layers.{i}"
            x = public.conv(f"{name}.1", public.ln(f"{name}.0", x), stride=2)
        for j in range(depth):
            name = f"stages.{i}.{j}"
            if name in PARC_BLOCKS:
                y = torch.cat(
                    [
                        axis_forward(public, f"{name}.gcc_{letter}.", half, letter, half.shape[1])
                        for letter, half in zip("HW", x.chunk(2, 1), strict=True)
                    ],
                    1,
                )
            else:
                y = public.conv(f"{name}.dwconv", x, padding=3, groups=x.shape[1])
            y = public.ln(f"{name}.norm", y).permute(0, 2, 3, 1)
            y = public.linear(f"{name}.pwconv2", F.gelu(public.linear(f"{name}.pwconv1", y)))
            x = x + (public[f"{name}.gamma"] * y).permute(0, 3, 1, 2)
        maps.append(x)
    return maps


@pytest.mark.parametrize("features", [False, True])
def test_parc_convnext(features):
    public = parc_convnext_state(features)
    own = {"features_only": True} if features else {"num_classes": 5}
    model = timm.create_model("parc_convnext_xt", **PARC, **own).eval()
    load_official(model, {"state_dict": {f"module.{k}": v for k, v in public.items()}})
    x = image(1, 3, 224, 224)
    with torch.no_grad():
        maps = parc_convnext_maps(public, x)
        if features:
            for ours, theirs in zip(model(x), maps, strict=True):
                close(ours, theirs)
        else:
            close(model(x), logits(public, maps[-1]))


def renamed(model, rename):
    """A public state_dict with the model's own shapes where names are shared."""
    public = Public()
    for key, value in model.state_dict().items():
        if (new := rename(key)) is not None:
            public.tensor(new, *value.shape)
            public[new] = public[new].to(value.dtype)
    return public


def test_parc_resnet():
    model = timm.create_model("parc_resnet50", num_classes=2)
    public = renamed(model, lambda key: None if ".axes." in key else key)
    places = [(f"layer3.{i}", 128, 14) for i in (3, 4, 5)] + [("layer4.2", 256, 7)]
    for name, half, size in places:
        for letter in "HW":
            axis_state(public, f"{name}.parc_{letter}.", half, size, letter, half)
    load_official(model, public)
    axes = model.layer4[2].conv2.axes
    kernel = public["layer4.2.parc_W.gcc_conv.weight"]
    assert torch.equal(axes[1].weight, kernel[:, :, 0, :])
    assert torch.equal(axes[0].pe, public["layer4.2.parc_H.pe"][0, :, :, 0])
    assert torch.equal(model.layer1[0].conv2.weight, public["layer1.0.conv2.weight"])


def test_ic_resnet():
    model = timm.create_model("ic_resnet50", num_classes=2)
    inside = ("conv2.weight", "conv2.dilations")
    public = renamed(model, lambda key: None if key.endswith(inside) else key)
    for i, depth in enumerate((3, 4, 6, 3)):
        for j in range(depth):
            conv = model.get_submodule(f"layer{i + 1}.{j}.conv2")
            for n, strand in enumerate(conv.layout):
                name = f"layer{i + 1}.{j}.conv2.conv_list.{n}"
                count = strand.stop - strand.start
                public.layer(name, count, conv.weight.shape[1], 3, 3, bias=False)
    load_official(model, public)
    parts = [public[f"layer3.1.conv2.conv_list.{n}.weight"] for n in range(16)]
    assert torch.equal(model.layer3[1].conv2.weight, torch.cat(parts))


# --- files, wrappers, errors -----------------------------------------------------------------


@pytest.fixture
def acb():
    public = Public()
    for name, shape in (("square", (3, 3)), ("ver", (3, 1)), ("hor", (1, 3))):
        public.layer(f"{name}_conv", 4, 4, *shape, bias=False)
        public.batch_norm(f"{name}_bn", 4)
    return create("acb", in_channels=4, out_channels=4), dict(public)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files(acb, tmp_path, suffix):
    op, public = acb
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"model": public, "epoch": 3}, file)
    else:
        save_file(public, file)
    load_official(op, file)
    assert torch.equal(op.vertical.conv.weight, public["ver_conv.weight"])
    load_official(op, str(file))


class Malicious:
    def __reduce__(self):
        return (open, ("executed", "w"))


def test_nothing_in_a_file_is_executed(acb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Malicious()}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"model": Malicious()}, protocol=2))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(ValueError, match=r"must be a checkpoint of tensors"):
            load_official(acb[0], tmp_path / name)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.pth", None, "must be a file"),
        ("weights.h5", b"abc", r"must end with \.safetensors or one of \.pth"),
        ("broken.pth", b"abc", "must be a checkpoint of tensors"),
        ("broken.safetensors", b"abc", "must be a checkpoint of tensors"),
    ],
)
def test_bad_files(acb, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_official(acb[0], tmp_path / name)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "it is empty"),
        ({"epoch": 3}, "'epoch' is a int"),
        ({"model": {"state_dict": {"a": [1]}}}, "'a' is a list"),
    ],
)
def test_bad_sources(acb, source, message):
    with pytest.raises(ValueError, match=message):
        load_official(acb[0], source)


def test_what_lacks_is_left_or_differs_is_named_and_nothing_is_loaded(acb):
    op, public = acb
    before = copy.deepcopy(op.state_dict())
    del public["ver_bn.bias"]
    del public["hor_bn.num_batches_tracked"]  # no value depends on it
    public["extra.weight"] = torch.zeros(2)
    public["hor_conv.weight"] = torch.zeros(4, 4, 1, 5)
    with pytest.raises(CheckpointError) as error:
        load_official(op, public)
    assert error.value.missing == ["ver_bn.bias"]
    assert error.value.unexpected == ["extra.weight"]
    assert error.value.shapes == {"hor_conv.weight": ((4, 4, 1, 5), (4, 4, 1, 3))}
    for line in (
        "nothing was loaded",
        "missing: ver_bn.bias",
        "unexpected: extra.weight",
        "hor_conv.weight: (4, 4, 1, 5) in the checkpoint, (4, 4, 1, 3) here",
    ):
        assert line in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in op.state_dict().items())


def test_a_training_checkpoint_does_not_fit_a_fused_operator(acb):
    op, public = acb
    with pytest.raises(CheckpointError) as error:
        load_official(op.fuse(), public)
    assert error.value.missing == ["weight", "bias"]
    assert sorted(error.value.unexpected) == sorted(public)
    parc = create("parc", in_channels=4, out_channels=4, resolution=7, axis="height")
    state = Public()
    axis_state(state, "", 4, 7, "H")
    with pytest.raises(CheckpointError, match="missing: position_bias"):
        load_official(parc.fuse(), state)


def test_a_long_list_is_cut_in_the_message_only():
    with pytest.raises(CheckpointError) as error:
        load_official(UniRepLKNet(**OPTIONS), {"a": torch.zeros(1)})
    assert len(error.value.missing) > 100
    assert str(error.value).count("missing:") == 13


def test_a_checkpoint_that_does_not_fit_is_a_users_mistake():
    assert issubclass(CheckpointError, UserError)
