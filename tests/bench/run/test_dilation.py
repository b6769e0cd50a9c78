"""EDO: both readings find known dilations; patterns reach the slots; a search ends in a suite."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
import torch.nn.functional as F
import yaml

from bench import operators
from bench.backbones import build, find_slots, swap, swap_report
from bench.config import files, lightning
from bench.config.cell import HOST_OPTIONS
from bench.config.plan import Choice, board_of, each_arm, one, plan
from bench.config.schema import load_suite
from bench.errors import UserError
from bench.operators.edo import (
    choose,
    crop,
    dilations,
    expectations,
    output_errors,
    pattern_of,
    weight_errors,
)
from bench.operators.icconv_patterns import default_pattern, read_patterns, strands, write_patterns
from bench.operators.kernels import embed
from bench.run import dilation, dilation_search, suite
from bench.run.tune import spaces
from bench.store import Store

DMAX = 4
ALL = dilations(DMAX)


def supernet(cin=6, cout=16, dmax=DMAX, **options):
    torch.manual_seed(0)
    return operators.create("edo", in_channels=cin, out_channels=cout, dmax=dmax, **options)


def dilate(layer, each):
    """Give every output channel an exactly dilated kernel, zeros elsewhere."""
    weight = layer.weight
    with torch.no_grad():
        for channel, d in enumerate(each):
            small = torch.randn(1, weight.shape[1], *layer.spec.kernel_size)
            weight[channel] = embed(small, tuple(weight.shape[2:]), d)[0]


def images(layer, count=12, size=(14, 11), kind="normal"):
    x = torch.randn(count, layer.spec.in_channels, *size)
    return {"normal": x, "relu": x.relu(), "shifted": x + 2}[kind]


def measured(layer, batches):
    return expectations(layer.eval(), {"layer": layer}, batches)["layer"]


@pytest.mark.parametrize("kind", ["normal", "relu", "shifted"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize(
    "shape", [{}, {"groups": 2}, {"cin": 16, "groups": 16}, {"cin": 8, "groups": 8}]
)
def test_both_readings_recover_every_known_dilation(shape, kernel_size, stride, kind):
    layer = supernet(**shape, kernel_size=kernel_size, stride=stride)
    for _ in range(2):
        order = [ALL[i] for i in torch.randperm(len(ALL))]  # one channel for each dilation
        dilate(layer, order)
        mean = measured(layer, images(layer, kind=kind, size=(21, 19)).split(5))
        by_output = output_errors(layer.weight, layer.spec, DMAX, mean)
        by_weight = weight_errors(layer.weight, layer.spec, DMAX)
        assert choose(by_output, DMAX).tolist() == [list(d) for d in order]
        assert choose(by_weight, DMAX).tolist() == [list(d) for d in order]
        # It is the one dilation that leaves nothing out, by far.
        for errors in (by_output, by_weight):
            best, second = errors.sort(1).values[:, :2].double().unbind(1)
            assert (best < 1e-4 * second).all()


@pytest.mark.parametrize("options", [{}, {"groups": 2, "stride": 2}, {"cin": 16, "groups": 16}])
@pytest.mark.parametrize("kernel_size", [3, (1, 5)])
def test_output_errors_are_of_the_mean_outputs(options, kernel_size):
    layer = supernet(**options, kernel_size=kernel_size, dmax=3).double()
    x, s = images(layer).double(), layer.spec
    errors = output_errors(layer.weight, s, 3, measured(layer, x.split(5)))
    whole = layer(x).mean(0)
    for place, d in enumerate(dilations(3)):
        padding = [a * (k // 2) for a, k in zip(d, s.kernel_size, strict=True)]
        kernel = crop(layer.weight, s.kernel_size, d)
        part = F.conv2d(x, kernel, layer.wide.conv.bias, s.stride, padding, d, s.groups).mean(0)
        torch.testing.assert_close(errors[:, place], (whole - part).abs().mean((1, 2)))


def test_weight_errors_count_what_is_left_out():
    layer = supernet(cin=2, cout=3, dmax=2)
    errors = weight_errors(layer.weight, layer.spec, 2)
    for place, (dh, dw) in enumerate(dilations(2)):
        kept = {(2 + i * dh, 2 + j * dw) for i in (-1, 0, 1) for j in (-1, 0, 1)}
        for channel in range(3):
            left = sum(
                layer.weight[channel, c, u, v].abs().item()
                for c in range(2)
                for u in range(5)
                for v in range(5)
                if (u, v) not in kept
            )
            assert errors[channel, place].item() == pytest.approx(left, rel=1e-5)


@pytest.mark.parametrize("dilation", ALL)
def test_crop_undoes_embed(dilation):
    small = torch.randn(2, 3, 3, 5)
    large = embed(small, (9, 17), dilation)
    assert torch.equal(crop(large, (3, 5), dilation), small)


def test_the_weight_reading_bounds_the_output_reading():
    layer = supernet()
    mean = measured(layer, [images(layer)])
    bound = weight_errors(layer.weight, layer.spec, DMAX) * mean.abs().max()
    assert (output_errors(layer.weight, layer.spec, DMAX, mean) <= bound).all()


def test_the_weight_reading_keeps_centre_heavy_kernels_plain():
    layer = supernet(cin=16, cout=64)
    far = torch.arange(-4.0, 5.0).square()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(64, 16, 9, 9) * (-(far[:, None] + far) / 6).exp())
    mean = measured(layer, [images(layer, kind="relu")])
    plain = torch.tensor([1, 1])
    by_weight = choose(weight_errors(layer.weight, layer.spec, DMAX), DMAX)
    by_output = choose(output_errors(layer.weight, layer.spec, DMAX, mean), DMAX)
    assert (by_weight == plain).all()
    assert (by_output == plain).all(1).double().mean() < 0.5


def test_where_dilations_are_equal_the_smallest_wins():
    layer = supernet()
    nothing = torch.zeros(6, 14, 11)
    assert (choose(output_errors(layer.weight, layer.spec, DMAX, nothing), DMAX) == 1).all()
    pixel = torch.rand(6, 1, 1)  # only the centre tap ever meets the map
    assert (choose(output_errors(layer.weight, layer.spec, DMAX, pixel), DMAX) == 1).all()


def test_expectations_are_means_over_images_whatever_the_batches():
    layer = supernet()
    x = images(layer, 7)
    torch.testing.assert_close(measured(layer, x.split(3)), x.double().mean(0))
    flat = [torch.full((n, 6, *size), v) for n, size, v in ((1, (8, 8), 1.0), (3, (4, 6), 5.0))]
    torch.testing.assert_close(
        measured(layer, flat), torch.full((6, 8, 8), 4.0, dtype=torch.float64)
    )
    with pytest.raises(ValueError, match=r"`batches`.*layer got none"):
        measured(layer, [])
    assert not layer._forward_pre_hooks


@pytest.mark.parametrize("unit", [1, 4, 32])
def test_patterns_count_every_channel_in_multiples(unit):
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.tensor(ALL)[torch.randint(0, 6, (128,), generator=generator)]
        pattern = pattern_of(chosen, DMAX, unit)
        assert list(pattern) == list(default_pattern(128))
        strands(pattern, 128, unit)  # refuses what does not count them
        exact = pattern_of(chosen, DMAX)
        assert all(abs(pattern[k] - exact[k]) < unit for k in pattern)


def test_the_supernet_starts_without_an_answer():
    model = timm.create_model("test_resnet")
    swap(model, "edo", where={"kernel_size": 3}, input_size=(64, 64))
    report = swap_report(model)
    assert report.swapped
    assert not report.carried


# Patterns on their way into slots.

WHERE = {"kernel_size": 7, "stages": [1, 2]}


@pytest.fixture(scope="module")
def patterns():
    slots = find_slots(timm.create_model("test_convnext"), (64, 64))
    channels = [s.spec.out_channels for s in slots if s.spec.kernel_size == (7, 7) and s.stage < 3]
    return [{"(0, 0)": n - 2 - i, "(1, 2)": 2 + i, "(3, 3)": 0} for i, n in enumerate(channels)]


def counted(model):
    """Each operator's pattern without its zeros, in the order of the slots."""
    found = [model.get_submodule(name) for name in swap_report(model).swapped]
    return [[(s.dilation, s.stop - s.start) for s in op.layout] for op in found]


