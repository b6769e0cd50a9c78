"""What a broken store says: one error in words, nothing beside it."""

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

from bench.store import Store
from bench.store.errors import StoreError


def test_a_full_disk_is_told_once(tmp_path, capfd):
    store = Store(tmp_path / "runs")
    run = store.client.create_run(store.client.create_experiment("full"))

    def limit(connection, *_):
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")

    def fill():
        for step in range(2000):
            store.client.log_metric(run.info.run_id, "loss", 0.5, step=step)

    event.listen(Pool, "checkout", limit)
    try:
        with pytest.raises(StoreError, match="the disk is full"):
            fill()
    finally:
        event.remove(Pool, "checkout", limit)
    assert "Traceback" not in capfd.readouterr().err
