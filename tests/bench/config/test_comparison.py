"""What `compare` writes is a suite that plans, with settings that follow from the data."""

import pytest
import yaml
from PIL import Image

from bench.config import comparison
from bench.config.comparison import Wish, batch_for, epochs_for, size_for, suite_of
from bench.config.plan import plan
from tasks.layouts import recognise


@pytest.fixture
def photos(tmp_path):
    """Class folders with two splits; small, and not square."""
    for split, count in (("train", 6), ("val", 2)):
        for number, name in enumerate(("cat", "dog")):
            folder = tmp_path / "my photos" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (96, 64), (60 * number, 20 * i, 0)).save(folder / f"{i}.png")
    return tmp_path / "my photos"


@pytest.mark.parametrize("gpu", [False, True])
def test_the_suite_plans_and_says_what_was_found(photos, tmp_path, gpu, monkeypatch):
    monkeypatch.setenv("CONVBOARD_DATA", str(photos.parent))
    layout = recognise(photos)
    arms = [{"label": "acb", "operator": "acb"}]
    suite = suite_of(layout, Wish({"host": "test_resnet"}, arms, {"stages": [4]}), gpu=gpu)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(suite))
    cells = plan(str(path))
    assert {cell.operator for cell in cells} == {"host", "acb"}
    assert {cell.baseline for cell in cells if cell.operator == "host"} == {True}
    assert {cell.seed for cell in cells} == {*comparison.SEEDS}
    (size,) = {cell.input_size for cell in cells}
    assert size == (64, 64)  # the short side: no image is enlarged
    config = cells[0].config
    assert config["data"]["init_args"]["batch_size"] == 3
    assert config["trainer"]["max_epochs"] == comparison.MOST_EPOCHS
    assert cells[0].absent is None
    assert str(tmp_path) not in yaml.safe_dump(suite)
    assert suite["name"] == "test-resnet-on-my-photos"


def test_a_wish_goes_over_what_is_usual(photos, tmp_path):
    host = {"host": "test_resnet", "pretrained": True}
    wish = Wish(host, [], size=(32, 32), epochs=2, seeds=(7,))
    suite = suite_of(recognise(photos), wish, gpu=False)
    (board,) = suite["boards"]
    assert suite["seeds"] == [7]
    assert board["set"]["trainer"] == {"max_epochs": 2, "check_val_every_n_epoch": 1}
    assert board["set"]["data"]["init_args"]["image_size"] == 32
    assert board["set"]["model"]["init_args"]["lr"] == comparison.LR["trained"]
    assert "where" not in board


@pytest.mark.parametrize("task", comparison.USUAL)
def test_more_images_take_fewer_epochs_and_sides_are_whole(task):
    counts = [10, 100, 1000, 10_000, 1_000_000]
    epochs = [epochs_for(task, n, trained=False) for n in counts]
    assert epochs == sorted(epochs, reverse=True)
    assert all(epochs_for(task, n, trained=True) <= e for n, e in zip(counts, epochs, strict=True))
    assert all(1 <= batch_for(task, n) <= n for n in counts)
    for typical in ((30, 40), (600, 800), (4000, 3000)):
        height, width = size_for(task, typical, gpu=False)
        assert height % comparison.STEP == width % comparison.STEP == 0
        assert max(height, width) <= comparison.USUAL[task].cpu_side
