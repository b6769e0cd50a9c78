"""Runs that are kept are there wherever their folder lies, and whatever is done to it."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from bench import locks
from bench.record import load_all
from bench.store import Store

SHORT = ("--set", "trainer.max_epochs=1")
ONE = ("--only", "operator=dwconv", *SHORT)


@pytest.fixture(scope="module")
def kept(tiny, convboard, tmp_path_factory):
    """A runs folder in which one cell is done; not to be changed."""
    runs = tmp_path_factory.mktemp("kept") / "runs"
    convboard("run", tiny, "--runs", runs, *ONE)
    return runs


@pytest.fixture
def runs(kept, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(kept, tmp_path / "runs"))


@contextmanager
def read_only(folder):
    """Let a folder be read and not be written, which rights forbid to others but not to root."""
    if os.getuid():
        subprocess.run(["chmod", "-R", "a-w", folder], check=True)
        try:
            yield
        finally:
            subprocess.run(["chmod", "-R", "u+w", folder], check=True)
        return
    if subprocess.run(["mount", "--bind", folder, folder]).returncode:
        pytest.skip("root is not allowed to mount here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_moved_store_works_wherever_it_lies(runs, tiny, convboard, tmp_path):
    moved = tmp_path / "a b" / "ü %20?#"
    moved.parent.mkdir()
    shutil.move(runs, moved)
    assert "0 to run" in convboard("plan", tiny, "--runs", moved, *ONE).stdout
    assert "1 records" in convboard("export", "--runs", moved).stdout
    (record,) = load_all(moved / "records")
    cell = record.provenance.cell
    assert "finished" in convboard("show", cell, "--runs", moved).stdout
    photo = tmp_path / "photo.png"
    Image.new("RGB", (90, 60), "teal").save(photo)
    convboard("predict", cell, photo, "--out", tmp_path / "drawn", "--runs", moved)
    assert len(list((tmp_path / "drawn").iterdir())) == 1
    convboard("run", tiny, "--runs", moved, *SHORT)
    assert "2 records" in convboard("export", "--runs", moved).stdout


@pytest.mark.slow
def test_runs_that_can_only_be_read_are_shown_and_not_added_to(runs, tiny, convboard, tmp_path):
    records = tmp_path / "records"
    before = files(runs)
    with read_only(runs):
        assert "1 to run" in convboard("plan", tiny, "--runs", runs, *SHORT).stdout
        assert "0 to run" in convboard("plan", tiny, "--runs", runs, *ONE).stdout
        assert "1 records" in convboard("export", "--runs", runs, "--records", records).stdout
        (record,) = load_all(records)
        cell = record.provenance.cell
        assert "finished" in convboard("show", cell, "--runs", runs).stdout
        assert not locks.held(locks.of_cell(runs, cell))
        assert "1 done before" in convboard("run", tiny, "--runs", runs, *ONE, at_once=True).stdout
        other = ("--only", "operator=acb")
        for refused in (
            ("run", tiny, *SHORT),
            ("speed", tiny, *SHORT),
            ("tune", tiny, *other, "--trials", "1"),
            ("search-dilation", tiny, "--operators", "icconv"),
            ("erf", tiny, *ONE),
            ("export",),
        ):
            done = convboard(*refused, "--runs", runs, status=1, at_once=True)
            (line,) = done.stderr.strip().splitlines()
            assert "runs/ can only be read" in line or "records/ cannot be made" in line
    assert files(runs) == before


def test_an_empty_folder_that_can_only_be_read_is_one_line(tiny, convboard, tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    with read_only(runs):
        for verb in (("run", tiny), ("export",)):
            done = convboard(*verb, "--runs", runs, status=1, at_once=True)
            (line,) = done.stderr.strip().splitlines()
            assert "runs/ can only be read" in line
        assert "2 to run" in convboard("plan", tiny, "--runs", runs).stdout
    assert not list(runs.iterdir())


@pytest.mark.slow
def test_a_deleted_experiment_is_told_with_what_restores_it(runs, tiny, convboard, tmp_path):
    records = tmp_path / "records"
    store = Store(runs)
    store.client.delete_experiment(store.experiment("tiny"))  # as a user does in MLflow's UI
    before = files(runs)
    for verb in (("plan", tiny), ("run", tiny), ("speed", tiny), ("export", "--records", records)):
        done = convboard(*verb, "--runs", runs, status=1, at_once=True)
        (line,) = [line for line in f"{done.stdout}\n{done.stderr}".splitlines() if "tiny" in line]
        assert "'tiny' was deleted in MLflow" in line
    assert list(records.iterdir()) == []
    assert files(runs) == before

    (command,) = re.findall(r"`(.+ mlflow experiments restore .+)`", line)
    command = command.replace("mlflow experiments", f"{sys.executable} -m mlflow experiments")
    subprocess.run(command, shell=True, check=True, capture_output=True)
    assert "0 to run" in convboard("plan", tiny, "--runs", runs, *ONE).stdout
    assert "1 records" in convboard("export", "--runs", runs, "--records", records).stdout
