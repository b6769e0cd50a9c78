"""Generated sets on disk: written once, whole or not at all, with a manifest."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench import locks
from bench.errors import DataError
from bench.hashing import canonical, digest, files_digest, hash_files
from bench.whole_files import write_whole
from tasks.data.locations import cache_folders, spare_cache

MANIFEST = "manifest.json"
PARTIAL = ".partial-"
"""Beginning of the names of folders that are being written."""
DAMAGED = ".damaged-"
"""Of those that are being removed."""
OLD_S = 24 * 3600
"""Age at which such a folder without a lock, as older versions made them, is left over."""
KEYS = ("name", "revision", "knobs", "files", "files_sha256")


def cached(
    name: str,
    revision: str,
    knobs: Mapping[str, Any],
    write: Callable[[Path], None],
    root: Path | str | None = None,
) -> Path:
    """Return the folder of a generated set, and write it first if it is not there whole.

    The folder's name holds a hash of revision and knobs. `write` fills a folder beside it, which
    is renamed when all is written, so that neither a crash nor two processes at once leave half a
    set; what a process that was killed has left there goes at the next generation. A set whose
    files no longer have the hashes of its manifest is written again. Where the folder cannot be
    written the set lies in a temporary one for this run, and the log says so.

    Args:
        name: of the generator.
        revision: of the generator; to be raised when its images change.
        knobs: what the set is a function of.
        write: fills an empty folder.
        root: folder of all generated sets; None for the cache folder.

    Raises:
        DataError: not even a temporary folder can be written.
    """
    identity = {"name": name, "revision": revision, "knobs": dict(knobs)}
    place = Path(name) / f"{knobs.get('task', name)}-{digest(identity)[:16]}"
    first, *spares = cache_folders()
    first = first if root is None else Path(root)
    for folder in (first, *spares):
        if whole(folder / place):
            return folder / place
    try:
        return _written(first / place, identity, write)
    except OSError as error:
        spare = spare_cache(first, error)
    try:
        return _written(spare / place, identity, write)
    except OSError as error:
        raise DataError(
            f"`root` (={str(first)!r}) must be a folder that can be written, and so must the "
            f"temporary one in its place ({error}); the environment variable CONVBOARD_CACHE "
            "chooses another."
        ) from None


def _written(folder: Path, identity: dict[str, Any], write: Callable[[Path], None]) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    with _unfinished(folder.parent) as partial:
        write(partial)
        hashes = hash_files(partial, (p for p in partial.rglob("*") if p.is_file()))
        content = {**identity, "files_sha256": files_digest(hashes), "files": hashes}
        write_whole(partial / MANIFEST, canonical(content) + "\n")
        partial.chmod(0o755)
        _move(partial, folder)
    return folder


@contextmanager
def _unfinished(parent: Path) -> Iterator[Path]:
    """Give an empty folder, locked while it is written; what is left of it at the end goes."""
    partial = parent / f"{PARTIAL}{uuid.uuid4().hex}"
    lock = _lock_of(partial)
    with locks.lock(lock):  # before there is a folder: nobody ever sees it without its lock
        try:
            partial.mkdir()
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _sweep(parent: Path) -> None:
    """Remove what processes that were killed have left: its lock is free, or it is old."""
    for prefix in (PARTIAL, DAMAGED):
        for left in parent.glob(f"{prefix}*/"):
            lock = _lock_of(left)
            with suppress(OSError):  # somebody else sweeps too, or it is another user's
                age_s = time.time() - left.stat().st_mtime
                if not locks.held(lock) if lock.exists() else age_s > OLD_S:
                    shutil.rmtree(left, ignore_errors=True)
                    lock.unlink(missing_ok=True)


def _lock_of(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.lock")


def whole(folder: Path) -> bool:
    """Say whether a folder holds exactly the files that its manifest lists, unchanged."""
    try:
        listed = manifest(folder)["files"]
        files = [p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST]
        return bool(hash_files(folder, files) == listed)
    except (DataError, OSError):
        return False


def manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a generated set: name, revision, knobs, files_sha256, files.

    Raises:
        DataError: there is none, or it is not one.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no manifest of a generated set ({error}).") from None
    if not isinstance(content, dict) or not set(content) >= set(KEYS):
        raise DataError(f"{path} must have {', '.join(KEYS)}.")
    return content


def _move(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError:
        # Either another process was quicker, and its set is as good, or what is there is damaged.
        if whole(folder):
            return
        aside = Path(tempfile.mkdtemp(prefix=DAMAGED, dir=folder.parent))
        folder.rename(aside / folder.name)
        partial.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
