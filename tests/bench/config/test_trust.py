"""Nothing from data acts: what was tried to make a file run code, and is refused."""

import json
import pickle

import pytest
import torch
import yaml

from bench.config import files, lightning
from bench.config.plan import Choice, plan
from bench.config.trust import VARIABLE
from bench.errors import UserError
from bench.record import Outcomes, Picture, Record
from bench.run.fit import with_weights
from bench.run.resume import newest

SUITES = {
    "python tag": "!!python/object/apply:os.system ['touch {mark}']\n",
    "python name": "seeds: !!python/name:os.system\n",
    "new object": "seeds: !!python/object/new:subprocess.Popen [['touch', '{mark}']]\n",
}
CLASSES = ["os.system", "subprocess.Popen", "builtins.exec", "pathlib.Path.touch", "runpy.run_path"]
PLACES = {
    "model": {"model": {"class_path": None, "init_args": {}}},
    "data": {"data": {"class_path": None, "init_args": {}}},
    "backbone": {"model": {"init_args": {"backbone": {"class_path": None, "init_args": {}}}}},
    "callback": {"trainer": {"callbacks": [{"class_path": None, "init_args": {}}]}},
    "logger": {"trainer": {"logger": {"class_path": None, "init_args": {}}}},
    "strategy": {"trainer": {"strategy": {"class_path": None, "init_args": {}}}},
}


class Evil:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return open, (self.mark, "w")


@pytest.fixture
def mark(tmp_path):
    yield tmp_path / "mark"
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("text", SUITES.values(), ids=SUITES)
def test_a_suite_is_plain_data(text, mark, tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(text.format(mark=mark))
    with pytest.raises(UserError, match="not YAML of plain data"):
        plan(str(path))


def test_a_value_of_the_command_line_is_plain_data(mark, tiny):
    value = f"trainer.max_epochs=!!python/object/apply:os.system ['touch {mark}']"
    with pytest.raises(UserError, match="must have a value in YAML"):
        plan(str(tiny), Choice(sets=(value,)))


def filled(place, name):
    if isinstance(place, dict):
        return {k: name if k == "class_path" else filled(v, name) for k, v in place.items()}
    return [filled(part, name) for part in place] if isinstance(place, list) else place


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("place", PLACES)
def test_a_swapped_configuration_names_only_classes_of_their_kind(place, name, mark, tiny):
    """`config.yaml` of the artifacts, in which somebody has changed what is built."""
    config = files.merge(plan(str(tiny))[0].config, filled(PLACES[place], name))
    with pytest.raises(UserError):
        lightning.build(config)
    with pytest.raises(UserError):
        lightning.resolve(config)


def test_a_python_file_as_head_runs_only_when_the_user_says_so(mark, tiny, tmp_path, monkeypatch):
    head = tmp_path / "head.py"
    head.write_text(f"open({str(mark)!r}, 'w').close()\nmodel = dict(type='FCOS')\n")
    model = {"class_path": "tasks.Detection", "init_args": {"head": str(head)}}
    config = {**plan(str(tiny))[0].config}
    config["model"] = files.merge(
        model, {"init_args": {"trust_config": True, "num_classes": 2, "backbone": None}}
    )
    with pytest.raises(UserError, match="--trust"):
        lightning.build(config)
    monkeypatch.setenv(VARIABLE, "0")
    with pytest.raises(UserError, match="--trust"):
        lightning.build_module(config["model"], 2)


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained_cfg"])
def test_timm_unpickles_nothing_of_a_configuration(argument, mark, tiny, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Evil(mark), protocol=2))
    value = str(path) if argument == "checkpoint_path" else {"file": str(path)}
    options = {"init_args": {"host_options": {argument: value}}}
    config = files.merge(plan(str(tiny))[0].config, {"model": {"init_args": {"backbone": options}}})
    with pytest.raises(UserError, match="--trust"):
        lightning.build(config)


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_checkpoint_is_weights_only(kind, mark, tiny, tmp_path):
    path = tmp_path / "last.ckpt"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Evil(mark), protocol=2))
    else:
        torch.save({"state_dict": {}, "evil": Evil(mark)}, path)
    module = lightning.build(plan(str(tiny))[0].config).module
    with pytest.raises(pickle.UnpicklingError):
        with_weights(module, path)
    assert newest(tmp_path)[0] is None


@pytest.mark.parametrize("name", ["/etc/x.npz", "../x.npz", "a/b.npz", "..npz", "x.npz/..", "x.py"])
def test_files_beside_a_record_have_plain_names(name):
    with pytest.raises(ValueError, match="file"):
        Outcomes(file=name, sha256="0" * 64, kind="k")
    with pytest.raises(ValueError, match="file"):
        Picture(file=name.replace("npz", "png"), sha256="0" * 64, caption="c")


def test_a_record_is_plain_data(tmp_path, mark):
    path = tmp_path / "record.json"
    path.write_text(json.dumps({"kind": f"__import__('os').system('touch {mark}')"}))
    with pytest.raises(UserError, match="not a record"):
        Record.load(path)
    path.write_text(yaml.safe_dump({"a": 1}))
    with pytest.raises(UserError, match="not a record"):
        Record.load(path)
