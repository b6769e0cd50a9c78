"""The contract: what every operator must do, whoever wrote it.

A check is a function of an operator's name and one case; the cases of an operator, its slow
reference and its exceptions, each with a reason, are data in references/<name>.py. Those of other
people's packages are checked in the same way (tests/test_more_operators.py): their references'
folder is appended to `REFERENCES`.
"""

import copy
import importlib.util
import inspect
import io
import itertools
import pickle
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bench import operators
from bench.errors import UserError
from bench.operators import ConvSpec, registry, rules
from bench.operators.forms import Formed, is_channels_last

REFERENCES = [Path(__file__).parent / "references"]
# The last one is smaller than any kernel but 1 × 1.
SIZES = [(12, 12), (9, 14), (2, 1)]
# For an operator without a file: what it refuses of these is left out, but not all.
ANYBODY = [
    {"in_channels": 6, "out_channels": 6, "kernel_size": 3, "resolution": 12},
    {"in_channels": 6, "out_channels": 6, "kernel_size": 7, "stride": 2, "resolution": 12},
    {"in_channels": 6, "out_channels": 6, "kernel_size": 13, "resolution": 12},
    {"in_channels": 6, "out_channels": 8, "kernel_size": 3, "resolution": 12},
]


def data(name):
    """The module references/<name>.py; None where there is no such file."""
    paths = [folder / f"{name}.py" for folder in REFERENCES]
    path = next(filter(Path.exists, paths), None)
    if path is None:
        return None
    qualified = f"operator_references_{name}"
    if qualified not in sys.modules:
        spec = importlib.util.spec_from_file_location(qualified, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[qualified] = module
        spec.loader.exec_module(module)
    return sys.modules[qualified]


def arguments(case):
    return {k: v for k, v in case.items() if k not in ("sizes", "exceptions", "costly")}


def sizes(case):
    return case.get("sizes", SIZES)


def make(name, case, seed=0):
    torch.manual_seed(seed)
    return operators.create(name, **arguments(case))


def randomise(module, seed=1):
    """Make every weight and statistic count: nothing stays at 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
        for m in module.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.normal_(0, 0.5, generator=generator)
                m.running_var.uniform_(0.5, 2, generator=generator)
    return module


def trained(name, case):
    """An operator as after training, in eval mode."""
    return randomise(make(name, case)).eval()


def image(op, size, batch=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch, op.spec.in_channels, *size, generator=generator, dtype=dtype)


def relative(a, b):
    """Largest difference over the largest value."""
    return ((a - b).abs().max() / b.abs().max().clamp_min(1e-12)).item()


def rms(x):
    return x.double().square().mean().sqrt().item()


def forms(name, case):
    op = trained(name, case)
    return op, op.fuse()


def check_shape(name, case):
    op, fused = forms(name, case)
    for size in sizes(case):
        expected = (2, op.spec.out_channels, *op.spec.output_size(*size))
        x = image(op, size)
        assert op(x).shape == expected
        assert fused(x).shape == expected
        assert op.train()(x).shape == expected
        op.eval()


def check_reference(name, case):
    module = data(name)
    if module is None:
        return
    op = trained(name, case).double()
    with torch.no_grad():
        for size in sizes(case):
            x = image(op, size, dtype=torch.float64)
            assert relative(op(x), module.reference(op, x)) < 1e-10, size


def check_gradients(name, case):
    op = trained(name, case)
    out = op(image(op, sizes(case)[0]))
    (out * torch.randn_like(out)).sum().backward()
    for key, p in op.named_parameters():
        assert p.grad is not None, key
        assert p.grad.isfinite().all(), key
        assert p.grad.any(), key


def check_gradcheck(name, case):
    op = randomise(make(name, case)).double()
    keys, values = zip(*op.named_parameters(), strict=True)
    x = image(op, sizes(case)[1], dtype=torch.float64).requires_grad_()

    def value(x, *values):
        return torch.func.functional_call(op, dict(zip(keys, values, strict=True)), (x,))

    for mode in (True, False):
        op.train(mode)
        torch.manual_seed(3)
        assert torch.autograd.gradcheck(
            value, (x, *[v.detach().requires_grad_() for v in values]), fast_mode=True
        )


def check_fuse(name, case):
    op = trained(name, case)
    before = copy.deepcopy(op.state_dict())
    was_training = op.train().training
    fused = op.fuse()
    assert op.training == was_training
    assert not fused.training
    assert fused.spec.stride == op.spec.stride
    with torch.no_grad():
        for p in fused.parameters():
            assert all(p.data_ptr() != q.data_ptr() for q in op.parameters())
        op.eval()
        for size in sizes(case):
            x = image(op, size)
            assert relative(fused(x), op(x)) < 1e-5, size
        for key, value in op.state_dict().items():
            assert torch.equal(value, before[key]), key


def check_forms(name, case):
    """Every form of everything inside computes the slow reference's value, in either layout.

    Of the training form the gradients too, against those of the rule.
    """
    module = data(name)
    whole = trained(name, case).double()
    for op in (whole, whole.fuse()):
        formed = [m for m in op.modules() if isinstance(m, Formed)]
        for size in sizes(case):
            x = image(op, size, dtype=torch.float64)
            layouts = (x, x.contiguous(memory_format=torch.channels_last))
            expected = whole(x) if module is None else module.reference(whole, x)
            for one, x in itertools.product(formed, layouts):
                for form in met(op, one, x):
                    one.form = form
                    with torch.no_grad():
                        y = op(x)
                    assert relative(y, expected) < 1e-9, (form, size)
                    assert is_channels_last(y) <= is_channels_last(x)
                if any(p.requires_grad for p in one.parameters()) and x is layouts[0]:
                    for inner in inputs_of(op, one, x):
                        rule, *others = gradients(one, inner)
                        for other in others:
                            pairs = zip(other, rule, strict=True)
                            assert all(relative(*pair) < 1e-9 for pair in pairs), size
                one.form = "auto"


def gradients(module, x):
    """Of the map and of what is learnt, by every form that gradients flow through."""
    able = [form for form in module.forms(x.requires_grad_()) if module.learnable(form)]
    return [module._gradient(form, x) for form in able]


def inputs_of(op, module, x):
    """The maps that a module inside of an operator meets."""
    met = []
    handle = module.register_forward_pre_hook(lambda _, args: met.append(args[0].detach()))
    with torch.no_grad():
        op(x)
    handle.remove()
    return met


def met(op, module, x):
    """The forms that can compute what a module meets."""
    with torch.no_grad():
        return [form for inner in inputs_of(op, module, x) for form in module.forms(inner)]


BFLOAT16 = torch.finfo(torch.bfloat16).eps


def check_bfloat16(name, case):
    """Both forms are within bfloat16's ε of the float32 training form, in the root mean square.

    Rounding input and weights to bfloat16 alone makes 0.35 ε, every further branch some more.
    """
    op, fused = forms(name, case)
    x = image(op, sizes(case)[0])
    with torch.no_grad():
        exact = op(x)
        for form in (op, fused):
            low = copy.deepcopy(form).bfloat16()(x.bfloat16())
            assert low.dtype == torch.bfloat16
            assert rms(low - exact) <= BFLOAT16 * rms(exact)


def check_autocast(name, case):
    op, fused = forms(name, case)
    x = image(op, sizes(case)[0])
    exact = op(x)
    for form in (op, fused):
        with torch.autocast("cpu", torch.bfloat16):
            low = form(x)
        assert rms(low - exact) <= BFLOAT16 * rms(exact)
        low.float().sum().backward()
        for p in form.parameters():
            assert p.grad is not None
            assert p.grad.dtype == p.dtype


def check_state_dict(name, case):
    op, fused = forms(name, case)
    other = make(name, case, seed=7).eval()
    x = image(op, sizes(case)[1 % len(sizes(case))])
    for source, target in ((op, other), (fused, other.fuse())):
        target.load_state_dict(source.state_dict())
        assert torch.equal(target(x), source(x))


def check_channels_last(name, case):
    for form in forms(name, case):
        x = image(form, sizes(case)[0])
        expected = form(x)
        last = copy.deepcopy(form).to(memory_format=torch.channels_last)
        assert relative(last(x.to(memory_format=torch.channels_last)), expected) < 1e-5


def check_copies(name, case):
    for form in forms(name, case):
        x = image(form, sizes(case)[0])
        expected = form(x)
        assert torch.equal(copy.deepcopy(form)(x), expected)
        assert torch.equal(pickle.loads(pickle.dumps(form))(x), expected)


def check_generators(name, case):
    """Only construction draws, and only from torch's generator, which it never seeds."""
    random_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    after = []
    for seed in (5, 6):
        op = make(name, case, seed)
        after.append(torch.rand(1))
    assert not torch.equal(*after)
    torch_state = torch.get_rng_state()
    op(image(op, sizes(case)[0]))
    op.fuse()(image(op, sizes(case)[0]))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == random_state
    now = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(now, numpy_state, strict=True))


