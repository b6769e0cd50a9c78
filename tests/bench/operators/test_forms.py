"""The choice of forms: measured once, kept, never wrong."""

import copy
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from bench import operators
from bench.operators import choices as choices_module
from bench.operators import forms, jit
from bench.operators.choices import Choices, quickest, race
from bench.operators.depthwise import DepthwiseConv2d
from bench.operators.forms import Formed, choose, fastest


@pytest.fixture
def file(tmp_path):
    return tmp_path / "forms.json"


@pytest.fixture
def conv():
    torch.manual_seed(0)
    return DepthwiseConv2d(4, 4, 13, padding=6, groups=4).eval().requires_grad_(False)


def slow(value):
    def call():
        time.sleep(0.02)
        return value

    return call


ONE = torch.ones(3)


def test_what_was_measured_is_kept_and_not_measured_again(file, monkeypatch):
    candidates = {"slow": slow(ONE), "quick": lambda: ONE}
    assert Choices(file).best({"of": "one"}, candidates) == "quick"
    monkeypatch.setattr(choices_module, "race", lambda _: pytest.fail("measured twice"))
    assert Choices(file).best({"of": "one"}, candidates) == "quick"


def test_another_problem_or_other_forms_are_measured_anew(file):
    choices = Choices(file)
    choices.best({"of": "one"}, {"slow": slow(ONE), "quick": lambda: ONE})
    choices.best({"of": "two"}, {"slow": slow(ONE), "quick": lambda: ONE})
    choices.best({"of": "one"}, {"slow": slow(ONE), "quick": lambda: ONE, "more": lambda: ONE})
    assert len(json.loads(file.read_text())) == 3


def test_the_choice_follows_from_the_file(file):
    Choices(file).best({"of": "one"}, {"slow": slow(ONE), "quick": lambda: ONE})
    entries = json.loads(file.read_text())
    (entry,) = entries.values()
    entry["ms"] = {"slow": 1.0, "quick": 2.0}
    file.write_text(json.dumps(entries))
    assert Choices(file).best({"of": "one"}, {"slow": slow(ONE), "quick": lambda: ONE}) == "slow"


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"quick"', '"gone"'),
        lambda text: json.dumps({k: {"ms": {"slow": "0"}} for k in json.loads(text)}),
        lambda text: json.dumps({k: {"ms": {"slow": -1}} for k in json.loads(text)}),
        lambda text: json.dumps(dict.fromkeys(json.loads(text), 1)),
    ],
)
def test_a_damaged_file_costs_time_alone(file, damage):
    candidates = {"slow": slow(ONE), "quick": lambda: ONE}
    Choices(file).best({"of": "one"}, candidates)
    file.write_text(damage(file.read_text()))
    assert Choices(file).best({"of": "one"}, candidates) == "quick"
    assert Choices(file).best({"of": "one"}, candidates) == "quick"


