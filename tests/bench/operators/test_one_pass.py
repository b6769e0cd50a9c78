"""Sums of normed depthwise convolutions in one pass: equal to torch's calls in all that they do."""

import contextlib
import copy

import pytest
import torch
from torch import nn

from bench import operators
from bench.operators import choices, forms, one_pass
from bench.operators.one_pass import Channels, NormedSum, Term, normed_sum

NAMES = ("acb", "replk", "shift", "slak", "unireplk")
PLACES = [  # images, height, width, kernel
    (1, 24, 60, 13),  # an image of more than a line's numbers
    (3, 9, 11, 7),
    (40, 5, 5, 7),  # many images on a line, the last one half full
    (7, 4, 13, 9),
    (33, 2, 2, 7),  # most taps lie outside
    (2, 1, 9, 5),
]


def make(name, kernel=7, channels=12, **options):
    """An operator that trains, whose norms are not as they start."""
    shape = {"in_channels": channels, "out_channels": channels, "kernel_size": kernel}
    groups = {"groups": channels} if name == "acb" else {}
    op = operators.create(name, **shape, **groups, **options).train()
    for norm in op.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
            norm.momentum, norm.eps = 0.3, 1e-3
    return op


def twins(op):
    """The operator and its copy: by torch's calls, and in one pass."""
    other = copy.deepcopy(op)
    op.form, other.form = "terms", "one pass"
    return op, other


def learnt(op, x, above):
    """Value, gradients of the map and of all parameters, and the statistics afterwards."""
    x = x.clone().requires_grad_()
    y = op(x)
    grads = torch.autograd.grad(y, [x, *op.parameters()], above)
    return [y, *grads, *op.buffers()]


