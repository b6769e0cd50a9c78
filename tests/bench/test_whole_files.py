"""A file is there whole or not at all."""

import errno
import os
import stat
import subprocess
import sys
import time

import pytest

from bench.whole_files import write_whole


def test_text_and_bytes_are_written_as_they_are(tmp_path):
    for data, content in (("é\r\n\n", b"\xc3\xa9\r\n\n"), (b"\x00\xff", b"\x00\xff"), ("", b"")):
        write_whole(tmp_path / "a" / "b", data)
        assert (tmp_path / "a" / "b").read_bytes() == content
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_a_new_file_has_the_usual_mode(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("call", ["os.fsync", "Path.replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch, call, error):
    write_whole(tmp_path / "a", "before")

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(f"bench.whole_files.{call}", fail)
        with pytest.raises(type(error)):
            write_whole(tmp_path / "a", "after")
    assert (tmp_path / "a").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


KILLED = """
import sys
from pathlib import Path
from bench.whole_files import write_whole
print("ready", flush=True)
number = 0
while True:
    number += 1
    write_whole(Path(sys.argv[1]), f"{number % 10}" * 300_000)
"""


def test_a_writer_that_is_killed_leaves_a_whole_file(tmp_path):
    for attempt in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "a")], stdout=subprocess.PIPE
        )
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(0.1 + 0.03 * attempt)
        writer.kill()
        writer.communicate()
        content = (tmp_path / "a").read_text()
        assert len(content) == 300_000
        assert len(set(content)) == 1
