"""A cell tells of its configuration, also where its network is somebody's own class."""

import pytest

from bench.config.cell import Cell


def cell(backbone, **data):
    config = {
        "seed_everything": 0,
        "model": {"class_path": "tasks.Classification", "init_args": {"backbone": backbone}},
        "data": {"class_path": "tasks.ClassificationData", "init_args": data},
        "trainer": {},
    }
    fixed = {"suite": "s", "task": "t", "host": "own", "operator": "as-is", "recipe": "r"}
    return Cell(**fixed, baseline=True, config=config)


@pytest.mark.parametrize(
    ("backbone", "data", "size"),
    [
        ({"class_path": "my.Net"}, {"image_size": 96}, (96, 96)),
        ({"class_path": "my.Net", "init_args": {"width": 8}}, {"image_size": [64, 96]}, (64, 96)),
        ({"class_path": "my.Net", "init_args": None}, {}, (224, 224)),
        ({"class_path": "b.build", "init_args": {"input_size": [32, 48]}}, {}, (32, 48)),
    ],
)
def test_a_network_of_ones_own_need_not_say_its_images_size(backbone, data, size):
    mine = cell(backbone, **data)
    assert mine.input_size == size
    assert mine.backbone == (backbone.get("init_args") or {})
    assert not mine.starts_trained