def test_each_slot_gets_its_pattern(patterns, tmp_path):
    file = tmp_path / "patterns.json"
    write_patterns(file, patterns)
    expected = [[((1, 1), p["(0, 0)"]), ((2, 3), p["(1, 2)"])] for p in patterns]
    for given in (patterns, file, str(file)):
        model = build(
            "test_convnext",
            operator="icconv",
            options={"kernel_size": 3, "pattern": given},
            where=WHERE,
            input_size=(64, 64),
        )
        assert counted(model) == expected
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


def test_patterns_that_do_not_fit_change_nothing(patterns):
    model = timm.create_model("test_convnext")
    with pytest.raises(ValueError, match=r"`pattern` .* 3 selected slots, not 2"):
        swap(model, "icconv", where=WHERE, input_size=(64, 64), pattern=patterns[:2])
    wrong = [*patterns[:2], {"(0, 0)": 1}]
    with pytest.raises(ValueError, match=r"icconv cannot stand in stages.*`pattern`"):
        swap(model, "icconv", where=WHERE, input_size=(64, 64), pattern=wrong)
    assert not swap_report(model).swapped
    assert not any(isinstance(m, operators.Operator) for m in model.modules())


@pytest.fixture(scope="module")
def board(tiny):
    """The tiny suite with IC-Conv on its board."""
    told = yaml.safe_load(tiny.read_text())
    told["boards"][0]["operators"] = ["dwconv", "icconv"]
    path = tiny.with_name("board.yaml")
    path.write_text(yaml.safe_dump(told))
    return path


