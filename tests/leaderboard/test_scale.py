"""Many records: all are grouped and shown on light pages; how long it takes is printed."""

import copy
import random
import runpy
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.hashing import digest
from leaderboard.board import boards
from leaderboard.site import parts

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py"))))
COUNT = 10_000


def moved(record, host):
    """The record on another host, as it would be had it run there: another result than this."""
    changes = {
        "entry": record.entry.model_copy(update={"host": host}),
        "identity": digest([record.identity, host]),
    }
    if record.recipe:
        config = copy.deepcopy(record.recipe.config)
        config["model"]["init_args"]["backbone"]["init_args"]["host"] = host
        changes["recipe"] = record.recipe.model_copy(update={"config": config})
    return record.model_copy(update=changes)


@pytest.mark.slow
def test_ten_thousand_records_are_grouped():
    times = -(-COUNT // len(make.ORIGINALS))
    records = [moved(r, f"host{copy}") for copy in range(times) for r in make.ORIGINALS][:COUNT]
    random.Random(0).shuffle(records)
    wall, cpu = time.perf_counter(), time.process_time()
    every = boards(records)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    rows = [row for board in every for row in board.rows]
    print(f"{COUNT} records, {len(every)} boards: {wall:.2f} s, {cpu:.2f} s of this process")
    of_rows = [(*r.records, *r.superseded, *r.speeds, *r.views) for r in rows]
    held = {id(record) for of_row in of_rows for record in of_row}
    assert len(held) > 0.98 * COUNT  # the last host is cut off: times without scores


@pytest.mark.slow
def test_a_thousand_records_are_a_light_site():
    times = -(-1000 // len(make.ORIGINALS))
    records = [moved(r, f"host{copy}") for copy in range(times) for r in make.ORIGINALS][:1000]
    named = {record.filename: record for record in records}
    files = {}
    every = parts(named, title="ConvBoard", figures=(), pictures={})
    for part in every:
        files |= part.make(files.__getitem__)
    assert len({part.name for part in every}) == len(every)
    pages = [name for name in files if name.endswith(".html")]
    assert sum(name.startswith("records/") for name in files) == len(named)
    count = sum(name.startswith("boards/") for name in pages)
    assert count > 20
    assert len(files["index.html"]) < 30_000 + 1_000 * count  # ten thousand have 340 boards
    assert max(len(files[name]) for name in pages) < 400_000
    assert all(b"<svg" not in files[name] for name in ("index.html", "compare.html"))
