"""The data of classification: sources, order, augmentation, bad input."""

import gzip
import shutil

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from bench.errors import DataError
from tasks import ClassificationData
from tasks.classification.idx import read_idx
from tasks.classification.samples import collate
from tasks.data.checked import check_images
from tasks.data.holdout import held_out
from tasks.data.images import read_image
from tasks.data.order import EpochSampler
from tasks.layouts.torchvision_sets import SETS


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVBOARD_CACHE", str(tmp_path / "cache"))


def write_image(path, colour, size=(40, 30), **options):
    """Write a picture; no file has the bytes of another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **{"comment": "/".join(path.parts[-3:]), **options})


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        for label, name in enumerate(("ant", "bee", "cat")):
            for index in range(count):
                write_image(root / split / name / f"{index}.jpg", (label * 100, index * 20, 0))
    return root


def folder_data(root, **changes):
    arguments = {"root": str(root), "image_size": 24, "batch_size": 4} | changes
    return ClassificationData("folder", **arguments)


def ready(data):
    data.prepare_data()
    data.setup("fit")
    return data


def epoch_of(data, epoch):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    batches = list(loader)
    return torch.cat([images for images, _ in batches]), torch.cat([label for _, label in batches])


# Class folders


def test_class_folders_are_read(folder):
    data = ready(folder_data(folder))
    assert data.class_names == ("ant", "bee", "cat")
    assert data.num_classes == 3
    images, labels = next(iter(data.val_dataloader()))
    assert images.shape == (4, 3, 24, 24)
    assert images.dtype == torch.float32
    assert 0 <= images.min() <= images.max() <= 1
    assert labels.tolist() == [0, 0, 1, 1]
    assert images[2, 0].mean() == pytest.approx(100 / 255, abs=0.02)
    described = data.describe()
    assert described["train_samples"] == 18
    assert described["scored_samples"] == 6
    assert described["split"] == "val"
    assert described["skipped"] == {}


def test_the_description_fits_the_record(folder):
    from bench.record import Data

    record = Data(**ready(folder_data(folder)).describe())
    assert record.name == folder.name
    assert len(record.files_sha256) == 64


def test_the_test_split_is_scored_when_asked_for(folder):
    described = ready(folder_data(folder, scored="test")).describe()
    assert (described["split"], described["scored_samples"]) == ("test", 9)


def test_validation_folders_of_other_names_are_found(folder):
    (folder / "val").rename(folder / "validation")
    assert ready(folder_data(folder)).describe()["scored_samples"] == 6


def test_the_files_hash_follows_the_files(folder):
    before = folder_data(folder).source.files_sha256
    assert folder_data(folder).source.files_sha256 == before
    write_image(folder / "train" / "ant" / "0.jpg", (9, 9, 9))
    assert folder_data(folder).source.files_sha256 != before


def test_a_folder_without_images_is_no_class_and_a_class_of_broken_ones_an_error(folder):
    (folder / "train" / "dog").mkdir()
    (folder / "train" / "dog" / "notes.txt").write_text("none yet")
    data = folder_data(folder)
    data.prepare_data()
    assert data.class_names == ("ant", "bee", "cat")
    assert data.describe()["skipped"] == {
        "folder without an image, no class (dog)": 1,
        "other suffix": 1,
    }
    (folder / "train" / "dog" / "1.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 class\(es\) of .*train have no readable .*'dog'"):
        folder_data(folder).prepare_data()


def test_a_class_missing_from_validation_is_told_and_the_others_go_by_name(folder):
    shutil.rmtree(folder / "val" / "bee")
    data = ready(folder_data(folder))
    assert data.describe()["skipped"] == {"class without an image in 'val' (bee)": 1}
    assert {data.class_names[label] for _, label in data.val_set} == {"ant", "cat"}
    (folder / "val" / "dog").mkdir()  # without images it is no surplus
    assert ready(folder_data(folder)).class_names == ("ant", "bee", "cat")


def test_a_class_missing_from_training_is_an_error(folder):
    shutil.rmtree(folder / "train" / "bee")
    with pytest.raises(DataError, match=r"of 'val' are missing from the training split: bee"):
        folder_data(folder).prepare_data()


def test_wrong_paths_are_named(folder, tmp_path):
    with pytest.raises(DataError, match=r"`root` \(='.*nowhere'\) must be a folder"):
        folder_data(tmp_path / "nowhere").prepare_data()
    with pytest.raises(DataError, match=r"must hold a folder 'train' or 'training'.*ant, bee, cat"):
        folder_data(folder / "train").prepare_data()
    shutil.rmtree(folder / "val")
    with pytest.raises(DataError, match="'val' or 'valid' or 'validation'"):
        folder_data(folder).prepare_data()
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="one folder per class"):
        folder_data(tmp_path / "empty").prepare_data()


def damage(folder):
    train = folder / "train" / "ant"
    whole = (train / "0.jpg").read_bytes()
    write_image(folder / "noise.jpg", 0, size=(200, 200), quality=100)
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (200, 200, 3), dtype=np.uint8))
    noise.save(folder / "noise.jpg")
    (train / "0.jpg").write_bytes((folder / "noise.jpg").read_bytes()[:9000])
    (folder / "noise.jpg").unlink()
    (train / "1.jpg").write_bytes(b"")
    (train / "2.jpg").write_bytes(b"this is text" + whole[:4])


def test_unreadable_images_are_counted_and_left_out(folder):
    damage(folder)
    (folder / "train" / "ant" / "notes.txt").write_text("")
    (folder / "train" / "ant" / ".hidden").write_text("")
    data = ready(folder_data(folder, max_skipped=0.2))
    assert data.describe()["skipped"] == {
        "empty file": 1,
        "not an image": 1,
        "other suffix": 1,
        "truncated": 1,
    }
    assert data.describe()["train_samples"] == 15
    _, labels = epoch_of(data, 0)
    assert len(labels) == 12  # full batches only


def test_too_many_unreadable_images_are_an_error(folder):
    damage(folder)
    with pytest.raises(DataError, match=r"3 of 18 images .*`max_skipped` \(=0.01\).*0.jpg: trunc"):
        folder_data(folder).prepare_data()


def test_every_kind_of_image_is_read_as_rgb(tmp_path):
    paths = []
    for mode, suffix in (
        ("L", "png"), ("P", "png"), ("1", "png"), ("RGBA", "png"), ("CMYK", "jpg"), ("LA", "png"),
        ("RGB", "webp"), ("RGB", "bmp"), ("I;16", "tif"),
    ):  # fmt: skip
        path = tmp_path / f"{mode.replace(';', '')}.{suffix}"
        Image.new(mode, (12, 10)).save(path)
        paths.append(path)
        image = read_image(path)
        assert image.shape == (3, 10, 12)
        assert image.dtype == torch.uint8
    assert check_images(tmp_path, paths).faults == {}


def test_large_images_are_shrunk_to_the_short_side(tmp_path):
    write_image(tmp_path / "a.png", (200, 10, 10), size=(300, 100))
    assert read_image(tmp_path / "a.png", 50).shape == (3, 50, 150)
    assert read_image(tmp_path / "a.png", 400).shape == (3, 100, 300)
    write_image(tmp_path / "a.jpg", (200, 10, 10), size=(1000, 801))
    shrunk = read_image(tmp_path / "a.jpg", 50)
    assert shrunk.shape == (3, 50, 62)
    assert shrunk[0].float().mean() == pytest.approx(200, abs=2)


def test_files_are_checked_once(folder, monkeypatch):
    folder_data(folder).prepare_data()
    monkeypatch.setattr(
        "tasks.data.checked.inspect_image", lambda path: pytest.fail("checked twice")
    )
    folder_data(folder).prepare_data()


def test_a_file_that_changes_after_the_check_is_named(folder):
    data = folder_data(folder, memory_mb=0)
    ready(data)
    (folder / "train" / "ant" / "0.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"ant/0.jpg has changed since it was checked"):
        epoch_of(data, 0)


def test_memory_makes_no_difference(folder):
    kept, loaded = (ready(folder_data(folder, crop=0.5, memory_mb=mb)) for mb in (100, 0))
    assert len(kept.train_set.images.memory.samples) == 18
    assert not loaded.train_set.images.memory.samples
    for one, other in zip(epoch_of(kept, 2), epoch_of(loaded, 2), strict=True):
        assert torch.equal(one, other)


def test_images_are_kept_by_their_own_sizes(folder):
    for i, path in enumerate(sorted((folder / "train").rglob("*.jpg"))):
        write_image(path, (i, 0, 0), size=(8, 8) if i == 0 else (600, 600))
    data = ready(folder_data(folder, image_size=512, memory_mb=2))
    memory = data.train_set.images.memory
    sizes = [sum(t.nbytes for t in sample) for sample in memory.samples.values()]
    assert 0 < sum(sizes) <= 2 * 2**20
    assert len(sizes) == 2
    shown, _ = data.example("train", 17)
    assert torch.equal(data.train_set.images[17], shown)


# Order and augmentation


AUGMENTED = {"crop": 0.4, "flip": True, "erasing": 0.5, "randaugment": 9, "pad": 2}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_order_and_augmentation_do_not_depend_on_workers_or_other_draws(folder):
    alone = ready(folder_data(folder, **AUGMENTED))
    workers = ready(folder_data(folder, **AUGMENTED, num_workers=2))
    loader = workers.train_dataloader()
    for epoch in (0, 1):
        torch.manual_seed(epoch + 50)
        images, labels = epoch_of(alone, epoch)
        loader.sampler.set_epoch(epoch)
        batches = list(loader)  # the same persistent workers in both epochs
        assert torch.equal(images, torch.cat([b[0] for b in batches]))
        assert torch.equal(labels, torch.cat([b[1] for b in batches]))


def test_epochs_and_seeds_differ(folder):
    data = ready(folder_data(folder, crop=0.4))
    other = ready(folder_data(folder, crop=0.4, seed=1))
    first = epoch_of(data, 0)[0]
    assert torch.equal(first, epoch_of(data, 0)[0])
    assert not torch.equal(first, epoch_of(data, 1)[0])
    assert not torch.equal(first, epoch_of(other, 0)[0])


def test_augmenting_leaves_the_global_generator_alone(folder):
    data = ready(folder_data(folder, **AUGMENTED))
    before = torch.random.get_rng_state()
    data.train_set[(0, 1)]
    assert torch.equal(before, torch.random.get_rng_state())


def test_every_sample_is_seen_once_an_epoch():
    sampler = EpochSampler(17, seed=3)
    sampler.set_epoch(2)
    assert sorted(index for _, index in sampler) == list(range(17))
    assert {epoch for epoch, _ in sampler} == {2}


def test_processes_share_the_order_without_overlap():
    whole = [index for _, index in EpochSampler(11, seed=3)]
    parts = [[i for _, i in EpochSampler(11, seed=3, rank=r, world_size=3)] for r in range(3)]
    assert [len(part) for part in parts] == [3, 3, 3]
    assert [i for row in zip(*parts, strict=True) for i in row] == whole[:9]


def test_the_order_is_uniform():
    places = np.array([[i for _, i in EpochSampler(5, seed=s)] for s in range(600)])
    counts = np.stack([(places == i).sum(0) for i in range(5)])
    assert abs(counts - 120).max() < 45  # 4.6 standard deviations


def test_batches_larger_than_the_set_are_an_error(folder):
    with pytest.raises(DataError, match=r"`batch_size` \(=19\) must be at most the 18 images"):
        folder_data(folder, batch_size=19).prepare_data()


def test_collate_gives_floats_and_labels():
    images, labels = collate([(torch.full((3, 2, 2), 255, dtype=torch.uint8), 4)])
    assert torch.equal(images, torch.ones(1, 3, 2, 2))
    assert labels.tolist() == [4]


# Holding out


def test_what_is_held_out_comes_from_training_and_is_not_trained(folder):
    data = ready(folder_data(folder, holdout=0.34))
    trained, held = set(data.train_set.indices), set(data.val_set.indices)
    assert not trained & held
    assert trained | held == set(range(18))
    assert data.val_set.images.labelled is data.source.train
    described = data.describe()
    assert described["split"] == "held out 0.34 of train"
    for split, part in (("train", data.train_set), ("val", data.val_set)):
        shown, truth = data.example(split, 4)
        assert torch.equal(shown, data.source.train.load(int(part.indices[4]), 640))
        assert truth["label"] == data.source.train.labels[part.indices[4]]
    assert described["scored_samples"] == 6


def test_the_held_out_samples_do_not_depend_on_the_seed(folder):
    splits = [ready(folder_data(folder, holdout=0.2, seed=s)).val_set.indices for s in (0, 1)]
    assert np.array_equal(*splits)


def test_holding_out_takes_the_share_of_every_class():
    labels = np.repeat([0, 1, 2], [100, 50, 3])
    trained, held = held_out(labels, 0.2)
    assert np.bincount(labels[held]).tolist() == [20, 10, 1]
    assert len(trained) + len(held) == 153


def test_a_class_of_one_image_is_not_held_out():
    trained, held = held_out(np.array([0, 0, 0, 0, 1]), 0.25)
    assert (trained.tolist(), held.tolist()) == ([1, 2, 3, 4], [0])
    with pytest.raises(DataError, match=r"`holdout` \(=0.25\) leaves nothing to score"):
        held_out(np.array([0, 1]), 0.25)


# Packages' sets


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture
def fashion(tmp_path):
    root = tmp_path / "fashion-mnist"
    root.mkdir()
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 30), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28))
        write_idx(root / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(root / f"{prefix}-labels-idx1-ubyte.gz", np.arange(count) % 10)
    return root


def test_debians_fashion_mnist_is_read(fashion):
    data = ready(
        ClassificationData("fashion-mnist-debian", root=str(fashion), image_size=28, batch_size=20)
    )
    assert data.class_names[9] == "Ankle boot"
    images, labels = next(iter(data.val_dataloader()))
    expected = read_idx(fashion / "t10k-images-idx3-ubyte.gz")
    assert np.array_equal((images[:, 1] * 255).round().numpy(), expected)
    assert labels.tolist() == [*range(10), *range(10)]
    assert data.describe()["train_samples"] == 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.write_bytes(f.read_bytes()[:-30]), "cannot be read"),
        (lambda f: f.write_bytes(gzip.compress(b"PNG?")), "no idx file"),
        (lambda f: f.write_bytes(gzip.compress(gzip.decompress(f.read_bytes())[:-5])), "must hold"),
        (lambda f: f.unlink(), "cannot be read"),
        (lambda f: write_idx(f, np.zeros((7, 28, 28))), "as many images as labels"),
    ],
)
def test_damaged_idx_files_are_named(fashion, change, message):
    change(fashion / "t10k-images-idx3-ubyte.gz")
    with pytest.raises(DataError, match=message):
        ClassificationData("fashion-mnist-debian", root=str(fashion)).prepare_data()


def test_a_missing_class_in_an_array_is_an_error(fashion):
    write_idx(fashion / "t10k-labels-idx1-ubyte.gz", np.zeros(20))
    with pytest.raises(
        DataError, match=r"9 class\(es\) have no image in the scored split: Trouser"
    ):
        ClassificationData("fashion-mnist-debian", root=str(fashion)).prepare_data()


def test_a_missing_debian_package_is_named(tmp_path):
    with pytest.raises(DataError, match="dataset-fashion-mnist"):
        ClassificationData("fashion-mnist-debian", root=str(tmp_path / "none")).prepare_data()


def test_torchvisions_sets_are_read_by_name(fashion, tmp_path):
    raw = tmp_path / "tv" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in fashion.iterdir():
        (raw / path.name.removesuffix(".gz")).write_bytes(gzip.decompress(path.read_bytes()))
    data = ready(
        ClassificationData("FashionMNIST", root=str(tmp_path / "tv"), image_size=28, batch_size=6)
    )
    debian = ready(
        ClassificationData("fashion-mnist-debian", root=str(fashion), image_size=28, batch_size=6)
    )
    for one, other in zip(data.val_dataloader(), debian.val_dataloader(), strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
    assert data.class_names == debian.class_names
    assert data.describe()["revision"] == data.describe()["files_sha256"][:12]


def test_torchvisions_sets_of_files_are_read_by_name(tmp_path):
    import json

    root = tmp_path / "tv" / "food-101"
    listing = {"pie": [], "soup": []}
    for label, name in enumerate(listing):
        for index in range(3):
            write_image(root / "images" / name / f"{index}.jpg", (label * 200, index, 0))
            listing[name].append(f"{name}/{index}")
    (root / "meta").mkdir()
    for split in ("train", "test"):
        (root / "meta" / f"{split}.json").write_text(json.dumps(listing))
    data = ready(
        ClassificationData("Food101", root=str(tmp_path / "tv"), image_size=24, batch_size=2)
    )
    assert data.class_names == ("pie", "soup")
    images, labels = next(iter(data.val_dataloader()))
    assert (images[:, 0].mean((1, 2)) > 0.5).long().tolist() == labels.tolist()
    (root / "images" / "pie" / "0.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"1 file\(s\) of Food101 can't be read"):
        ClassificationData("Food101", root=str(tmp_path / "tv")).prepare_data()


def test_a_set_that_is_not_there_is_not_downloaded(tmp_path):
    with pytest.raises(DataError, match=r"CIFAR10 cannot be read from `root`.*`download=True`"):
        ClassificationData("CIFAR10", root=str(tmp_path)).prepare_data()
    assert not any(p.name.startswith("cifar") for p in tmp_path.iterdir())


def test_every_named_set_is_torchvisions_with_its_argument():
    import inspect

    for name, (argument, *_) in SETS.items():
        parameters = inspect.signature(getattr(torchvision.datasets, name)).parameters
        assert "download" in parameters or "kwargs" in parameters, name
        assert argument in parameters or "kwargs" in parameters, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "CIFAR1"}, r"`source` \(='CIFAR1'\) is not known; did you mean 'CIFAR10"),
        ({"source": "CIFAR10"}, r"`root` \(=None\) must be the folder of torchvision's CIFAR10"),
        ({"source": "folder"}, r"`root` \(=None\) must be the folder of the classes' splits"),
        ({"options": {"contrats": 1}}, r"`contrats` \(=1\) is no option; did you mean 'contrast'"),
        ({"options": {"classes": 20}}, r"`classes` \(=20\) must be from 2 to 10"),
        (
            {"source": "EMNIST", "root": ".", "options": {"spilt": "letters"}},
            r"`spilt` .* is no option of EMNIST; did you mean 'split'",
        ),
        ({"source": "folder", "root": ".", "options": {"a": 1}}, "`options` .* must be empty"),
    ],
)
def test_unknown_sources_and_options_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ClassificationData(**arguments).prepare_data()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 4}, r"`image_size` \(=4\) must be >= 8"),
        ({"batch_size": 0}, r"`batch_size` \(=0\) must be >= 1"),
        ({"num_workers": -1}, r"`num_workers` \(=-1\)"),
        ({"seed": -1}, r"`seed` \(=-1\)"),
        ({"holdout": 0.9}, r"`holdout` \(=0.9\) must be in \[0, 0.5\]"),
        ({"scored": "train"}, r"`scored` \(='train'\) must be 'val' or 'test'"),
        ({"source": "DTD", "root": "dtd", "scored": "test"}, r"`scored` \(='test'\) must be 'val'"),
        (
            {"source": "scenes", "scored": "test"},
            r"`scored` \(='test'\) must be 'val' for `source`",
        ),
        ({"crop": 0}, r"`crop` \(=0\) must be in \(0, 1\]"),
        ({"pad": 64}, r"`pad` \(=64\) must be in \[0, image_size\)"),
        ({"randaugment": 31}, r"`randaugment` \(=31\) must be in \[0, 30\]"),
        ({"erasing": 2}, r"`erasing` \(=2\) must be in \[0, 1\]"),
        ({"centre": 0}, r"`centre` \(=0\) must be in \(0, 1\]"),
        ({"max_skipped": 1}, r"`max_skipped` \(=1\) must be in \[0, 1\)"),
        ({"memory_mb": -1}, r"`memory_mb` \(=-1\) must be >= 0"),
    ],
)
def test_arguments_out_of_range_are_named_at_once(change, message):
    with pytest.raises(ValueError, match=message):
        ClassificationData(**change)


def test_scenes_are_described_by_their_knobs(tmp_path):
    data = ready(
        ClassificationData(root=str(tmp_path), batch_size=10, options={"train": 20, "val": 10})
    )
    described = data.describe()
    assert described["name"] == "scenes"
    assert described["options"] == {"image_size": 64, "train": 20, "val": 10}
    assert data.class_names == tuple("0123456789")
    images, labels = next(iter(data.val_dataloader()))
    assert images.shape == (10, 3, 64, 64)
    assert sorted(labels.tolist()) == list(range(10))


@pytest.mark.slow
def test_real_photos_are_read_where_they_are():
    from pathlib import Path

    root = Path(__file__).parents[4] / "shared" / "data" / "clothing"
    if not root.is_dir():
        pytest.skip("the real photos are not there")
    data = ready(ClassificationData("folder", root=str(root), crop=0.35, flip=True, centre=0.875))
    described = data.describe()
    assert (described["train_samples"], described["scored_samples"]) == (3068, 341)
    assert data.num_classes == 10
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (64, 3, 64, 64)
    assert len(set(labels.tolist())) > 3
