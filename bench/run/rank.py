"""One rank of a cell: `python -m bench.run.rank FOLDER`, started by torchrun."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from bench.config.cell import Cell
from bench.record import Data
from bench.run.cell import WAIT_S, train
from bench.run.fit import fit
from bench.run.processes import end_with_parent
from bench.run.ranks import JOB, RESULT, note_failure
from bench.run.suite import hush
from bench.store import Store
from bench.whole_files import write_whole


def main(work: Path) -> None:
    """Do what the job says: rank 0 keeps what comes of it."""
    end_with_parent()
    hush()
    job = json.loads((work / JOB).read_text(encoding="utf-8"))
    cell = Cell.model_validate(job["cell"])
    if rank := int(os.environ["RANK"]):
        try:
            fit(cell.config, work)
        except Exception as error:
            note_failure(work, rank, error)
            raise
        return
    store = Store(Path(job["folder"]), wait_s=WAIT_S)
    data = Data.model_validate(job["data"]) if job["data"] else None
    record, notes = train(cell, store, work, job["command"], job["run_id"], data)
    outcome = {"record": record.model_dump(mode="json"), "notes": notes}
    write_whole(work / RESULT, json.dumps(outcome))
    if record.status != "ok":
        os._exit(1)  # the others wait for this one in a collective call: they end with it


if __name__ == "__main__":
    main(Path(sys.argv[1]))
