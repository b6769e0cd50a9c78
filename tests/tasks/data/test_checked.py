"""Damaged images have a fault and raise nothing."""

import io
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.errors import DataError
from tasks.data.checked import check_images, inspect_image
from tasks.data.images import image_size
from tasks.segmentation.masks import inspect_mask

anything = settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")


def encoded(kind):
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


WHOLE = {kind: encoded(kind) for kind in FORMATS}


@pytest.mark.filterwarnings("ignore")  # PIL warns of damaged metadata as it goes on
@given(st.sampled_from(FORMATS), st.data())
@anything
def test_damaged_images_have_a_fault_or_can_be_read(tmp_path, kind, data):
    content = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for inspect in (inspect_image, inspect_mask):
        file = inspect(path)
        assert bool(file.fault) == (file.sha256 == "") == (file.height == 0)


@pytest.mark.parametrize("kind", FORMATS)
def test_sizes_and_hashes_of_whole_images(tmp_path, kind):
    path = tmp_path / "a.png"
    path.write_bytes(WHOLE[kind])
    file = inspect_image(path)
    assert (file.height, file.width, file.fault) == (20, 30, "")
    assert image_size(path) == (20, 30)
    path.write_bytes(WHOLE[kind][: len(WHOLE[kind]) // 2])
    assert inspect_image(path).fault in ("truncated", "unreadable", "not an image")


@pytest.mark.parametrize("limit", [500, 200])  # PIL warns up to twice the limit, then raises
def test_too_many_pixels_are_a_fault(tmp_path, monkeypatch, limit):
    path = tmp_path / "a.png"
    path.write_bytes(WHOLE["PNG"])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert check_images(tmp_path, [path]).faults == {"a.png": "too many pixels"}
    with pytest.raises(DataError, match=r"a\.png in .* cannot be read: .*pixels"):
        image_size(path)


def test_files_outside_of_the_root_and_files_that_are_gone(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    (tmp_path / "a.png").write_bytes(WHOLE["PNG"])
    checked = check_images(root, [tmp_path / "a.png", root / "gone.png"])
    assert list(checked.hashes) == ["../a.png"]
    assert checked.faults == {"gone.png": "not there"}


def test_a_file_that_changes_is_read_again(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(WHOLE["PNG"])
    first = check_images(tmp_path, [path])
    stamp = path.stat().st_mtime_ns
    path.write_bytes(WHOLE["JPEG"])
    os.utime(path, ns=(stamp, stamp))  # another length tells
    second = check_images(tmp_path, [path])
    assert first.hashes != second.hashes


def test_how_far_a_long_check_is_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("tasks.data.checked.TELL_S", -1.0)
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for path in paths:
        path.write_bytes(WHOLE["PNG"])
    assert len(check_images(tmp_path, paths).hashes) == 3
    told = [record.message for record in caplog.records]
    assert [words.partition(" files")[0] for words in told] == [
        f"{tmp_path.name}: {number} of 3" for number in (1, 2, 3)
    ]
    caplog.clear()
    check_images(tmp_path, paths)  # noted
    assert not caplog.records


def test_a_fault_of_the_system_is_asked_for_again(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(WHOLE["PNG"])
    whole = Image.open

    def closed(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", closed)
    assert check_images(tmp_path, [path]).faults == {"a.png": "cannot be opened"}
    monkeypatch.setattr(Image, "open", whole)
    assert check_images(tmp_path, [path]).faults == {}
