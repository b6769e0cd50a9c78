"""A host may be any network: classes replace its own output, its maps are found by strides."""

import copy
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bench.backbones import build, find_slots, fuse, load, save, swap_report
from bench.backbones.wrapped import classifier, features
from bench.config.trust import name as name_hosts
from bench.config.trust import refuse_code
from bench.errors import UserError
from bench.host_code import code_sha256

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, 2, 1)
        )
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x):
        return self.head(torch.flatten(self.body(self.stem(x)).mean((2, 3)), 1))

def broken():
    return 3
"""


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(NET)
    return f"{path}:Net"


def test_a_file_classifies_and_gives_maps(net):
    model = build(net, operator="acb", input_size=(64, 64), host_options={"width": 4})
    model.reset_classifier(3)
    assert model(torch.zeros(2, 3, 64, 96)).shape == (2, 3)
    assert len(swap_report(model).swapped) == 3
    pyramid = build(net, operator="acb", input_size=(64, 64), features_only=True)
    assert pyramid.feature_info.reduction() == [2, 4, 8]
    assert pyramid.feature_info.channels() == [8, 8, 16]
    maps = pyramid(torch.zeros(2, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 32, 48), (8, 16, 24), (16, 8, 12)]
    assert not any(isinstance(module, nn.Linear) for module in pyramid.modules())


def test_copies_and_fused_forms_are_of_equal_value(net):
    torch.manual_seed(0)
    pyramid = build(net, operator="acb", input_size=(64, 64), features_only=True).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted = pyramid(x)
        for other in (copy.deepcopy(pyramid), fuse(pyramid)):
            for got, want in zip(other(x), wanted, strict=True):
                torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_a_network_of_torchvision_is_a_host():
    model = build("torchvision.models:mobilenet_v3_small", input_size=(64, 64))
    model.reset_classifier(5)
    assert model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    pyramid = features(copy.deepcopy(model.net), (64, 64))
    assert pyramid.feature_info.reduction() == [2, 4, 8, 16, 32]
    assert pyramid.names[:2] == ["features.0", "features.1"]  # no layer inside the next block
    assert [m.shape[-1] for m in pyramid.eval()(torch.zeros(1, 3, 64, 64))] == [32, 16, 8, 4, 2]


def test_a_pyramid_can_be_exported_and_a_module_of_many_calls_is_no_map():
    relu = nn.ReLU()
    own = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1),
        relu,
        nn.Conv2d(4, 6, 3, 2, 1),
        relu,
        nn.Flatten(),
        nn.LazyLinear(2),
    )
    own(torch.zeros(1, 3, 32, 32))
    pyramid = features(own, (32, 32)).eval()
    assert pyramid.names == ["0", "2"]
    x = torch.rand(1, 3, 32, 32)
    program = torch.export.export(pyramid, (x,)).module()
    for got, want in zip(program(x), pyramid(x), strict=True):
        torch.testing.assert_close(got, want)


def test_an_output_without_a_last_layer_gets_one():
    own = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
    model = classifier(own, (32, 32))
    model.reset_classifier(4)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


@pytest.mark.parametrize(
    ("host", "options", "message"),
    [
        ("{}/none.py:Net", {}, "there is no file none.py"),
        ("{}/net.py:Nett", {}, "has no callable 'Nett'; did you mean 'Net'"),
        ("{}/net.py:broken", {}, "must return a torch.nn.Module, not a int"),
        ("{}/net.py:Net", {"wide": 3}, "must be what .* takes: got an unexpected keyword"),
        ("no_such_package.nets:Net", {}, "there is no module 'no_such_package'"),
    ],
)
def test_a_mistake_names_argument_value_and_rule(net, tmp_path, host, options, message):
    with pytest.raises(UserError, match=message):
        build(host.format(tmp_path), host_options=options, input_size=(64, 64))


def test_other_code_is_another_host(net, tmp_path):
    before = code_sha256(net)
    build(net, host_sha256=before, input_size=(64, 64))
    (tmp_path / "net.py").write_text(NET.replace("width=8", "width=4"))
    assert code_sha256(net) != before
    with pytest.raises(UserError, match="its code is another than it was"):
        build(net, host_sha256=before, input_size=(64, 64))


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A module of somebody's where the command is run, with what it imports beside and below it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "nets"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('hashing runs nothing')\n")
    (folder / "mine.py").write_text("import torch\nimport widths\nfrom .blocks import Block\n")
    (folder / "blocks.py").write_text('"""Words."""\nBlock = 1\n')
    (folder / "other.py").write_text("OTHER = 1\n")
    (tmp_path / "widths.py").write_text("WIDTH = 8\n")
    return folder


@pytest.mark.parametrize("named", ["nets.mine:Net", "nets/mine.py:Net"])
def test_what_a_host_imports_of_its_own_is_its_code(nets, named):
    before = code_sha256(named)
    (nets / "blocks.py").write_text('"""Other words."""\n\nBlock = 1  # a remark\n')
    (nets / "other.py").write_text("OTHER = 2\n")
    assert code_sha256(named) == before
    (nets / "mine.py").write_text("import torch\nimport widths\nfrom .blocks import Block as B\n")
    assert code_sha256(named) != before


def test_a_module_is_known_by_its_package_and_what_lies_beside_it(nets):
    before = code_sha256("nets.mine:Net")
    (nets / "blocks.py").write_text("Block = 2\n")
    changed = code_sha256("nets.mine:Net")
    (nets.parent / "widths.py").write_text("WIDTH = 16\n")
    assert len({before, changed, code_sha256("nets.mine:Net")}) == 3


def test_a_file_is_known_by_what_lies_beside_it(net, tmp_path):
    (tmp_path / "net.py").write_text("import torch\nimport beside\n")
    (tmp_path / "beside.py").write_text("X = 1\n")
    before = code_sha256(net)
    (tmp_path / "beside.py").write_text("X = 2\n")
    assert code_sha256(net) != before


def test_code_that_is_no_file_has_no_hash():
    assert code_sha256("sys:exit") is None
    assert code_sha256("no_such_package.nets:Net") is None


def test_code_runs_only_where_somebody_named_it(net, monkeypatch):
    monkeypatch.delenv("CONVBOARD_HOSTS", raising=False)
    for host in (net, "os:abort"):
        with pytest.raises(UserError, match=r"host` .*would run code.*--trust"):
            refuse_code({"model": {"backbone": {"host": host}}})
    refuse_code({"host": "resnet18"})
    monkeypatch.setenv("CONVBOARD_HOSTS", "")
    name_hosts([net])
    refuse_code({"host": net})
    with pytest.raises(UserError, match="would run code"):
        refuse_code({"host": "os:abort"})
    loads = {"class_path": "bench.backbones.load", "init_args": {"path": "a", "trust": True}}
    with pytest.raises(UserError, match=r"`trust` \(=True\) would run code"):
        refuse_code({"model": {"init_args": {"backbone": loads}}})


def test_weights_of_a_file_are_carried_where_they_are_contained(net, tmp_path):
    torch.manual_seed(0)
    trained = build("test_resnet", input_size=(64, 64)).eval()
    file = tmp_path / "trained.safetensors"
    save_file(trained.state_dict(), file)
    x = torch.rand(1, 3, 64, 64)
    arguments = {"weights": str(file), "input_size": (64, 64), "where": {"stages": [4]}}
    carried = build("test_resnet", operator="acb", **arguments).eval()
    report = swap_report(carried)
    assert report.carried == report.swapped
    with torch.no_grad():
        torch.testing.assert_close(carried(x), trained(x), rtol=1e-3, atol=1e-4)
    fresh = build("test_resnet", operator="parc", **arguments)
    assert swap_report(fresh).carried == []
    pyramid = build("test_resnet", features_only=True, weights=str(file), input_size=(64, 64))
    assert pyramid.conv1[0].weight.equal(trained.conv1[0].weight)
    with pytest.raises(UserError, match=r"must be those of the host: it has \d+ of its \d+"):
        build("test_convnext", weights=str(file), input_size=(64, 64))


@pytest.mark.parametrize("name", ["backbone", "model", "net"])
def test_a_network_of_ones_own_takes_its_weights_whatever_wraps_them(name, tmp_path):
    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes=3):\n"
        "        super().__init__()\n"
        f"        self.{name} = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))\n"
        "        self.head = nn.Linear(4, num_classes)\n"
        "    def forward(self, x):\n"
        f"        return self.head(self.{name}(x).mean((2, 3)))\n"
    )
    host = f"{file}:Net"
    trained = build(host, input_size=(16, 16))
    state = {key.removeprefix("net."): value for key, value in trained.state_dict().items()}
    save_file(state, tmp_path / "net.safetensors")
    weights = {"weights": str(tmp_path / "net.safetensors"), "input_size": (16, 16)}
    again = build(host, **weights)
    for key, value in trained.state_dict().items():
        assert again.state_dict()[key].equal(value)


def test_weights_of_a_smaller_network_do_not_fill_half_of_a_host(tmp_path):
    file = tmp_path / "smaller.safetensors"
    save_file(build("resnet18", host_options={"num_classes": 7}).state_dict(), file)
    assert build("resnet18", weights=str(file), host_options={"num_classes": 3})  # a new classifier
    with pytest.raises(UserError, match=r"it has \d+ of its \d+ tensors; layer1.2.conv1.weight"):
        build("resnet34", weights=str(file))
    with pytest.raises(UserError, match=r"conv1.weight is \(64, 1, 7, 7\) in the host"):
        build("resnet18", weights=str(file), host_options={"in_chans": 1})


class Borrows(nn.Module):
    """Uses weights of modules that it does not call, before and behind its last map."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.mix = nn.MultiheadAttention(8, 2, batch_first=True)
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(8))])
        self.down = nn.Conv2d(8, 8, 2, 2)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.stem(x)
        tokens = x.flatten(2).transpose(1, 2) * self.scales[0]
        x = self.mix(tokens, tokens, tokens)[0].transpose(1, 2).reshape(x.shape)
        return self.head(self.down(x).mean((2, 3)))


