"""What the data modules of the tasks have in common, in one test each."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DistributedSampler

import tasks
from bench.errors import DataError
from bench.record import Data

MODULES = ["ClassificationData", "DetectionData", "SegmentationData", "PoseData"]
OPTIONS = {"train": 12, "val": 7}


@pytest.fixture(params=MODULES)
def make(request):
    cls = getattr(tasks, request.param)
    options = OPTIONS | ({"largest": 0.9} if request.param == "PoseData" else {"classes": 3})
    return lambda **changes: cls(
        **{"image_size": 32, "batch_size": 4, "options": options, "seed": 1} | changes
    )


def process(data, rank, world_size, **module):
    """Let a data module believe that it is in one of several processes."""
    data.trainer = SimpleNamespace(
        global_rank=rank, world_size=world_size, lightning_module=SimpleNamespace(**module)
    )
    return data


@pytest.mark.parametrize(
    ("argument", "value", "rule"),
    [
        ("batch_size", 0, ">= 1"),
        ("num_workers", -1, ">= 0"),
        ("memory_mb", -1, ">= 0"),
        ("holdout", 0.6, r"in \[0, 0.5\]"),
        ("holdout", -0.1, r"in \[0, 0.5\]"),
        ("seed", -1, ">= 0"),
    ],
)
def test_ranges_are_checked_in_one_way(make, argument, value, rule):
    with pytest.raises(ValueError, match=rf"`{argument}` \(={value}\) must be {rule}"):
        make(**{argument: value})


def test_a_description_is_that_of_a_record(make):
    described = Data.model_validate(make().describe())
    assert (described.name, described.split) in (("scenes", "val"), ("figures", "val"))
    assert (described.train_samples, described.scored_samples) == (12, 7)
    held = Data.model_validate(make(holdout=0.25).describe())
    assert held.split == "held out 0.25 of train"
    assert held.train_samples + held.scored_samples == 12
    assert held.files_sha256 == described.files_sha256


def test_model_and_data_must_have_the_same_classes(make):
    data = make()
    process(data, 0, 1, num_classes=data.num_classes).setup("fit")
    other = process(make(), 0, 1, num_classes=data.num_classes + 1)
    with pytest.raises(DataError, match=r"`num_classes` \(=\d+\) of the model must be the data's"):
        other.setup("fit")


def test_sets_are_made_once(make):
    data = make()
    data.setup("fit")
    before = data.train_set, data.val_set
    data.setup("validate")
    assert before == (data.train_set, data.val_set)


def test_every_process_needs_a_batch(make):
    process(make(), 0, 3).prepare_data()
    with pytest.raises(DataError, match=r"at most the 3 images to train on in each of 4 processes"):
        process(make(), 0, 4).prepare_data()


def test_processes_share_out_the_samples(make):
    loaders = []
    for rank in range(2):
        data = process(make(), rank, 2)
        data.prepare_data()
        data.setup("fit")
        loaders.append((data.train_dataloader(), data.val_dataloader()))
        # Lightning leaves what is a DistributedSampler as it is.
        assert all(isinstance(loader.sampler, DistributedSampler) for loader in loaders[-1])
        # Where nothing is scored, Lightning shares out itself.
        assert not isinstance(data.predict_dataloader().sampler, DistributedSampler)
    trained = [index for train, _ in loaders for _, index in train.sampler]
    assert sorted(trained) == list(range(12))
    assert [list(val.sampler) for _, val in loaders] == [[0, 2, 4, 6], [1, 3, 5, 0]]
    assert len({len(val) for _, val in loaders}) == 1


def test_scored_images_are_evenly_spaced_and_of_one_size(make):
    data = make()
    images = data.scored_images(3, (32, 32))
    assert images.shape == (3, 3, 32, 32)
    for image, index in zip(images, (0, 2, 4), strict=True):
        assert torch.equal(image, data.collate([data.val_set[index]])[0][0])
    assert len(data.scored_images(50, (16, 16))) == 7
