"""Public checkpoints scored without training: what lacks is told, what is there stands apart."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from bench import locks
from bench.backbones import build
from bench.backbones.weights import load_weights
from bench.checkpoints import CheckpointError
from bench.cli.main import main
from bench.config.plan import Choice, plan
from bench.errors import UserError
from bench.run import score
from bench.store import Store
from leaderboard.grouping import grouped
from tasks import Detection
from tasks.official import load_whole

HERE = Path(__file__).parents[1]
public = runpy.run_path(str(HERE / "checkpoints" / "test_checkpoints.py"))
OPTIONS = {
    "depths": [1, 2, 2, 1],
    "dims": [8, 12, 16, 20],
    "kernel_sizes": [[3], [9, 3], [3, 9], [9]],
}


def suite_in(folder, **board):
    host = {
        "label": "tiny",
        "host": "unireplknet_a",
        "host_options": OPTIONS,
        "official": {
            "file": "weights/tiny.pth",
            "source": "https://example.org/tiny",
            "published": {"top1": 0.25},
        },
    }
    small = {
        "data": {
            "init_args": {"image_size": 64, "root": "mine", "source": "folder", "batch_size": 5}
        },
        "trainer": {"max_epochs": 9},
    }
    suite = {
        "seeds": [0, 1],
        "boards": [
            {
                "task": "classification",
                "hosts": [host, "test_convnext"],
                "operators": ["as-is"],
                "baseline": "as-is",
                "recipe": "classification",
                "set": small,
                **board,
            }
        ],
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(suite))
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVBOARD_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def photos(folder, classes=5):
    for split in ("train", "val"):
        for label in range(classes):
            path = folder / "mine" / split / f"c{label}" / "0.png"
            path.parent.mkdir(parents=True)
            pixels = np.random.default_rng(label).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)


def weights(folder):
    (folder / "weights").mkdir()
    torch.save({"model": dict(public["network_state"]())}, folder / "weights" / "tiny.pth")


def test_what_lacks_is_told_with_its_place(place, capsys):
    suite = suite_in(place)
    (one,) = score.checkpoints(plan(str(suite)))
    assert one.lacks == f"classification: its images must lie in {place / 'mine'}"
    photos(place)
    assert one.lacks == (
        "tiny: its weights, of https://example.org/tiny, must lie in "
        f"{place / 'weights' / 'tiny.pth'}"
    )
    with pytest.raises(SystemExit) as end:
        main(["score", str(suite), "--runs", str(place / "runs")])
    assert end.value.code == 1
    assert one.lacks in capsys.readouterr().out.replace("\n", "")
    assert not (place / "runs").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--devices", "2"], "`--devices` (=2)"),
        (["--pretrained"], "`--pretrained`"),
        (["--where", "stages=1"], "`--where` (=['stages=1'])"),
        (["--mix", "pointwise"], "`--mix` (='pointwise')"),
        (["--seeds", "0,1"], "`--seeds` (='0,1')"),
        (["--set", "trainer.precision=16-mixed"], "`--set` (='trainer.precision=16-mixed')"),
        (["--set", "trainer.max_epochs=3"], "`--set` (='trainer.max_epochs=3')"),
    ],
)
def test_what_only_a_training_would_follow_is_refused(place, capsys, more, words):
    with pytest.raises(SystemExit) as end:
        main(["score", str(suite_in(place)), *more])
    assert end.value.code == 2
    assert f"{words} must be" in capsys.readouterr().err


def test_a_checkpoint_that_another_process_scores_is_told_in_a_line(place, capsys):
    photos(place)
    weights(place)
    suite = suite_in(place)
    (one,) = score.checkpoints(plan(str(suite)))
    with locks.lock(locks.of_cell(place / "runs", one.cell.hash)), pytest.raises(SystemExit) as end:
        main(["score", str(suite), "--runs", str(place / "runs")])
    assert end.value.code == 1
    assert "another process holds" in capsys.readouterr().err


def test_a_suite_without_checkpoints_is_refused():
    with pytest.raises(UserError, match="`official`, or --weights"):
        score.checkpoints(plan("quick"))


def test_a_checkpoint_is_scored_as_it_is_and_stands_apart(place, capsys, monkeypatch):
    suite = suite_in(place)
    photos(place)
    weights(place)
    trained = plan(str(suite))
    line = ["score", str(suite), "--runs", str(place / "runs")]
    main(line)
    told = capsys.readouterr().out
    assert "0.2500" in told
    store = Store(place / "runs")
    (kept,) = store.kept().values()
    assert kept.done
    assert kept.cell not in {cell.hash for cell in trained}
    record = store.record(kept)
    assert record.recipe.name == "official"
    assert (record.recipe.epochs, record.recipe.samples_seen) == (0, 0)
    assert record.recipe.config["trainer"]["max_epochs"] == 0
    assert not record.entry.ranked
    assert grouped([record]) == {}  # on no board
    assert str(place) not in record.model_dump_json()
    # the very network of the authors' names: the slow reference's classes, image by image
    state = public["network_state"]()
    (one,) = score.checkpoints(trained)
    data = score.build(one.cell.config).data
    data.setup("validate")
    images, labels = next(iter(data.val_dataloader()))
    norms = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in norms)
    with torch.no_grad():
        maps = public["network_maps"](state, (images - mean) / std)
        right = public["logits"](state, maps[-1]).argmax(1) == labels
    assert record.accuracy.metrics["top1"].value == pytest.approx(right.float().mean().item())

    def forbidden(*_, **__):
        raise AssertionError("scored twice")

    monkeypatch.setattr(score, "_evaluated", forbidden)
    main(line)  # done before
    assert "0.2500" in capsys.readouterr().out


def test_a_host_starts_from_public_weights_by_one_line(tmp_path):
    """Fine-tuning: of a backbone all stages, of a classifier of other classes all but its end."""
    state = public["network_state"]()
    file = tmp_path / "tiny.pth"
    torch.save(dict(state), file)
    for features in (True, False):
        model = build(
            "unireplknet_a",
            weights=str(file),
            features_only=features,
            host_options=OPTIONS | ({} if features else {"num_classes": 3}),
            input_size=(64, 64),
        )
        inner = model.model if features else model
        stem = "downsample_layers.0.0.weight"
        assert torch.equal(inner.stem[0].weight, state[stem])
        reduce = inner.stages[2].blocks[1].reduce.weight
        assert torch.equal(reduce.flatten(), state["stages.2.1.pwconv2.0.weight"].flatten())
    del state["stages.2.1.pwconv2.0.weight"]
    torch.save(dict(state), file)
    with pytest.raises(UserError, match="must be those of the host"):
        load_weights(build("unireplknet_a", host_options=OPTIONS), str(file))


def test_a_detectors_checkpoint_is_loaded_whole_or_not_at_all(tmp_path):
    def fresh(seed):
        torch.manual_seed(seed)
        host = build("test_resnet", features_only=True, input_size=(64, 64))
        return Detection(host, 3, head="fcos", neck_channels=16, seed=seed)

    one, other = fresh(0), fresh(1)
    state = {f"backbone.{name}": value for name, value in one.backbone.state_dict().items()}
    state |= one.behind.state_dict()
    file = tmp_path / "detector.pth"
    torch.save({"state_dict": state}, file)
    load_whole(other.backbone, other.behind, file)
    images = torch.rand(1, 3, 64, 64)
    for ours, theirs in zip(
        other.detector.compared(images), one.detector.compared(images), strict=True
    ):
        assert torch.equal(ours, theirs)
    state["neck.more"] = state.pop("neck.fpn_convs.0.conv.bias")
    torch.save({"state_dict": state}, file)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"missing: neck\.fpn_convs\.0\.conv\.bias") as error:
        load_whole(other.backbone, other.behind, file)
    assert error.value.unexpected == ["neck.more"]
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_weights_of_the_command_line_are_scored(place):
    suite = suite_in(place)
    photos(place)
    weights(place)
    chosen = Choice(weights="weights/tiny.pth", only={"host": ["tiny"]})
    (one,) = score.checkpoints(plan(str(suite), chosen))
    assert (one.file, one.published) == ("weights/tiny.pth", {})