def test_boards_of_one_task_and_host_are_arms_of_their_own(board, tmp_path):
    told = yaml.safe_load(board.read_text())
    (first,) = told["boards"]
    longer = {**first, "set": {**first.get("set", {}), "trainer": {"max_epochs": 7}}}
    other = {**first, "recipe": "standard-classification"}
    path = tmp_path / "suite.yaml"
    name = " · ".join((first["task"], first["hosts"][0], "icconv"))
    for boards, apart in (([first, other], 2), ([first, longer, other], 3)):
        path.write_text(yaml.safe_dump({**told, "boards": boards, "seeds": [0, 1]}))
        arms = each_arm(dilation.searchable(str(path), Choice()))
        assert [[cell.seed for cell in of] for of in arms.values()] == [[0, 1]] * apart
        assert len({of[0].board for of in arms.values()}) == len(arms) == apart
        assert all(title.startswith(f"{name} · ") for title in arms)
    assert f"{name} · standard-classification" not in arms  # two of the three have one recipe
    with pytest.raises(UserError, match="one cell, and 3 are chosen"):
        one([cell for of in arms.values() for cell in of])
    (alone,) = each_arm(next(iter(arms.values())))
    assert alone == name


def test_a_cell_is_hashed_by_its_patterns_not_by_their_file(board, patterns, tmp_path):
    file = tmp_path / "patterns.json"
    arm = {
        "operator": "icconv",
        "options": {"kernel_size": 3, "pattern": str(file)},
        "where": WHERE,
    }
    told = yaml.safe_load(board.read_text())
    told["boards"][0]["operators"] = ["dwconv", arm]
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(told))
    hashes = []
    for content in (patterns, list(reversed(patterns)), patterns):
        write_patterns(file, content)
        cell = plan(str(path))[1]
        assert cell.backbone["options"]["pattern"] == content
        hashes.append(cell.hash)
    assert hashes[0] == hashes[2] != hashes[1]


