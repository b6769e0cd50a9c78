"""A host by name with an operator in it; a user's mistake is told from a fault of the code."""

import pytest
import timm
import torch
from torch import nn

from bench.backbones import build, find_slots, swap, swap_report
from bench.errors import Failure, UserError
from bench.operators import Operator, registry
from bench.operators.dwconv import DepthwiseConv


def test_build_is_the_host_with_the_operator():
    model = build(
        "test_convnext",
        operator="dwconv",
        options={"kernel_size": 5},
        where={"stages": [1, 2], "depthwise": True},
        input_size=(64, 64),
        features_only=True,
        host_options={"out_indices": (1, 3)},
    )
    with torch.no_grad():
        maps = model(torch.zeros(2, 3, 64, 64))
    assert [len(model.feature_info.channels()), len(maps)] == [2, 2]
    ops = [module for module in model.modules() if isinstance(module, Operator)]
    assert {op.spec.kernel_size for op in ops} == {(5, 5)}
    assert swap_report(build("test_resnet")).swapped == []


@pytest.mark.parametrize(
    ("host", "arguments", "message"),
    [
        ("resnet19", {}, r"`host` \(='resnet19'\) is no model of timm; did you mean 'resnet18'"),
        ("qqqq", {}, r"see timm.list_models\(\)"),
        (18, {}, r"`host` \(=18\) must be the name of a model"),
        ("resnet18.a1_in2k", {}, r"`host` .*'a1_in2k' names no weights.*did you mean 'a1_in1k'"),
        ("unireplknet_a", {"pretrained": True}, r"`pretrained` \(=True\): timm has no weights"),
        ("ac_resnet18", {"pretrained": True}, r"`pretrained` \(=True\).*load_official"),
        ("test_resnet", {"operator": "cnov"}, "did you mean 'conv'"),
        ("test_resnet", {"options": {"kernel_size": 3}}, "needs an `operator`"),
        ("test_resnet", {"where": {"every": 2}}, "needs an `operator`"),
        ("test_resnet", {"operator": "conv", "options": {"where": {}}}, "`where` is none of them"),
        ("test_resnet", {"host_options": {"colour": 1}}, "does not take `colour`; known: aa_layer"),
        ("test_convnext", {"host_options": {"depht": [1]}}, "`depht`; did you mean 'depths'"),
        ("test_convnext", {"host_options": {"depths": "ab"}}, r"`host_options` \(=.*must be what"),
        ("mobilevit_s", {"host_options": {"colour": 1}}, "does not take `colour`"),
        ("test_convnext", {"host_options": [1]}, r"`host_options` \(=\[1\]\) must be a mapping"),
        ("test_convnext", {"host_options": {"pretrained": True}}, "must leave `pretrained`"),
        (
            "test_convnext",
            {"features_only": True, "host_options": {"out_indices": [7]}},
            r"`host_options` \(=\{'out_indices': \[7\]\}\) must be what",
        ),
        ("test_convnext", {"input_size": (0, 3)}, r"`input_size` \(=\(0, 3\)\) must be one or two"),
        (
            "test_vit",
            {"operator": "conv", "input_size": (50, 50)},
            r"`input_size` \(=\(50, 50\)\) must be a size that the model runs on, such as \(160",
        ),
    ],
)
def test_a_mistake_names_argument_value_and_rule(host, arguments, message):
    with pytest.raises(UserError, match=message):
        build(host, **arguments)


def test_a_failed_download_is_no_mistake_of_the_user(monkeypatch):
    create = timm.create_model

    def offline(name, pretrained=False, **kwargs):
        if pretrained:
            raise ConnectionError("no network\nafter five tries")
        return create(name, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(Failure, match=r"weights of 'resnet18' .*ConnectionError: no network; `"):
        build("resnet18", pretrained=True)


def test_a_host_that_cannot_be_built_at_all_keeps_its_error(monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("inside timm")

    monkeypatch.setattr(timm, "create_model", broken)
    with pytest.raises(ZeroDivisionError):
        build("test_convnext", host_options={"num_classes": 3})


def test_a_model_that_runs_on_no_size_keeps_its_error():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return self.conv(x).missing

    with pytest.raises(AttributeError, match="missing"):
        find_slots(Broken(), (64, 64))


class Refusing(DepthwiseConv):
    """Stands in for 32 channels only, and says so as `raises` does."""

    raises = UserError

    def __init__(self, spec):
        super().__init__(spec)
        if spec.in_channels != 32:
            raise self.raises(f"`in_channels` (={spec.in_channels}) must be 32.")


class Undecodable(DepthwiseConv):
    """Reads a file of its own that is not what it thinks: its fault, though a ValueError."""

    def __init__(self, spec):
        super().__init__(spec)
        b"\xff".decode("ascii")


class Careless(Refusing):
    """A fault that happens to be a plain ValueError."""

    raises = ValueError


@pytest.fixture
def plugins(monkeypatch):
    """Operators of somebody else's."""
    registry._load()
    mine = {"refusing": Refusing, "undecodable": Undecodable, "careless": Careless}
    for name, cls in mine.items():
        monkeypatch.setitem(registry._classes, name, cls)


@pytest.mark.usefixtures("plugins")
def test_a_refusal_keeps_the_slot_and_is_in_the_report():
    model = timm.create_model("test_convnext")
    report = swap_report(swap(model, "refusing", where={"depthwise": True}, input_size=(64, 64)))
    widths = {model.get_submodule(name).weight.shape[0] for name in report.refused}
    assert report.swapped
    assert widths
    assert 32 not in widths
    assert all(reason.endswith("must be 32.") for reason in report.refused.values())


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("operator", "error"), [("undecodable", UnicodeDecodeError), ("careless", ValueError)]
)
def test_a_fault_of_an_operator_is_no_refusal(operator, error):
    model = timm.create_model("test_convnext")
    with pytest.raises(error) as caught:
        swap(model, operator, where={"depthwise": True}, input_size=(64, 64))
    assert not isinstance(caught.value, UserError)
    (note,) = caught.value.__notes__
    assert f"{operator!r} was being built for the slot 'stages." in note
    assert not any(isinstance(module, Operator) for module in model.modules())
