"""Checkpoints that a run goes on from: whole, with the one before kept, and looked at first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from bench.whole_files import write_whole, writing

LAST = "last.ckpt"
BEFORE = "before-last.ckpt"
BEGUN = "begun.json"


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place, flushed and renamed; the one before it is kept.

    Lightning's own writes in the folder of temporary files and moves, which on another file system
    is a copy that a full disk or a kill cuts off.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint; whatever happens meanwhile, a whole one stays."""
        target = Path(path)
        with writing(target) as partial:
            torch.save(checkpoint, partial)
            if target.name == LAST and target.exists():
                target.replace(target.with_name(BEFORE))

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint, but not the last, which has just been written in its own place."""
        if Path(path).name != LAST:
            super().remove_checkpoint(path)


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """Return the newest checkpoint in a folder that can be read, and words about those that can't.

    What can't be read is removed, so that it is not met again.
    """
    words: list[str] = []
    for name in (LAST, BEFORE):
        path = folder / name
        if not path.exists():
            continue
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            if "state_dict" in state:
                return path, words
            fault = "it holds no state_dict"
        except Exception as error:  # what a damaged file raises depends on where it is damaged
            fault = type(error).__name__
        path.unlink(missing_ok=True)
        words.append(f"{name} could not be read ({fault}) and was left aside")
    return None, words


def begun_with(folder: Path, what: dict[str, str | None]) -> list[str]:
    """Note what a run is made with; what was begun with anything else starts afresh.

    Args:
        folder: of the run.
        what: name → hash of what is used; None where it is not known.

    Returns:
        Words about what was left aside.
    """
    path = folder / BEGUN
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = {}
    other = [name for name in what if name in before and before[name] != what[name]]
    words = []
    if other and any((folder / name).exists() for name in (LAST, BEFORE)):
        words = [f"what was begun with other {' and '.join(other)} was left aside"]
    if other:
        forget(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(what))
    return words


def forget(folder: Path) -> None:
    """Remove the checkpoints: the run starts afresh."""
    for name in (LAST, BEFORE):
        (folder / name).unlink(missing_ok=True)