@contextlib.contextmanager
def counted(monkeypatch):
    """How often the one pass is taken."""
    calls = []

    def passed(*args, **kwargs):
        calls.append(args)
        return normed_sum(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(one_pass, "normed_sum", passed)
        yield calls


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_it_equals_torchs_calls(name, place, threads, monkeypatch):
    torch.manual_seed(0)
    images, height, width, kernel = place
    ours, theirs = reversed(twins(make(name, kernel)))
    x, above = torch.randn(2, images, 12, height, width).unbind()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with counted(monkeypatch) as calls:
            found = learnt(ours, x, above)
    finally:
        torch.set_num_threads(before)
    assert len(calls) == 1
    exact = learnt(theirs.double(), x.double(), above.double())
    for one, other in zip(found, exact, strict=True):
        # a kernel with one tap on the map has a gradient of zero but for rounding
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("name", ["acb", "shift"])
def test_it_can_be_differentiated_twice(name):
    torch.manual_seed(0)
    x, above = torch.randn(2, 3, 12, 6, 5).unbind()
    seconds = []
    for op in twins(make(name, 5)):
        ins = [x.clone().requires_grad_(), *op.parameters()]
        firsts = torch.autograd.grad(op(ins[0]), ins, above, create_graph=True)
        total = sum(first.square().sum() for first in firsts)
        again = torch.autograd.grad(total, ins, materialize_grads=True)  # none of the norms' biases
        seconds.append([*firsts, *again])
    for one, other in zip(*seconds, strict=True):
        largest = float(other.detach().abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3 * largest + 1e-5)


def test_frozen_parameters_get_no_gradient():
    op = make("acb")
    op.form = "one pass"
    op.square.conv.weight.requires_grad_(False)
    op.square.norm.bias.requires_grad_(False)
    op(torch.randn(2, 12, 6, 6)).sum().backward()
    assert op.square.conv.weight.grad is None
    assert op.square.norm.bias.grad is None
    assert op.vertical.conv.weight.grad is not None


def silent_hook(*_):
    """Watch and do nothing."""


def without(op, x):
    with torch.no_grad():
        op(x)


def half(op, x):
    with torch.autocast("cpu", torch.bfloat16):
        op(x)


def frozen_norm(op, x):
    op.square.norm.eval()
    op(x)


def foreign_norm(op, x):
    op.square.norm = nn.GroupNorm(1, 12)
    op(x)


def untracked(op, x):
    op.square.norm = nn.BatchNorm2d(12, track_running_stats=False)
    op(x)


def averaged(op, x):
    op.square.norm.momentum = None
    op(x)


def watched_branch(op, x):
    op.vertical.register_forward_hook(silent_hook)
    op(x)


def watched_norm(op, x):
    op.vertical.norm.register_forward_hook(silent_hook)
    op(x)


UNFIT = {
    "evaluation": lambda op, x: op.eval()(x),
    "no gradients": without,
    "half precision": half,
    "double precision": lambda op, x: op.double()(x.double()),
    "a frozen norm": frozen_norm,
    "another norm": foreign_norm,
    "no running statistics": untracked,
    "averaged statistics": averaged,
    "a watched branch": watched_branch,
    "a watched norm": watched_norm,
    "an empty batch": lambda op, x: op.eval()(x[:0]),
    "a counter": lambda op, x: counter(op, x),
}


def counter(op, x):
    with forms.plainly():
        op(x)


@pytest.mark.parametrize("case", UNFIT)
def test_torchs_calls_are_taken_where_it_does_not_fit(case, monkeypatch):
    op = make("acb")
    op.form = "one pass"
    with counted(monkeypatch) as calls:
        UNFIT[case](op, torch.randn(2, 12, 6, 6))
    assert calls == []


@pytest.mark.parametrize("options", [{"stride": 2}, {"groups": 1}, {"padding": 0}], ids=str)
def test_other_convolutions_are_torchs(options, monkeypatch):
    shape = {"in_channels": 4, "out_channels": 4, "kernel_size": 5, "groups": 4}
    op = operators.create("acb", **{**shape, **options}).train()
    op.form = "one pass"
    with counted(monkeypatch) as calls:
        op(torch.randn(2, 4, 9, 9))
    assert calls == []


def test_shift_with_a_stride_is_torchs(monkeypatch):
    op = make("shift", stride=2)
    op.form = "one pass"
    with counted(monkeypatch) as calls:
        op(torch.randn(2, 12, 9, 9))
    assert calls == []


class Told(choices.Choices):
    """Choices that know the fastest form beforehand, and call every candidate."""

    def __init__(self, path, form):
        super().__init__(path)
        self.form = form

    def times(self, problem, candidates):
        if "one pass" not in candidates:
            return super().times(problem, candidates)
        values = [call() for call in candidates.values()]
        assert choices.alike(values[1], values[0])
        return {form: 1.0 if form == self.form else 9.0 for form in candidates}


@pytest.mark.parametrize("form", ["terms", "one pass"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_measured_is_taken_and_leaves_no_trace(name, form, tmp_path, monkeypatch):
    torch.manual_seed(0)
    op = make(name)
    twin = copy.deepcopy(op)
    twin.form = "terms"
    x = torch.randn(2, 12, 8, 8, requires_grad=True)
    with counted(monkeypatch) as calls, forms.fastest(Told(tmp_path / "forms.json", form)):
        op(x)
        measured = len(calls)
        op(x)
    assert len(calls) - measured == (form == "one pass")
    for _ in range(2):
        twin(x)
    for mine, other in zip(op.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    assert all(parameter.grad is None for parameter in op.parameters())


def test_nothing_is_taken_where_nothing_is_measured(monkeypatch):
    with counted(monkeypatch) as calls:
        make("acb")(torch.randn(2, 12, 6, 6))
    assert calls == []


def test_one_value_a_channel_is_refused():
    op = make("acb")
    op.form = "one pass"
    with pytest.raises(ValueError, match="more than one value"):
        op(torch.randn(1, 12, 1, 1))


def test_channels_that_are_not_the_maps_are_refused():
    conv, norm = nn.Conv2d(2, 2, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(2)
    x, term = torch.randn(3, 4, 5, 5), Term.of(conv, norm)
    for summed, resting in (([0, 9], [1, 2]), ([0, -1], [1, 2]), ([0, 1], [2]), ([0, 0], [1, 2])):
        with pytest.raises(ValueError, match="`channels` must be the 4 channels of `x`"):
            normed_sum(x, [term], Channels(torch.tensor(summed), torch.tensor(resting)))
    with pytest.raises(ValueError, match="`terms` must have 3 channels each"):
        normed_sum(x, [term], Channels(torch.tensor([0, 1, 2]), torch.tensor([3])))


@pytest.mark.parametrize("shape", [(2, 24, 6, 6), (2, 7, 6, 6), (12, 6, 6)], ids=str)
def test_maps_of_other_channels_get_torchs_error(shape, tmp_path):
    op = make("acb")
    told = forms.fastest(Told(tmp_path / "forms.json", "one pass"))
    with told, pytest.raises((RuntimeError, ValueError), match="expected"):
        op(torch.randn(shape))


def test_tables_of_a_checkpoint_that_point_outside_are_refused():
    op = make("shift")
    op.form = "one pass"
    state = op.state_dict()
    state["convolved"] = state["convolved"] + 1000
    op.load_state_dict(state)
    with pytest.raises(ValueError, match="`channels`"):
        op(torch.randn(2, 12, 6, 6))


def test_a_sum_of_ones_own():
    class Two(NormedSum):
        """Two strips of one length."""

        def __init__(self, spec):
            super().__init__(spec)
            self.high = nn.Conv2d(6, 6, (5, 1), padding=(2, 0), groups=6, bias=False)
            self.wide = nn.Conv2d(6, 6, (1, 5), padding=(0, 2), groups=6, bias=False)
            self.norms = nn.ModuleList([nn.BatchNorm2d(6), nn.BatchNorm2d(6)])

        def by_terms(self, x):
            return self.norms[0](self.high(x)) + self.norms[1](self.wide(x))

        def terms(self):
            return [Term.of(self.high, self.norms[0]), Term.of(self.wide, self.norms[1])]

        def macs(self, h, w):
            return 60 * h * w

        def params(self):
            return 84

    torch.manual_seed(0)
    spec = operators.ConvSpec.make(in_channels=6, out_channels=6, kernel_size=5, groups=6)
    ours, theirs = reversed(twins(Two(spec).train()))
    x, above = torch.randn(2, 4, 6, 7, 9).unbind()
    for one, other in zip(learnt(ours, x, above), learnt(theirs, x, above), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["acb", "shift"])
def test_the_layout_of_the_map_is_kept(name):
    torch.manual_seed(0)
    ours, theirs = reversed(twins(make(name)))
    x, above = torch.randn(2, 3, 12, 6, 7).unbind()
    last = x.contiguous(memory_format=torch.channels_last)
    found = learnt(ours, last, above)
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    for one, other in zip(found, learnt(theirs, x, above), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_part_of_the_channels_is_summed():
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(2, 2, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(2)
    term = Term.of(conv, norm)
    x = torch.randn(3, 5, 4, 6)
    y = normed_sum(x, [term], Channels(torch.tensor([3, 1]), torch.tensor([4, 0, 2])))
    torch.testing.assert_close(y[:, :2], nn.BatchNorm2d(2)(conv(x[:, [3, 1]])))
    assert torch.equal(y[:, 2:], x[:, [4, 0, 2]])


def test_kernels_of_shift_by_one_product_follow_the_tables():
    torch.manual_seed(0)
    op = make("shift", 13)

    def compare():
        for one, other in zip(op.kernels_by_product(), op.kernels(), strict=True):
            torch.testing.assert_close(one, other)

    compare()
    op.horizontal.copy_(op.horizontal.flip(2))
    compare()
    op.load_state_dict(make("shift", 13, seed=5).state_dict())
    compare()
    op.load_state_dict(make("shift", 13, seed=6).state_dict(), assign=True)
    compare()
    op = copy.deepcopy(op)
    op.vertical.copy_(op.vertical.flip(2))
    compare()
