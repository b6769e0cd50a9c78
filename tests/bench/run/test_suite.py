"""Suites: cells by hash, run once, resumed; failures are rows; bad input stops before training."""

import json
import re
import signal
import socket
import time
import urllib.request
from contextlib import suppress

import psutil
import pytest
import torch
import yaml

from bench.config import files
from bench.config.plan import BACKBONE, Choice, plan
from bench.errors import UserError
from bench.record import load_all
from bench.run import code, fit, suite
from bench.run.code import operator_sha256
from bench.store import CELL, DONE, Kept, Store

PLUGIN = """
import os
from bench.operators.dwconv import DepthwiseConv

class Bomb(DepthwiseConv):
    def forward(self, x):
        if self.training:
            raise RuntimeError("boom")
        return super().forward(x)

class Killer(DepthwiseConv):
    def forward(self, x):
        if self.training:
            os._exit(9)
        return super().forward(x)
"""


@pytest.fixture
def plugin(tmp_path):
    (tmp_path / "convboard_faulty.py").write_text(PLUGIN)
    metadata = tmp_path / "convboard_faulty-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: convboard-faulty\nVersion: 1\n"
    )
    (metadata / "entry_points.txt").write_text(
        "[convboard.operators]\nbomb = convboard_faulty:Bomb\nkiller = convboard_faulty:Killer\n"
    )
    return tmp_path


NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, num_classes=3):
        super().__init__(
            nn.Conv2d(3, {width}, 3, stride=4), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear({width}, num_classes),
        )
