"""The kernels for GPUs, held to torch's own calls in float64: on a GPU, or by Triton's interpreter.

conftest.py sets TRITON_INTERPRET where there is no GPU. The interpreter multiplies the bits of
bfloat16 as if they were whole numbers: that type is tested on a GPU alone.
"""

import copy
import importlib.util
import os

import pytest
import torch
from torch.nn import functional as F

from bench import operators
from bench.backbones import fuse
from bench.operators import correlation, forms, gpu
from bench.operators.choices import Choices, alike
from bench.operators.correlation import Geometry
from bench.operators.depthwise import depthwise_conv2d
from bench.speed.gate import randomise

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is for Linux"
)

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
TYPES = {torch.float32: 1e-5, torch.float16: 5e-3} | ({torch.bfloat16: 4e-2} if ON_GPU else {})
HALF = [dtype for dtype in TYPES if dtype != torch.float32]
LAID = {
    "square": ((2, 3, 14, 14), (7, 7), Geometry((1, 1), (3, 3, 3, 3), (1, 1))),
    "wider than a tile": ((1, 2, 6, 70), (3, 13), Geometry((1, 1), (1, 1, 6, 6), (1, 1))),
    "larger than the map": ((1, 2, 7, 9), (31, 31), Geometry((1, 1), (15, 15, 15, 15), (1, 1))),
    "stride": ((3, 2, 7, 9), (5, 5), Geometry((2, 2), (2, 2, 2, 2), (1, 1))),
    "stride and dilation": ((2, 2, 20, 40), (5, 3), Geometry((1, 2), (4, 4, 3, 3), (2, 3))),
    "unlike ends": ((1, 2, 10, 11), (3, 7), Geometry((1, 1), (1, 1, 2, 4), (1, 1))),
    "one line": ((1, 1, 1, 5), (1, 3), Geometry((1, 1), (0, 0, 1, 1), (1, 1))),
}


@pytest.fixture(autouse=True)
def interpreted():
    if ON_GPU:
        yield
        return
    assert os.environ["TRITON_INTERPRET"] == "1"
    with gpu.interpreted():
        yield