# The search.


def test_what_was_searched_is_what_the_written_suite_builds(board, tmp_path):
    weights = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_convnext").state_dict(), weights)
    choice = Choice(seeds=[3], sets=("trainer.max_epochs=1",), weights=str(weights))
    baseline, cell = plan(str(board), choice)
    dense = dilation.supernet(cell, dmax=2)
    assert dense.hash != cell.hash
    assert dense.hash == suite.Cell(**dict(dense)).hash
    assert dense.backbone["operator"] == "edo"
    assert cell.backbone["operator"] == "icconv"
    built = lightning.build(dense.config)
    module, data = built.module, built.data
    found = dilation_search.search(module, data, dmax=2, images=20)
    assert found.images == 32  # whole batches of 16
    whole = load_suite(str(board))
    on = board_of(str(board), choice, cell)
    told = dilation.searched_suite(whole, on, cell, found, "weight", 2, [3])
    path = tmp_path / "searched.yaml"
    path.write_text(yaml.safe_dump(told))
    cells = plan(str(path))
    assert [c.hash for c in cells[:2]] == [baseline.hash, cell.hash]
    assert [c.baseline for c in cells] == [True, False, False]
    assert cells[2].operator == "icconv-weight"
    assert cells[2].config["trainer"]["max_epochs"] == 1
    assert spaces.own_options(cells[1])  # the searched arm has none left: its pattern is found
    assert not spaces.own_options(cells[2])
    built = lightning.build(cells[2].config).module
    assert swap_report(built.backbone).swapped == [layer.name for layer in found.layers]
    features = build(**{**cells[2].backbone, "features_only": True})
    assert counted(features) == counted(built.backbone)
    for layer in found.layers:
        table = built.backbone.get_submodule(layer.name).dilations
        assert sorted(table.tolist()) == sorted(layer.chosen["weight"].tolist())


def test_beside_a_tuned_arm_the_baseline_stays(board, tmp_path):
    told = yaml.safe_load(board.read_text())
    path = f"{HOST_OPTIONS}.drop_path_rate"
    arm = {"label": "tuned", "operator": "icconv", "set": {}}
    files.put(arm["set"], path, 0.2)
    told["boards"][0]["operators"] = [*told["boards"][0]["operators"], arm]
    suite = tmp_path / "tuned.yaml"
    suite.write_text(yaml.safe_dump(told))
    cells = {cell.operator: cell for cell in plan(str(suite))}
    tuned, whole = cells["tuned"], load_suite(str(suite))
    on = board_of(str(suite), Choice(), tuned)
    found = SimpleNamespace(layers=[])
    searched = dilation.searched_suite(whole, on, tuned, found, "weight", 2, [tuned.seed])
    searched["boards"][0]["operators"].pop()
    suite.write_text(yaml.safe_dump(searched))
    again = {cell.operator: cell.hash for cell in plan(str(suite))}
    baseline = next(cell for cell in cells.values() if cell.baseline)
    assert again == {baseline.operator: baseline.hash, "tuned": tuned.hash}