def check_determinism(name, case):
    first, second, other = (make(name, case, seed).state_dict() for seed in (4, 4, 5))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def check_meta(name, case):
    """Under torch.device("meta") nothing is drawn and nothing is allocated."""
    with torch.device("meta"):
        op = make(name, case)
    assert {t.device.type for t in op.state_dict().values()} <= {"meta"}


def check_params(name, case):
    for form in forms(name, case):
        assert form.params() == sum(p.numel() for p in form.parameters())


def check_macs(name, case):
    for form in forms(name, case):
        for size in sizes(case):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                form(image(form, size, batch=1))
            assert 2 * form.macs(*size) == counter.get_total_flops(), size


def check_carry(name, case):
    """Carrying says no and leaves everything, or starts with the value of what was replaced."""
    op = make(name, case)
    conv, norm = op.spec.conv(), randomise(nn.BatchNorm2d(op.spec.out_channels, eps=1e-3))
    norm = norm.eval() if op.absorbs_norm else None
    before = copy.deepcopy(op.state_dict())
    carried = op.carry(conv, norm)
    x = image(op, sizes(case)[1])
    if carried:
        expected = conv(x) if norm is None else norm(conv(x))
        assert relative(op.eval()(x), expected) < 1e-5
    else:
        assert all(torch.equal(before[k], v) for k, v in op.state_dict().items())