def maps(shape, kernel, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, weight, bias = (
        torch.randn(size, generator=generator).to(DEVICE, dtype)
        for size in (shape, (shape[1], 1, *kernel), (shape[1],))
    )
    return x, weight, bias


def plain(x, weight, bias, g):
    """The slow obvious reference, in float64."""
    top, bottom, left, right = g.padding
    padded = F.pad(x.double(), (left, right, top, bottom))
    bias = None if bias is None else bias.double()
    return F.conv2d(padded, weight.double(), bias, g.stride, 0, g.dilation, len(weight))


def assert_near(value, reference, dtype):
    assert value.dtype == dtype
    assert (value.double() - reference).abs().max() <= TYPES[dtype] * reference.abs().max()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", LAID)
def test_the_banded_product_is_the_correlation(case, dtype):
    shape, kernel, g = LAID[case]
    x, weight, bias = maps(shape, kernel, dtype)
    with torch.no_grad():
        assert "toeplitz" in correlation.forms(x, weight, g)
        compute = correlation.prepared("toeplitz", x, weight, bias, g)
        assert_near(compute(x), plain(x, weight, bias, g), dtype)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", LAID)
def test_the_diagonals_of_one_product_are_the_gradient_of_the_kernel(case, dtype):
    shape, kernel, g = LAID[case]
    x, weight, _ = maps(shape, kernel, dtype)
    wide = weight.double().requires_grad_()
    y = plain(x, wide, None, g)
    grad = torch.randn_like(y).to(dtype)
    y.backward(grad.double())
    assert_near(gpu.kernels().kernel_gradient(x, weight, grad, g), wide.grad, dtype)


@pytest.mark.parametrize("view", ["channels last", "some channels", "every other row"])
def test_maps_that_lie_otherwise(view):
    x, weight, bias = maps((2, 6, 8, 9), (3, 3), torch.float32)
    x = {
        "channels last": x.contiguous(memory_format=torch.channels_last),
        "some channels": x[:, 1:5],
        "every other row": x[:, :, ::2],
    }[view]
    weight, bias, g = weight[: x.shape[1]], bias[: x.shape[1]], LAID["stride"][2]
    with torch.no_grad():
        y = correlation.prepared("toeplitz", x, weight, bias, g)(x)
    assert_near(y, plain(x, weight, bias, g), torch.float32)
    assert y.is_contiguous(
        memory_format=torch.channels_last if view == "channels last" else torch.contiguous_format
    )


KERNELS = ("toeplitz", "diagonals", "at once")


class Forced(Choices):
    """Choices that take the GPU's form wherever it is offered."""

    def best(self, problem, candidates, key=None):
        form = next((f for f in candidates if f in KERNELS), next(iter(candidates)))
        assert forms_agree(candidates, form), problem
        self.taken[problem["of"]] = form
        return form


def forms_agree(candidates, form):
    """The value of a form is that of the rule's."""
    first, *_ = candidates.values()
    return alike(candidates[form](), first())


def test_a_training_step_takes_the_kernels_for_value_and_gradients(tmp_path):
    x, weight, bias = (t.requires_grad_() for t in maps((2, 3, 9, 8), (5, 5), torch.float32))
    g = Geometry((1, 1), (2, 2, 2, 2), (1, 1))
    with forms.fastest(Forced(tmp_path / "forms.json")) as choices:
        y = depthwise_conv2d(x, weight, bias, *g)
        grad = torch.randn_like(y)
        found = torch.autograd.grad(y, (x, weight, bias), grad)
    assert choices.taken == {
        "depthwise": "toeplitz",
        "depthwise, gradient of the map": "toeplitz",
        "depthwise, gradient of the kernel": "diagonals",
    }
    wide = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    expected = torch.autograd.grad(plain(*wide, g), wide, grad.double())
    for value, reference in zip(found, expected, strict=True):
        assert_near(value, reference, torch.float32)


def test_a_gradient_that_is_differentiated_again_is_torchs(tmp_path):
    x, weight, _ = (t.requires_grad_() for t in maps((1, 2, 5, 6), (3, 3), torch.float32))
    g = Geometry((1, 1), (1, 1, 1, 1), (1, 1))

    def twice(compute, x, weight):
        (once,) = torch.autograd.grad(compute().pow(2).sum(), x, create_graph=True)
        return torch.autograd.grad(once.pow(2).sum(), (x, weight))

    with forms.fastest(Forced(tmp_path / "forms.json")):
        depthwise_conv2d(x, weight, None, *g).sum().backward()  # what once is known stays so
        found = twice(lambda: depthwise_conv2d(x, weight, None, *g), x, weight)
    wide = [t.detach().double().requires_grad_() for t in (x, weight)]
    expected = twice(lambda: plain(*wide, None, g), *wide)
    for value, reference in zip(found, expected, strict=True):
        assert_near(value, reference, torch.float32)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_autocast_reaches_the_kernels(dtype, tmp_path):
    x, weight, bias = (t.requires_grad_() for t in maps((1, 2, 6, 5), (3, 3), torch.float32))
    with torch.autocast(DEVICE, dtype), forms.fastest(Forced(tmp_path / "forms.json")) as choices:
        y = depthwise_conv2d(x, weight, bias, padding=(1, 1))
    y.sum().backward()
    assert choices.taken["depthwise"] == "toeplitz"
    g = Geometry((1, 1), (1, 1, 1, 1), (1, 1))
    assert_near(y, plain(x, weight, bias, g), dtype)
    assert x.grad.dtype == weight.grad.dtype == torch.float32


OPERATORS = {
    "shift": {"kernel_size": 13},
    "shift with every channel": {"kernel_size": 7, "ghost_ratio": 0.0},
    "shift_split": {"kernel_size": 13},
    "parc": {"resolution": (9, 14)},
    "parc along one axis": {"resolution": (9, 14), "axis": "width"},
    "slak": {"kernel_size": 13},
    "acb": {"kernel_size": 7},
    "unireplk": {"kernel_size": 13},
    "replk": {"kernel_size": 13},
    "dwconv": {"kernel_size": 7},
}


@pytest.mark.parametrize("case", OPERATORS)
def test_every_fused_operator_keeps_its_value(case, tmp_path):
    torch.manual_seed(0)
    name, options = case.split()[0], OPERATORS[case]
    op = operators.create(name, in_channels=12, out_channels=12, groups=12, **options)
    randomise(op, 0)
    op.eval().requires_grad_(False).to(DEVICE)
    x = torch.randn(2, 12, 9, 14, device=DEVICE)
    fused = op.fuse(x, choices=(choices := Forced(tmp_path / "forms.json")))
    with torch.inference_mode():
        expected = copy.deepcopy(op).double()(x.double())
        assert_near(fused(x), expected, torch.float32)
    taken = set(choices.taken.values())
    assert taken & {"toeplitz", "at once"}, choices.taken
    if name in ("shift", "parc"):
        assert "at once" in fused.chosen(2)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_precision_of_a_whole_network(dtype, tmp_path):
    torch.manual_seed(0)
    ops = [
        operators.create(name, in_channels=4, out_channels=4, groups=4, kernel_size=7, **options)
        for name, options in (("shift", {}), ("parc", {"resolution": 8}), ("acb", {}))
    ]
    model = torch.nn.Sequential(*ops)
    randomise(model, 0)
    model, x = model.eval().to(DEVICE), torch.randn(1, 4, 8, 8, device=DEVICE)
    with torch.inference_mode():
        expected = model.double()(x.double())
        half, y = fuse(model.float()).to(dtype), x.to(dtype)
        forms.choose(half, y, choices := Forced(tmp_path / "forms.json"))
        assert_near(half(y), expected, dtype)
    assert {"toeplitz", "at once"} <= set(choices.taken.values())


def test_maps_that_the_kernels_do_not_take():
    assert gpu.usable(torch.zeros(1, 1, 2, 2, device=DEVICE))
    assert not gpu.usable(torch.zeros(0, 1, 2, 2, device=DEVICE))
    assert not gpu.usable(torch.zeros(1, 1, 2, 2, dtype=torch.float64, device=DEVICE))
    assert not gpu.usable(torch.zeros(1, 2, 2, device=DEVICE))
    assert not gpu.takes_whole(torch.zeros(1, 1, 2, 65, device=DEVICE))


def test_a_kernel_of_another_type_or_several_a_channel_is_torchs():
    x, weight, _ = maps((1, 2, 5, 5), (3, 3), torch.float32)
    g = Geometry((1, 1), (1, 1, 1, 1), (1, 1))
    with torch.no_grad():
        assert "toeplitz" not in correlation.forms(x, weight.double(), g)
        assert "toeplitz" not in correlation.forms(x, weight.repeat(2, 1, 1, 1), g)
    assert "toeplitz" not in correlation.forms(x, weight, g)  # gradients may be asked for