def test_a_searched_network_has_the_dilations_of_its_supernet(board):
    cell = plan(str(board))[1]
    dense = dilation.supernet(cell, dmax=3)
    built = lightning.build(dense.config)
    module, data = built.module, built.data
    layers = [m for m in module.modules() if getattr(m, "name", None) == "edo"]
    table = dilations(3)
    known = []
    for number, layer in enumerate(layers):
        known.append([table[(c + number) % 9] for c in range(layer.spec.out_channels)])
        dilate(layer, known[-1])
        with torch.no_grad():
            layer.wide.conv.bias.normal_()
    found = dilation_search.search(module, data, dmax=3, images=16)
    wide = 0
    for layer, each in zip(found.layers, known, strict=True):
        expected = [list(d) for d in each]
        assert layer.chosen["weight"].tolist() == expected
        if min(layer.spec.resolution) > 3:  # else the outermost taps never meet the map
            wide += 1
            assert layer.chosen["output"].tolist() == expected
        assert sum(layer.pattern("output", 3).values()) == layer.spec.out_channels
    assert wide == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"choice": Choice(only={"operator": ["dwconv"]})}, r"no chosen cell has it"),
        ({"choice": Choice(hosts=["test_convnext", "test_resnet"])}, r"one cell, and 2"),
        ({"dmax": 0}, r"`--dmax` \(=0\)"),
        ({"out": "found.json"}, r"`--out` \(='found.json'\)"),
    ],
)
def test_mistakes_are_found_before_training(board, tmp_path, options, message):
    arguments = {"choice": Choice(), "out": "found.yaml", "command": ""} | options
    arguments["out"] = Path(arguments["out"])
    with pytest.raises(UserError, match=message):
        dilation.search_dilation(str(board), arguments.pop("choice"), tmp_path, **arguments)


def test_searches_that_differ_are_written_apart(board, tmp_path, monkeypatch, convboard):
    monkeypatch.setenv("CONVBOARD_DATA", str(tmp_path))  # as --data sets it, and undone
    written = []
    monkeypatch.setattr(
        dilation, "search_dilation", lambda *_, out, **options: written.append(out.stem)
    )
    again = tmp_path / "again.yaml"
    again.write_text(board.read_text())
    for suite_, more in ((board, []), (again, []), (board, ["--dmax", "2"])):
        words = ["search-dilation", suite_, "--runs", tmp_path, "--data", tmp_path, *more]
        assert f"--data {tmp_path}\n" in convboard(*words, at_once=True).stdout
    assert len(set(written)) == 3
    assert [name.startswith(board.stem) for name in written] == [True, False, True]


@pytest.mark.slow
def test_a_search_from_end_to_end(board, tmp_path, convboard):
    runs, out = tmp_path / "runs", tmp_path / "searched.yaml"
    command = ["search-dilation", board, "--runs", runs, "--dmax", "2", "--out", out]
    said = convboard(*command).stdout
    assert "% of" in said
    assert f"next: convboard run {out}" in said
    patterns = read_patterns(out.with_suffix(".json"))
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    store = Store(runs)
    (dense,) = [r for r in store.kept().values() if r.tags["operator"] == "icconv-supernet"]
    assert dense.done
    again = convboard(*command[:-2], "--reading", "weight", "--out", tmp_path / "weight.yaml")
    assert "done before" in again.stdout

    found = [run for run, _ in store.runs("board-search") if "search" in run.data.tags]
    assert {run.data.tags["search"] for run in found} == {"output", "weight"}
    for run in found:
        assert run.data.tags["mlflow.parentRunId"] == dense.run_id
        assert run.data.metrics["search_percent"] > 0
        kept = {a.path for a in store.client.list_artifacts(run.info.run_id, "patterns")}
        names = ("output.json", "output.png", "weight.json", "weight.png", "channels.json")
        assert kept == {f"patterns/{name}" for name in names}
        with store.artifact(run.info.run_id, "patterns/channels.json", tmp_path) as path:
            channels = json.loads(path.read_text())
        assert [len(c["output"]) for c in channels] == [sum(p.values()) for p in patterns]
        with store.artifact(run.info.run_id, "patterns/output.json", tmp_path) as path:
            assert read_patterns(path) == patterns

    plain = next(cell for cell in plan(str(out)) if cell.operator == "icconv")
    assert plain.hash not in store.kept()
    convboard("run", out, "--runs", runs, "--only", "operator=icconv-output")
    (ran,) = [r for r in store.kept().values() if r.tags["operator"] == "icconv-output"]
    assert ran.done
    config = store.config(ran)
    options = config["model"]["init_args"]["backbone"]["init_args"]["options"]
    assert options["pattern"] == patterns
