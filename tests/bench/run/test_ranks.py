"""A cell on several devices, through the command: two CPU processes stand for two GPUs."""

import numpy as np
import pytest
import yaml

from bench.record import load_all
from bench.store import CHECKPOINT, Store

BOARDS = {
    "scenes-classification": ("quick-classification", {"train": 48, "val": 17, "classes": 3}),
    "scenes-detection": ("quick-detection", {"train": 32, "val": 9, "classes": 3}),
    "scenes-segmentation": ("quick-segmentation", {"train": 32, "val": 9, "classes": 3}),
    "figures": ("quick-figures", {"train": 32, "val": 9}),
}

ROWS = {
    "classification": "label",
    "detection": "objects",
    "segmentation": "confusion",
    "pose": "objects",
}
"""What a task's outcomes have of every image that is scored."""


def board(task):
    recipe, options = BOARDS[task]
    return {
        "task": task,
        "hosts": ["test_convnext"],
        "operators": ["dwconv"],
        "baseline": "dwconv",
        "where": {"kernel_size": 7},
        "recipe": recipe,
        "set": {
            "data": {"init_args": {"image_size": 64, "batch_size": 8, "options": options}},
            "trainer": {
                "max_epochs": 1,
                "check_val_every_n_epoch": 1,
                "accelerator": "cpu",
            },
        },
    }


@pytest.mark.slow
def test_every_task_runs_on_two_processes_and_is_kept_once(tmp_path, convboard):
    suite = {"seeds": [0], "boards": [board(task) for task in BOARDS], "timeout_minutes": 15}
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(suite))
    runs, records = tmp_path / "runs", tmp_path / "records"
    convboard("run", path, "--runs", runs, "--workers", "1", "--devices", "2")
    store = Store(runs)
    kept = list(store.runs())
    assert len(kept) == len(BOARDS)
    for run, _ in kept:
        assert store.files(run.info.run_id, "checkpoint") == [CHECKPOINT]
    convboard("export", "--runs", runs, "--records", records)
    by_task = {record.entry.task: record for record in load_all(records)}
    assert set(by_task) == set(ROWS)
    assert {record.status for record in by_task.values()} == {"ok"}
    for task, record in by_task.items():
        scored = record.data.scored_samples
        with np.load(records / record.accuracy.outcomes.file, allow_pickle=False) as outcomes:
            rows = ROWS[task]
            assert len(outcomes[rows]) == scored  # each once, though two processes shared them
    assert "0 to run" in convboard("plan", path, "--runs", runs, "--devices", "2").stdout


@pytest.mark.slow
def test_a_rank_that_fails_ends_the_cell_with_its_words(tmp_path, convboard):
    one = board("scenes-classification")
    one["set"]["data"]["init_args"]["batch_size"] = 48  # more than a process's share
    suite = {"seeds": [0], "boards": [one], "timeout_minutes": 15}
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(suite))
    done = convboard("run", path, "--runs", tmp_path / "runs", "--devices", "2", status=1)
    assert "`batch_size` (=48)" in done.stdout
    (run,) = Store(tmp_path / "runs").kept().values()
    assert run.status == "FAILED"