def test_what_is_used_without_being_called_stays():
    torch.manual_seed(0)
    net, x = Borrows().eval(), torch.rand(1, 3, 32, 32)
    wanted = net.down.register_forward_hook(lambda module, args, out: maps.append(out))
    maps = []
    net(x)
    wanted.remove()
    pyramid = features(net, (32, 32))
    torch.testing.assert_close(pyramid(x)[-1], maps[0])


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("operator", ["acb", "unireplk", "parc", "shift", "icconv"])
def test_a_saved_model_computes_the_same(operator, fused, tmp_path):
    torch.manual_seed(0)
    model = build("test_convnext", operator=operator, input_size=(64, 64)).eval()
    model.reset_classifier(3)
    model = fuse(model) if fused else model
    path = tmp_path / "model.safetensors"
    save(model, path)
    again = load(path)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(again(x), model.eval()(x), rtol=1e-5, atol=1e-6)
    assert len(find_slots(model, (64, 64))) == len(find_slots(again, (64, 64)))


def test_a_file_that_names_code_is_refused(net, tmp_path):
    model = build(net, operator="acb", input_size=(64, 64))
    path = tmp_path / "model.safetensors"
    save(model, path)
    with pytest.raises(UserError, match=r"`host` .* would run code.*trust=True"):
        load(path)
    assert load(path, trust=True).training is False
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="holds no recipe"):
        load(path)
    with pytest.raises(UserError, match="say what its host is"):
        save(nn.Conv2d(3, 3, 3), path)