def test_a_file_that_cannot_be_written_costs_time_alone(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    choices = Choices(tmp_path / "file" / "forms.json")
    assert choices.best({"of": "one"}, {"slow": slow(ONE), "quick": lambda: ONE}) == "quick"
    assert "not kept" in caplog.text


def test_without_a_home_nothing_is_kept(monkeypatch, caplog):
    monkeypatch.delenv("CONVBOARD_CACHE")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    choices = Choices()
    for name in ("one", "two"):
        assert choices.best({"of": name}, {"slow": slow(ONE), "quick": lambda: ONE}) == "quick"
    assert caplog.text.count("not kept") == 1


def test_a_form_that_is_wrong_or_fails_is_never_chosen(caplog):
    def fails():
        raise RuntimeError("no such kernel")

    times = race({"right": slow(ONE), "wrong": lambda: 2 * ONE, "fails": fails})
    assert list(times) == ["right"]
    assert "'wrong'" in caplog.text
    assert "no such kernel" in caplog.text
    with pytest.raises(RuntimeError, match="no such kernel"):
        race({"fails": fails, "right": lambda: ONE})


def test_forms_that_are_alike_go_to_the_first():
    assert quickest({"a": 1.015, "b": 1.0, "c": 1.01}) == "a"


def test_a_chosen_form_follows_its_weights(conv, file):
    x = torch.randn(2, 4, 9, 9)
    plain = nn.Conv2d(4, 4, 13, padding=6, groups=4)
    choose(conv, x, Choices(file))
    for form in conv.forms(x):
        conv.form = form
        for change in (
            lambda: conv.weight.data.mul_(2),
            lambda: conv.load_state_dict({k: v + 1 for k, v in conv.state_dict().items()}),
            lambda: setattr(conv.weight, "data", torch.randn(4, 1, 13, 13)),
        ):
            change()
            plain.load_state_dict(conv.state_dict())
            with torch.no_grad():
                torch.testing.assert_close(conv(x), plain(x), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_keep_the_choice_and_their_own_weights(conv, file, duplicate):
    x = torch.randn(2, 4, 9, 9)
    choose(conv, x, Choices(file))
    with torch.no_grad():
        before = conv(x)
        other = duplicate(conv)
        other.weight.zero_()
        assert other._chosen == conv._chosen
        torch.testing.assert_close(other(x), other.bias.view(1, 4, 1, 1).expand(2, 4, 9, 9))
        assert torch.equal(conv(x), before)


def test_other_shapes_types_and_layouts_take_the_rule(conv, file):
    x = torch.randn(2, 4, 9, 9)
    choose(conv, x, Choices(file))
    (key,) = conv._chosen
    conv._chosen[key], conv._settled = "fft", False
    with torch.no_grad():
        others = (x[:1], x.contiguous(memory_format=torch.channels_last))
        for one in (x, *others):
            conv(one)
        rule = [conv.forms(one)[0] for one in others]
    assert "fft" not in rule
    assert [ready.form for ready in conv._ready.values()] == ["fft", *rule]


def test_torchs_own_call_is_made_as_it_is_where_it_is_the_fastest(conv, file, monkeypatch):
    x = torch.randn(1, 4, 9, 9)
    monkeypatch.setattr(choices_module, "race", lambda forms: {"direct": 1.0, "padded": 2.0})
    choose(conv, x, Choices(file))
    monkeypatch.setattr(Formed, "forward", lambda *_: pytest.fail("looked up"))
    plain = nn.Conv2d(4, 4, 13, padding=6, groups=4)
    plain.load_state_dict(conv.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(conv(x), plain(x))
    conv.requires_grad_(True)(x).sum().backward()  # gradients have forms of their own
    assert conv.weight.grad is not None


@pytest.mark.parametrize("name", ["acb", "shift", "slak", "dwconv", "parc"])
def test_what_ran_is_named_alike_where_it_was_measured_and_where_it_was_known(name, file):
    torch.manual_seed(0)
    place = {"in_channels": 8, "out_channels": 8, "kernel_size": 13, "resolution": 9}
    op = operators.create(name, groups=8, **place)
    x = torch.randn(2, 8, 9, 9, requires_grad=True)
    taken = []
    for _ in range(2):
        with fastest(Choices(file)) as choices:
            for _ in range(2):
                op(x).square().sum().backward()
        taken.append(choices.taken)
    assert taken[0] == taken[1] != {}


def test_another_input_is_measured_where_torchs_own_call_was_the_fastest(file, monkeypatch):
    times = {1: {"direct": 1.0, "padded": 2.0}, 3: {"direct": 2.0, "padded": 1.0}}
    monkeypatch.setattr(choices_module, "race", lambda forms: times[len(forms["direct"].args[0])])
    op = operators.create("conv", in_channels=4, out_channels=4, kernel_size=7, groups=4).fuse()
    for batch in (1, 3):
        choose(op, torch.randn(batch, 4, 9, 9), Choices(file))
    assert op.conv.chosen(1) == ["direct"]
    assert op.conv.chosen(3) == ["padded"]


def test_what_is_inside_of_a_model_is_chosen(file):
    torch.manual_seed(0)
    op = operators.create("shift", in_channels=12, out_channels=12, kernel_size=13).eval()
    x = torch.randn(1, 12, 9, 14)
    with torch.no_grad():
        expected = op.fuse()(x)
    fused = op.fuse(x, choices=Choices(file))
    with torch.no_grad():
        torch.testing.assert_close(fused(x), expected, rtol=1e-4, atol=1e-4)
    assert {name for name, m in fused.named_modules() if getattr(m, "_chosen", {})} == {
        "horizontal",
        "vertical",
    }
    assert not any(getattr(m, "_chosen", {}) for m in op.fuse().modules())


@pytest.mark.parametrize("name", ["dwconv", "unireplk", "shift", "parc", "icconv", "slak", "acb"])
def test_training_in_the_fastest_forms_is_training(name, file):
    torch.manual_seed(0)
    op = operators.create(
        name, in_channels=12, out_channels=12, kernel_size=13, groups=12, resolution=(9, 14)
    )
    x = torch.randn(2, 12, 9, 14)
    state = copy.deepcopy(op.state_dict())

    def step():
        op.load_state_dict(state)
        op.zero_grad()
        leaf = x.clone().requires_grad_()
        op(leaf).square().sum().backward()
        return [leaf.grad, *[p.grad.clone() for p in op.parameters()]]

    by_rule = step()
    with fastest(Choices(file)):
        measured, again = step(), step()
    assert file.exists()
    for gradient, same, expected in zip(measured, again, by_rule, strict=True):
        assert torch.equal(gradient, same)
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=2e-3)
    assert forms.active() is None


@pytest.mark.parametrize("name", ["dwconv", "unireplk", "shift", "parc", "icconv", "slak", "acb"])
def test_validation_sees_the_weights_of_the_last_step(name, file):
    """Fused optimisers change weights and leave no trace that autograd would count."""
    torch.manual_seed(0)
    op = operators.create(
        name, in_channels=12, out_channels=12, kernel_size=13, groups=12, resolution=4
    )
    x = torch.randn(2, 12, 4, 4)
    optimiser = torch.optim.AdamW(op.parameters(), lr=0.1, fused=True)
    with fastest(Choices(file)):
        for _ in range(3):
            op.train()(x).square().sum().backward()
            optimiser.step()
            optimiser.zero_grad()
            with torch.no_grad():
                value = op.eval()(x)
                with forms.plainly():
                    torch.testing.assert_close(value, op(x), rtol=1e-3, atol=1e-3)


PROCESS = """
import sys, torch
from pathlib import Path
from bench.operators import create
from bench.operators.choices import Choices
from bench.operators.forms import fastest
torch.manual_seed(0)
op = create("unireplk", in_channels=8, out_channels=8, kernel_size=13)
with fastest(Choices(Path(sys.argv[1]))):
    op(torch.randn(2, 8, 14, 14)).square().sum().backward()
print(op.large.conv.weight.grad.double().sum().item())
"""


@pytest.mark.slow
def test_processes_that_share_a_file_compute_the_same(file):
    command = [sys.executable, "-c", PROCESS, str(file)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert len({process.communicate()[0] for process in running}) == 1
    assert not any(process.returncode for process in running)


class Squares(Formed):
    """Somebody's own."""

    def __init__(self, forms):
        super().__init__()
        self.able = forms

    def forms(self, x):
        return self.able

    def prepared(self, form, x):
        if form == "sleepy":
            return lambda x: slow(x * x)()
        return lambda x: x**2 if form == "power" else x * x


def test_naming_forms_is_all_that_an_operator_of_ones_own_does(file):
    own, x = Squares(("sleepy", "power")), torch.randn(2, 3)
    choose(own, x, Choices(file))
    assert list(own._chosen.values()) == ["power"]
    torch.testing.assert_close(own(x), x * x)


def test_a_compiler_meets_the_rule(conv, file):
    x = torch.randn(1, 4, 9, 9)
    choose(conv, x, Choices(file))
    conv._chosen = dict.fromkeys(conv._chosen, "fft")
    exported = torch.export.export(conv, (x,))
    targets = {str(node.target) for node in exported.graph.nodes}
    assert "aten.conv2d.default" in targets
    assert not any("fft" in target for target in targets)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_compiled_kernel_leaves_torchs_threads_alone(threads):
    """In a fresh process: numba sets the threads of OpenMP, which torch shares, as it starts."""
    code = f"""
import torch
from bench.operators import create, jit
torch.set_num_threads({threads})
op = create("icconv", in_channels=8, out_channels=8, kernel_size=3).eval().fuse()
op.form = "summed"
with torch.inference_mode():
    op(torch.rand(1, 8, 6, 6))
assert "summed" in op.forms(torch.rand(1, 8, 6, 6)) or not jit.INSTALLED
print(torch.get_num_threads())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [str(threads)]


THREADED = """
import sys
import torch
torch.set_num_threads(int(sys.argv[1]))
from bench.operators import jit
x, table = torch.rand(2, 4, 3, 5), torch.zeros(4, 5)
jit.circular(x, torch.rand(4, 5), table, 2, torch.empty_like(x))
places, one = torch.zeros(1, 1, 3, dtype=torch.int32), torch.ones(1, 1)
jit.sum_taps(one[None, None], 0, places, one, places[0, 0, :1], one[None, None].clone())
import numba
try:
    print(numba.threading_layer() != "")
except ValueError:
    print(False)
print(jit.compiled_here())
"""


@pytest.mark.skipif(not jit.INSTALLED, reason="needs numba")
@pytest.mark.parametrize(("first", "then"), [(1, 2), (2, 1)])
def test_compiled_kernels_share_the_work_as_torch_does_whoever_compiled_first(
    first, then, tmp_path
):
    """On disk they are kept apart: what one thread compiled is not what several read."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_NUM_THREADS": "2"}

    def run(threads):
        command = [sys.executable, "-c", THREADED, str(threads)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return ran.stdout.split()

    for threads in (first, then):
        assert run(threads) == [str(threads > 1), "2"]
    assert run(first) == [str(first > 1), "0"]


def test_a_choice_holds_for_the_code_that_was_measured(tmp_path, monkeypatch):
    x = torch.zeros(1, 1, 2, 2)
    package, file = tmp_path / "package", tmp_path / "own.py"
    package.mkdir()
    monkeypatch.setattr(choices_module, "__file__", str(package / "choices.py"))
    monkeypatch.setattr(choices_module.inspect, "getfile", lambda by: str(file))
    seen = set()
    for change in (package / "kernels.py", file, package / "kernels.py", file):
        for one in (package / "kernels.py", file):
            one.touch()
        change.write_text(change.read_text() + "#")
        choices_module._code.cache_clear()
        seen.add(choices_module.problem("value", x, Formed)["code"])
    choices_module._code.cache_clear()
    assert len(seen) == 4


def test_a_choice_holds_for_classes_without_a_file():
    assert choices_module.problem("value", torch.zeros(1, 1, 2, 2), int)["code"]


def test_what_has_nothing_to_choose_is_not_measured(tmp_path):
    strips = operators.create("shift", in_channels=4, out_channels=4, kernel_size=5).eval().fuse()
    x = torch.rand(1, 4, 6, 6)
    choose(strips, x, Choices(tmp_path / "forms.json"))
    assert not strips.chosen(1)
    assert strips.horizontal.chosen(1)


def test_weights_inside_of_a_part_are_seen():
    op = operators.create("parc", in_channels=4, out_channels=4, kernel_size=5, resolution=(6, 6))
    fused = op.eval().fuse().requires_grad_(False)
    before = fused._state()
    with torch.no_grad():
        fused.axes[1].weight.add_(1)
    assert fused._state() != before
    assert not fused._learned()
    fused.axes[1].weight.requires_grad_()
    assert fused._learned()