"""


@pytest.mark.parametrize("name", files.known("suites"))
def test_every_shipped_suite_resolves(name):
    cells = plan(name)
    assert len({cell.hash for cell in cells}) == len(cells)
    assert any(cell.baseline for cell in cells)
    assert plan(name)[0].hash == cells[0].hash


def test_the_hash_is_of_the_resolved_configuration(tiny):
    plain = plan(str(tiny))
    same = plan(str(tiny), Choice(sets=("trainer.max_epochs=2",)))
    other = plan(str(tiny), Choice(sets=("trainer.max_epochs=3",)))
    assert [c.hash for c in plain] == [c.hash for c in same]
    assert not {c.hash for c in plain} & {c.hash for c in other}
    assert plain[0].config["model"]["init_args"]["momentum"] == 0.9  # a default is part of it


def test_options_of_the_host_reach_every_arm(tiny):
    """The host has some of its own, which are laid below."""
    (one, other) = plan(str(tiny), Choice(sets=(f"{BACKBONE}.host_options.drop_path_rate=0.25",)))
    own = plan(str(tiny))[0].backbone["host_options"]
    assert one.backbone["host_options"] == {**own, "drop_path_rate": 0.25}
    assert other.backbone["host_options"] == one.backbone["host_options"]


def test_two_arms_of_one_label_are_refused(tiny, tmp_path):
    suite_of = yaml.safe_load(tiny.read_text())
    arms = [{"operator": "dwconv", "options": {"kernel_size": size}} for size in (3, 7)]
    suite_of["boards"][0]["operators"] = arms
    path = tmp_path / "twice.yaml"
    path.write_text(yaml.safe_dump(suite_of))
    with pytest.raises(UserError, match=r"two arms are called 'dwconv'; give one of them"):
        plan(str(path))
    arms[1]["label"] = "dw7"
    path.write_text(yaml.safe_dump(suite_of))
    assert {cell.operator for cell in plan(str(path))} == {"dwconv", "dw7"}


def test_a_baseline_given_in_place_goes_with_operators_that_are_named(tiny, tmp_path):
    suite_of = yaml.safe_load(tiny.read_text())
    suite_of["boards"][0] |= {
        "operators": [{"label": "host", "operator": None}, "acb"],
        "baseline": "host",
        "where": None,
    }
    path = tmp_path / "compare.yaml"
    path.write_text(yaml.safe_dump(suite_of))
    cells = plan(str(path), Choice(operators=["acb", "parc", "acb"]))
    assert [cell.operator for cell in cells] == ["host", "acb", "parc"]


def test_what_an_operator_lays_over_its_board_comes_back_with_it(tiny, tmp_path):
    suite_of = yaml.safe_load(tiny.read_text())
    above = {"model": {"init_args": {"lr": 0.02}}}
    suite_of["boards"][0]["operators"] = ["dwconv", {"operator": "acb", "set": above}]
    path = tmp_path / "set.yaml"
    path.write_text(yaml.safe_dump(suite_of))
    assert plan(str(path))[1].operator_config.set == above


def test_choices_narrow_and_extend(tiny):
    cells = plan(str(tiny), Choice(seeds=[3, 4], operators=["conv"], hosts=["resnet18"]))
    assert {(c.host, c.operator, c.seed) for c in cells} == {
        ("resnet18", label, seed) for label in ("dwconv", "conv") for seed in (3, 4)
    }
    (cell,) = plan(str(tiny), Choice(only={"operator": ["acb"]}))
    assert plan(str(tiny), Choice(only={"cell": [cell.hash]})) == [cell]
    assert cell.reproduce.startswith("convboard run ")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice(only={"operator": ["abc"]}), r"`--only operator` \(='abc'\).*'acb'"),
        (Choice(only={"sed": ["0"]}), r"no such axis; did you mean 'seed'"),
        (Choice(operators=["unirplk"]), r"`operator` \(='unirplk'\).*'unireplk'"),
        (Choice(sets=("model.init_args.lrr=1",)), r"lrr"),
        (Choice(sets=("model.init_args.lr=fast",)), r"lr.*fast"),
        (Choice(sets=("trainer.max_epochs=many",)), r"max_epochs.*many"),
        (Choice(sets=("seed_everything=3",)), r"`--set` \(='seed_everything=3'\).* --seeds"),
        (Choice(sets=(f"{BACKBONE}.pretrained=true",)), r"pretrained=true'\).* --pretrained"),
        (Choice(sets=(f"{BACKBONE}.options.kernel_size=3",)), r"options\.kernel_size=3"),
    ],
)
def test_bad_choices_name_what_is_wrong(tiny, choice, message):
    with pytest.raises(UserError, match=message) as caught:
        plan(str(tiny), choice)
    assert len(str(caught.value).splitlines()) <= 4


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice(hosts=["resnet18x"]), "resnet18"),
        (Choice(sets=("model.init_args.lr=-1",)), r"`lr` \(=-1"),
        (Choice(sets=("data.init_args.source=folder",)), r"`options` .* must be empty"),
        (
            Choice(
                sets=tuple(
                    f"data.init_args.{part}"
                    for part in ("source=folder", "root=nowhere", "options=null")
                )
            ),
            "nowhere",
        ),
    ],
)
def test_preflight_finds_the_rest_before_training(tiny, choice, message):
    with pytest.raises(UserError, match=message):
        suite.preflight(plan(str(tiny), choice))


def test_a_done_run_that_lacks_the_metric_does_not_count(tiny):
    one, other = (
        cell.model_copy(update={"learnt": {"top1": 0.4}})
        for cell in plan(str(tiny), Choice(seeds=[0, 1]))
        if cell.baseline
    )
    kept = {
        cell.hash: Kept("run", "s", cell.hash, "FINISHED", 0, metrics, {CELL: cell.hash, DONE: "r"})
        for cell, metrics in ((one, {"final/top1": 0.5}), (other, {}))
    }
    (board,) = suite.learnt([one, other], kept)
    assert board.mean == 0.5
    assert suite.learnt([other], kept) == []


def test_operator_hash_is_of_its_own_file():
    assert operator_sha256("conv") != operator_sha256("acb")
    assert operator_sha256("acb") == operator_sha256("acb")


@pytest.mark.parametrize("gpu", [False, True])
def test_kernels_of_a_gpu_count_where_there_is_one(gpu, monkeypatch):
    monkeypatch.setattr(code, "has_gpu", lambda: gpu)
    modules = code.closure(["bench.operators.acb"])
    assert ("bench.operators.gpu.triton_kernels" in modules) == gpu
    assert "bench.operators.depthwise" in modules


@pytest.mark.slow
def test_a_suite_from_end_to_end(tiny, tmp_path, plugin, convboard):
    runs, records, site = tmp_path / "runs", tmp_path / "records", tmp_path / "site"
    arguments = ("run", tiny, "--runs", runs, "--operators", "acb,bomb,killer")
    done = convboard(*arguments, status=1, path=[plugin], alone=True)
    assert "boom" in done.stdout
    store = Store(runs)
    kept = store.kept()
    states = {run.tags["operator"]: run.status for run in kept.values()}
    assert states == {
        "dwconv": "FINISHED",
        "acb": "FINISHED",
        "bomb": "FAILED",
        "killer": "FAILED",
    }
    before = {run.run_id for run in kept.values() if run.done}
    good = next(run for run in kept.values() if run.tags["operator"] == "acb")
    convboard("run", tiny, "--runs", runs)
    assert {run.run_id for run in store.kept().values() if run.done} == before
    more = ("--seeds", "0,1", "--machines", "2", "--workers", "1")
    planned = convboard("plan", tiny, "--runs", runs, *more).stdout
    assert "By earlier runs, 2 of them train for" in planned
    assert re.search(r"on 2 machines with 1 at a time; each holds up to \d+\.\d GiB", planned)

    for name in ("config.yaml", "checkpoint", "curves.json", "records"):
        assert any(a.path == name for a in store.client.list_artifacts(good.run_id)), name
    params = store.client.get_run(good.run_id).data.params
    assert params["model.init_args.backbone.init_args.operator"] == "acb"
    history = store.client.get_metric_history(good.run_id, "val/top1")
    assert len(history) >= 2
    with store.artifact(good.run_id, "checkpoint/last.ckpt", tmp_path) as path:
        assert torch.load(path, weights_only=True)["state_dict"]

    convboard("export", "--runs", runs, "--records", records)
    by_label = {record.entry.label: record for record in load_all(records)}
    assert by_label["acb"].status == "ok"
    assert by_label["acb"].accuracy.curve["val/top1"] == [m.value for m in history[:2]]
    assert (records / by_label["acb"].accuracy.outcomes.file).is_file()
    assert by_label["bomb"].status == "error"
    assert "boom" in by_label["bomb"].error
    assert "process" in by_label["killer"].error

    convboard("speed", tiny, "--runs", runs)
    again = convboard("speed", tiny, "--runs", runs)
    assert "done before" in again.stdout
    convboard("export", "--runs", runs, "--records", records)
    speeds = [r for r in load_all(records) if r.kind == "speed"]
    assert {(r.entry.label, r.speed.scope, r.entry.task) for r in speeds} == {
        (label, *scope)
        for label in ("dwconv", "acb")
        for scope in (("backbone", "backbone"), ("end_to_end", "classification"))
    }
    assert all(
        r.status == "ok" and r.speed.ratio_to_baseline for r in speeds if not r.entry.baseline
    )

    convboard("site", "--records", records, "--out", site)
    page = next((site / "boards").glob("*.html")).read_text()
    assert "end to end" in page
    assert "acb" in page
    assert "bomb" in page
    shown = convboard("show", good.cell[:6], "--runs", runs)
    assert yaml.safe_load(shown.stdout)["state"] == "finished"
    plan = convboard("plan", tiny, "--runs", runs)
    assert "0 to run" in plan.stdout


def test_every_epoch_is_kept_also_where_it_is_not_validated(tiny, tmp_path):
    choice = Choice(sets=("trainer.max_epochs=2", "trainer.check_val_every_n_epoch=5"))
    fitted = fit.fit(plan(str(tiny), choice)[0].config, tmp_path)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == 1
    assert "val/top1" not in fitted.curve
    assert 0 <= fitted.metrics["top1"] <= 1


@pytest.mark.slow
def test_ctrl_c_leaves_a_state_that_resumes(tiny, tmp_path, convboard):
    runs = tmp_path / "runs"
    command = ["run", tiny, "--runs", runs, "--only", "operator=acb", "--workers", "1"]
    command += ["--set", "trainer.max_epochs=40"]
    process = convboard(*command, wait=False)
    checkpoint = None
    deadline = time.monotonic() + 240
    while checkpoint is None and time.monotonic() < deadline:
        time.sleep(0.2)
        checkpoint = next(runs.glob("cells/*/last.ckpt"), None)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert checkpoint is not None
    reached = torch.load(checkpoint, weights_only=True)["epoch"]
    assert reached < 39
    (run,) = Store(runs).kept().values()
    assert not run.done

    convboard(*command)
    (finished,) = Store(runs).kept().values()
    assert finished.done
    assert finished.run_id == run.run_id
    store = Store(runs)
    with store.artifact(finished.run_id, "curves.json", tmp_path) as path:
        assert len(json.loads(path.read_text())["val/top1"]) == 40


@pytest.mark.slow
def test_one_lightning_run(tiny, tmp_path, convboard):
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(plan(str(tiny))[0].config))
    runs = tmp_path / "runs"
    convboard(
        *("fit", "--runs", runs, "--config", config, "--trainer.max_epochs", "1"),
        *("--model.init_args.lr", "0.01"),
    )
    (run,) = Store(runs).kept().values()
    assert run.done
    net = tmp_path / "net.py"
    net.write_text(NET.format(width=8))
    own = plan(str(tiny))[0].config
    own["model"]["init_args"]["backbone"]["init_args"] = {"host": f"{net}:Net"}
    config.write_text(yaml.safe_dump(own))
    for width, count in ((8, 2), (8, 2), (12, 3)):  # another network under the same name
        net.write_text(NET.format(width=width))
        convboard("fit", "--runs", runs, "--config", config, "--trust")
        assert len(Store(runs).kept()) == count
    wrong = convboard("fit", "--config", config, "--model.init_args.lrr", "1", status=2)
    assert "lrr" in wrong.stderr
    assert len(wrong.stderr.strip().splitlines()) <= 4


@pytest.mark.slow
def test_the_ui_answers_on_loopback_and_ends_whole(tmp_path, convboard):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = convboard("ui", "--runs", tmp_path / "runs", "--port", port, wait=False)
    url = f"http://127.0.0.1:{port}/"
    deadline = time.monotonic() + 240
    page = None
    while page is None and time.monotonic() < deadline:
        time.sleep(0.5)
        with suppress(OSError):
            page = urllib.request.urlopen(url, timeout=5).read().decode()
    family = psutil.Process(process.pid).children(recursive=True)
    listening = {c.laddr for p in family for c in p.net_connections() if c.status == "LISTEN"}
    process.terminate()
    process.wait(30)
    assert page is not None
    assert "MLflow" in page
    assert {address.ip for address in listening if address.port == port} == {"127.0.0.1"}
    assert psutil.wait_procs(family, 30)[1] == []
