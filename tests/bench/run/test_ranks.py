"""A cell on several devices, through the command: two CPU processes stand for two GPUs."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import yaml

from bench.errors import UserError
from bench.failures import out_of_memory
from bench.record import load_all
from bench.run import ranks
from bench.store import CHECKPOINT, Store

wait_for = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("servers.py")))).wait_for

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
    # two steps of two ranks with 8 images each
    assert by_task["segmentation"].recipe.samples_seen == 32
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


def of_ranks(folder):
    """Processes of ranks that write to a folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "bench.run.rank" in words and any(str(folder) in word for word in words):
            found.append(process)
    return found


@pytest.mark.slow
def test_ranks_do_not_outlive_a_command_that_is_killed(tmp_path, convboard):
    one = board("scenes-classification")
    one["set"]["trainer"]["max_epochs"] = 500
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump({"seeds": [0], "boards": [one], "timeout_minutes": 15}))
    runs = tmp_path / "runs"
    command = convboard("run", path, "--runs", runs, "--devices", "2", wait=False)
    wait_for(lambda: next(runs.glob("cells/*/last.ckpt"), None))
    assert of_ranks(runs)
    command.kill()
    wait_for(lambda: not of_ranks(runs))


def test_the_rank_that_failed_first_is_quoted_and_want_of_memory_is_seen(tmp_path):
    (tmp_path / ranks.LOG).write_text("E0 ValueError: no\nfoo.ChildFailedError: \n")
    assert ranks._said(tmp_path) == "E0 ValueError: no"
    ranks.note_failure(tmp_path, 1, RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    ranks.note_failure(tmp_path, 2, RuntimeError("Connection closed by peer"))
    said = ranks._said(tmp_path)
    assert said.startswith("rank 1: RuntimeError: CUDA out of memory")
    assert out_of_memory(RuntimeError(said))


@pytest.mark.parametrize("devices", [[1], "0,1", "all", 0])
def test_devices_are_a_number(devices):
    with pytest.raises(UserError, match=r"`trainer.devices` \(=.*\) must be a number or 'auto'"):
        ranks.ranks_of({"devices": devices})