def check_compile(name, case):
    for form in forms(name, case):
        torch.compiler.reset()
        x = image(form, sizes(case)[0])
        compiled = torch.compile(form, fullgraph=True, backend="aot_eager")
        assert relative(compiled(x), form(x)) < 1e-5
    torch.compiler.reset()


def check_export(name, case):
    """Exported once, for any batch: the program computes the form's value, and ONNX Runtime too."""
    ort = pytest.importorskip("onnxruntime")
    for form in forms(name, case):
        x = image(form, sizes(case)[0])
        program = torch.export.export(form, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        more = image(form, sizes(case)[0], batch=3)
        expected = form(more).detach()
        assert relative(program.module()(more), expected) < 1e-5
        file = io.BytesIO()
        torch.onnx.export(program, dynamo=True, verbose=False).save(file)
        session = ort.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
        (out,) = session.run(None, {session.get_inputs()[0].name: more.numpy()})
        assert relative(torch.from_numpy(out), expected) < 1e-5


CHECKS = [v for k, v in list(globals().items()) if k.startswith("check_")]
COSTLY = [check_compile, check_export]


def cases(name):
    module = data(name)
    if module is not None and hasattr(module, "ACCEPTS"):
        return module.ACCEPTS
    accepted = []
    for case in ANYBODY:
        try:
            make(name, case)
        except UserError:
            continue
        accepted.append(case)
    assert accepted, f"{name} accepts none of the common convolutions"
    return accepted


def excepted(check, case):
    return check.__name__ in case.get("exceptions", {})


CONVOLUTION = inspect.signature(operators.create).parameters


def parameters(names):
    for name in names:
        seen = []
        for number, case in enumerate(cases(name)):
            own = {k: v for k, v in arguments(case).items() if k not in CONVOLUTION}
            new = own not in seen or case.get("costly", False)
            seen.append(own)
            for check in CHECKS:
                # The costly ones take one case of every setting of the operator's own options.
                if excepted(check, case) or (check in COSTLY and not new):
                    continue
                marks = [pytest.mark.slow] if check in COSTLY else []
                label = f"{name}-{number}-{check.__name__.removeprefix('check_')}"
                yield pytest.param(check, name, case, id=label, marks=marks)


@pytest.mark.parametrize(("check", "name", "case"), list(parameters(operators.names())))
def test_contract(check, name, case):
    check(name, case)


def test_exceptions_name_a_check_and_a_reason():
    known = {check.__name__ for check in CHECKS}
    for name in operators.names():
        for case in cases(name):
            for check, reason in case.get("exceptions", {}).items():
                assert check in known
                assert len(reason.split()) > 2


def refusals(names):
    for name in names:
        for number, (case, argument) in enumerate(getattr(data(name), "REFUSES", [])):
            yield pytest.param(name, case, argument, id=f"{name}-{number}-{argument}")


@pytest.mark.parametrize(("name", "case", "argument"), list(refusals(operators.names())))
def test_refusal_names_the_argument(name, case, argument):
    with pytest.raises(UserError, match=f"`{argument}` \\(="):
        operators.create(name, **case)


class Together(nn.Module):
    """All operators side by side, each with its own input: one graph to compile."""

    def __init__(self, modules):
        super().__init__()
        self.parts = nn.ModuleList(modules)

    def forward(self, inputs):
        return [part(x) for part, x in zip(self.parts, inputs, strict=True)]


@pytest.mark.slow
# An FFT stays outside the generated code, which inductor says.
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex")
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor_compiles_all():
    chosen = [(n, cases(n)[0]) for n in operators.names()]
    together = Together([m for name, case in chosen for m in forms(name, case)])
    inputs = [
        image(part, sizes(chosen[number // 2][1])[0]) for number, part in enumerate(together.parts)
    ]
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(together, fullgraph=True)(inputs)
        for out, expected in zip(compiled, together(inputs), strict=True):
            assert relative(out, expected) < 1e-5
    torch.compiler.reset()


PLUGIN = """
import torch
from torch import nn
from bench.operators import Operator

class Blur(Operator):
    requires = ("depthwise",)

    def __init__(self, spec, *, gain: float = 1.0):
        super().__init__(spec)
        self.gain = gain
        self.conv = spec.conv()

    def forward(self, x):
        return self.gain * self.conv(x)

    def macs(self, h, w):
        return self.spec.conv_macs(h, w)

    def params(self):
        return self.spec.conv_params()

class Broken(Blur):
    def macs(self, h, w):
        return 1

    def forward(self, x):
        return super().forward(x) + torch.rand(1)
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Somebody's installed distribution with two operators: one keeps the contract."""
    (tmp_path / "convboard_plugin.py").write_text(PLUGIN)
    metadata = tmp_path / "convboard_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: convboard-plugin\nVersion: 1\n"
    )
    (metadata / "entry_points.txt").write_text(
        f"[{registry.ENTRY_POINTS}]\n"
        "blur = convboard_plugin:Blur\nbroken = convboard_plugin:Broken\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    registry._load.cache_clear()
    yield metadata
    registry._load.cache_clear()
    sys.modules.pop("convboard_plugin", None)


@pytest.mark.slow
def test_contract_runs_on_a_third_party_operator(plugin):
    assert {"blur", "broken", "conv"} <= set(operators.names())
    assert list(operators.options("blur")) == ["gain"]
    assert len(cases("blur")) == 3
    for case in cases("blur"):
        for check in CHECKS:
            check("blur", case)
    for check in (check_macs, check_generators, check_fuse):
        with pytest.raises(AssertionError):
            check("broken", cases("broken")[0])


def test_entry_point_that_is_no_operator_is_named(plugin):
    (plugin / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\nlog = math:log\n")
    with pytest.raises(TypeError, match=r"'log' \(math:log\)"):
        operators.names()


def test_entry_point_that_cannot_be_imported_is_named(plugin):
    (plugin / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\ngone = no_such:Op\n")
    with pytest.raises(ImportError, match=r"'gone' \(no_such:Op\)"):
        operators.names()


def test_entry_point_cannot_take_a_name(plugin):
    (plugin / "entry_points.txt").write_text(
        f"[{registry.ENTRY_POINTS}]\nconv = convboard_plugin:Blur\n"
    )
    with pytest.raises(
        ValueError, match=r"'conv'.*convboard_plugin.Blur.*bench.operators.conv.Conv"
    ):
        operators.names()


@pytest.mark.parametrize("rule", list(rules.RULES))
def test_a_rule_refuses_with_argument_value_and_operator(rule):
    broken = {
        "depthwise": ({"groups": 2}, "groups"),
        "odd_kernel": ({"kernel_size": (3, 4)}, "kernel_size"),
        "odd_square": ({"kernel_size": (3, 5)}, "kernel_size"),
        "no_dilation": ({"dilation": (1, 2)}, "dilation"),
        "same_padding": ({"padding": (1, 0)}, "padding"),
        "zeros": ({"padding_mode": "circular"}, "padding_mode"),
        "resolution": ({"resolution": None}, "resolution"),
    }
    changes, argument = broken[rule]
    fit = {"in_channels": 4, "out_channels": 4, "groups": 4, "resolution": 8}
    rules.check("mine", (rule,), ConvSpec.make(**fit))
    with pytest.raises(UserError, match=f"^mine .*`{argument}` \\(="):
        rules.check("mine", (rule,), ConvSpec.make(**{**fit, **changes}))


def test_an_unknown_rule_is_told_when_the_class_is_made():
    with pytest.raises(UserError, match=r"`requires` \(='depthwize'\) of Odd.*'depthwise'"):
        type("Odd", (operators.Operator,), {"requires": ("depthwize",)})


def test_fuse_is_not_what_an_operator_overrides():
    with pytest.raises(UserError, match=r"Odd must override `fused\(\)`"):
        type("Odd", (operators.Operator,), {"fuse": lambda self: self})


def test_depthwise_operators_are_known_as_such():
    names = [name for name in operators.names() if "depthwise" in operators.get(name).requires]
    assert names
    assert all(operators.get(name).depthwise for name in names)


def test_unknown_names_list_near_ones():
    with pytest.raises(ValueError, match=r"'convv'.*did you mean.*'conv'"):
        operators.create("convv", in_channels=4, out_channels=4)
    with pytest.raises(ValueError, match=r"`gama_init` .*did you mean 'gamma_init'"):
        operators.create("acb", in_channels=4, out_channels=4, gama_init=1)


def test_ours_have_references():
    ours = [n for n in operators.names() if operators.get(n).__module__.startswith("bench.")]
    assert [n for n in ours if not hasattr(data(n), "reference")] == []
