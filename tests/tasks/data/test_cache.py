"""A cache that cannot be written, or holds half files, costs time and not the run."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tasks
from bench.errors import DataError
from tasks.data import cache as cache_module
from tasks.data.cache import MANIFEST, cached, manifest, whole
from tasks.data.checked import check_images
from tasks.data.locations import SPARE, cache_folder, cache_folders, inside
from tasks.data.scenes import scenes


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache of this test alone, and no temporary one before or after it."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("CONVBOARD_CACHE", str(folder))
    monkeypatch.setenv(SPARE, "")
    yield folder
    spare = os.environ.get(SPARE)
    if spare:
        shutil.rmtree(spare)


@pytest.fixture
def no_cache(own_cache):
    """A cache that cannot be written: there is a file in its place, which stops root, too."""
    own_cache.write_text("")
    return own_cache


@contextmanager
def one_line(caplog, pattern="cannot be written"):
    """What is done within is told by one line of the log."""
    caplog.clear()
    yield
    (line,) = caplog.messages
    assert re.search(pattern, line)
    assert "\n" not in line


def pictures(folder, count=3):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = rng.integers(0, 255, (12, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return sorted(folder.iterdir())


TASKS = {
    "classification": lambda: tasks.ClassificationData(
        image_size=32, batch_size=4, options={"train": 8, "val": 4, "classes": 2}
    ),
    "detection": lambda: tasks.DetectionData(
        image_size=32, batch_size=4, options={"train": 8, "val": 4, "classes": 2}
    ),
    "segmentation": lambda: tasks.SegmentationData(
        image_size=32, batch_size=4, options={"train": 8, "val": 4, "classes": 2}
    ),
    "paths": lambda: tasks.SegmentationData(
        "paths", image_size=48, batch_size=2, options={"train": 2, "val": 2, "length": 4}
    ),
}


@pytest.mark.parametrize("make", TASKS.values(), ids=TASKS)
def test_without_a_cache_every_task_has_its_data(no_cache, make, caplog):
    data = make()
    with one_line(caplog, r"cache' cannot be written .*CONVBOARD_CACHE"):
        data.prepare_data()
    data.setup("fit")
    assert len(next(iter(data.train_dataloader()))) == 2
    spare = cache_folders()[1]
    # said once, and written once
    caplog.clear()
    make().prepare_data()
    assert not caplog.messages
    (folder,) = (spare / data.describe()["name"]).iterdir()
    assert whole(folder)
    assert no_cache.read_text() == ""


def test_processes_of_a_run_share_the_temporary_cache(no_cache, tmp_path, caplog):
    code = (
        "from tasks.data.scenes import scenes\n"
        "print(scenes('detection', size=32, train=8, val=4, classes=2))"
    )
    with one_line(caplog):
        folder = scenes("detection", size=32, train=8, val=4, classes=2)
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert child.stdout.strip() == str(folder)
    assert "cannot be written" not in child.stderr
    assert folder.is_dir()  # the child has not taken it away


def test_the_temporary_cache_goes_with_the_process_that_made_it(no_cache):
    code = (
        "import os\nfrom tasks.data.scenes import scenes\n"
        "print(scenes('detection', size=32, train=8, val=4, classes=2).is_dir())\n"
        f"print(os.environ['{SPARE}'])"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    there, spare = child.stdout.split()
    assert there == "True"
    assert child.stderr.count("cannot be written") == child.stderr.count("\n") == 1
    assert not Path(spare).exists()


def test_a_full_disk_while_a_set_is_written_costs_time(own_cache, caplog):
    full = own_cache / "thing"

    def write(folder):
        (folder / "a.txt").write_text("a" * 10)
        if folder.is_relative_to(full):
            raise OSError(errno.ENOSPC, "No space left on device")
        (folder / "b.txt").write_text("b")

    with one_line(caplog, "No space left on device"):
        folder = cached("thing", "1", {}, write)
    assert not folder.is_relative_to(own_cache)
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "b.txt", MANIFEST]
    assert list(full.iterdir()) == []


def test_what_a_killed_process_has_left_goes_at_the_next_generation(own_cache):
    killed = (
        "import os, signal\n"
        "from tasks.data.cache import cached\n"
        "def write(folder):\n"
        "    (folder / 'a.txt').write_text('a')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "cached('thing', '1', {}, write)"
    )
    assert subprocess.run([sys.executable, "-c", killed]).returncode == -signal.SIGKILL
    things = own_cache / "thing"
    (left,) = things.glob(".partial-*/")
    assert (left / "a.txt").read_text() == "a"

    def age(name, seconds):
        """A folder as versions before this one made them, without a lock."""
        (things / name).mkdir()
        moment = time.time() - seconds
        os.utime(things / name, (moment, moment))
        return things / name

    old = [age(name, 2 * cache_module.OLD_S) for name in (".partial-old", ".damaged-old")]
    young = age(".partial-young", 60)

    def within(folder):
        (folder / "b.txt").write_text("b")

    def write(folder):
        cached("thing", "1", {"within": True}, within)  # another one, which sweeps as well
        assert folder.is_dir()
        (folder / "a.txt").write_text("a")

    folder = cached("thing", "1", {}, write)
    assert whole(folder)
    assert not any(path.exists() for path in (left, *old))
    assert young.is_dir()
    assert [path for path in things.iterdir() if path.name.startswith(".")] == [young]


def test_nowhere_to_write_is_an_error_that_names_the_way_out(own_cache, caplog):
    def write(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        one_line(caplog),
        pytest.raises(DataError, match=r"`root` .* must be a folder that can be written.*_CACHE"),
    ):
        cached("thing", "1", {}, write)


def test_a_cache_that_is_only_read_is_used(own_cache, monkeypatch, caplog):
    def write(folder):
        (folder / "a.txt").write_text("a")

    folder = cached("thing", "1", {}, write)

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "read-only")

    monkeypatch.setattr(cache_module, "_written", refuse)
    assert cached("thing", "1", {}, write) == folder
    with one_line(caplog, "read-only"), pytest.raises(DataError):
        cached("thing", "2", {}, write)


def test_no_home_is_no_cache(own_cache, monkeypatch, caplog):
    monkeypatch.delenv("CONVBOARD_CACHE")

    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    with one_line(caplog, "Could not determine home"):
        assert cache_folder().is_dir()


@pytest.mark.parametrize("content", ["", "{", "[1]", "{}", '{"files": {"a": 1}}', "[" * 100_000])
def test_half_a_manifest_is_noticed(own_cache, content):
    def write(folder):
        (folder / "a.txt").write_text("a")

    folder = cached("thing", "1", {}, write)
    (folder / MANIFEST).write_text(content)
    with pytest.raises(DataError, match=r"manifest\.json"):
        manifest(folder)
    assert cached("thing", "1", {}, write) == folder
    assert manifest(folder)["files"].keys() == {"a.txt"}


def test_notes_of_checked_files_do_not_need_a_cache(no_cache, tmp_path, caplog):
    paths = pictures(tmp_path / "set")
    with one_line(caplog):
        first = check_images(tmp_path / "set", paths)
    assert len(first.hashes) == 3
    assert (first.files["0.png"].height, first.files["0.png"].width) == (12, 10)
    # the temporary cache has the note: files are not read again
    before = {path: path.stat() for path in paths}
    for path in paths:
        path.write_bytes(b"\0" * before[path].st_size)
        os.utime(path, ns=(before[path].st_atime_ns, before[path].st_mtime_ns))
    assert check_images(tmp_path / "set", paths) == first


def damaged_notes(text):
    content = json.loads(text)
    names = list(content)
    yield "half", text[: len(text) // 2]
    yield "empty", ""
    yield "bytes", "\0\0\0"
    yield "another shape", json.dumps([1, 2])
    yield "a file less", json.dumps({name: content[name] for name in names[1:]})
    yield "a file more", json.dumps({**content, "more.png": content[names[0]]})
    yield "no hash", json.dumps({**content, names[0]: [None, *content[names[0]][1:]]})
    yield "a short row", json.dumps({**content, names[0]: ["a"]})
    # as versions before this one wrote them
    yield "older", json.dumps({"hashes": {}, "faults": {}})
    yield "older masks", json.dumps({"files_sha256": "abc"})


def test_notes_that_are_not_whole_are_made_anew(own_cache, tmp_path):
    paths = pictures(tmp_path / "set")
    first = check_images(tmp_path / "set", paths)
    (note,) = (own_cache / "checked").iterdir()
    text = note.read_text()
    for kind, damaged in damaged_notes(text):
        note.write_text(damaged)
        assert check_images(tmp_path / "set", paths) == first, kind
        assert note.read_text() == text, kind
    assert [path.name for path in note.parent.iterdir()] == [note.name]


def test_segmentation_sets_are_checked_without_a_cache(no_cache, tmp_path, caplog):
    root = tmp_path / "set"
    for split in ("training", "validation"):
        pictures(root / "images" / split)
        (root / "annotations" / split).mkdir(parents=True)
        for index in range(3):
            mask = np.full((12, 10), 1, np.uint8)
            Image.fromarray(mask).save(root / "annotations" / split / f"{index}.png")
    data = tasks.SegmentationData("ade20k", str(root), image_size=8, batch_size=2, num_classes=1)
    with one_line(caplog):
        data.prepare_data()
    first = data.describe()["files_sha256"]
    spare = cache_folders()[1]
    for note in (spare / "checked").iterdir():
        note.write_text("{")
    data.prepare_data()
    assert data.describe()["files_sha256"] == first


@pytest.mark.slow
def test_a_suite_runs_without_a_cache(no_cache, convboard, tiny, tmp_path):
    done = convboard("run", tiny, "--runs", tmp_path / "runs")
    assert "cannot be written" in done.stderr + done.stdout


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/..", "../a", "/a", "C:\\a", "\\\\host\\a", "a\\..\\b"]
)
def test_names_that_lead_out_of_a_folder(tmp_path, name):
    with pytest.raises(DataError, match=r"a list .* must be the name of a file in the folder"):
        inside(tmp_path, name, "a list")


@pytest.mark.parametrize("name", ["a", "a/b.jpg", "..a", "a..b", "...", "a b", "ä", "%2e%2e", "~a"])
def test_names_that_stay_in_a_folder(tmp_path, name):
    assert inside(tmp_path, name, "a list").resolve().is_relative_to(tmp_path.resolve())
