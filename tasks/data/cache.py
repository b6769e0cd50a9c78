"""Generated sets on disk: written once, whole or not at all, with a manifest."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.errors import DataError
from bench.hashing import canonical, digest, files_digest, hash_files
from tasks.data.locations import cache_folder

MANIFEST = "manifest.json"


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
    set. A set whose files no longer have the hashes of its manifest is written again.

    Args:
        name: of the generator.
        revision: of the generator; to be raised when its images change.
        knobs: what the set is a function of.
        write: fills an empty folder.
        root: folder of all generated sets; None for the cache folder.

    Raises:
        DataError: the folder cannot be written.
    """
    parent = (cache_folder() if root is None else Path(root)) / name
    identity = {"name": name, "revision": revision, "knobs": dict(knobs)}
    folder = parent / f"{knobs.get('task', name)}-{digest(identity)[:16]}"
    if whole(folder):
        return folder
    try:
        parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=parent))
    except OSError as error:
        raise DataError(
            f"`root` (={str(parent)!r}) must be a folder that can be written ({error}); "
            "the environment variable CONVBOARD_CACHE chooses another."
        ) from None
    try:
        write(partial)
        hashes = hash_files(partial, (p for p in partial.rglob("*") if p.is_file()))
        manifest = {**identity, "files_sha256": files_digest(hashes), "files": hashes}
        (partial / MANIFEST).write_text(canonical(manifest) + "\n", encoding="utf-8")
        partial.chmod(0o755)
        _move(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def whole(folder: Path) -> bool:
    """Say whether a folder holds exactly the files that its manifest lists, unchanged."""
    if not (folder / MANIFEST).is_file():
        return False
    try:
        expected = manifest(folder)["files"]
        found = [p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST]
        return bool(hash_files(folder, found) == expected)
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
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no manifest of a generated set ({error}).") from None
    if not isinstance(content, dict) or not {"name", "revision", "knobs", "files"} <= set(content):
        raise DataError(f"{path} must have name, revision, knobs and files.")
    return content


def _move(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError:
        # Either another process was quicker, and its set is as good, or what is there is damaged.
        if whole(folder):
            return
        aside = Path(tempfile.mkdtemp(prefix=".damaged-", dir=folder.parent))
        folder.rename(aside / folder.name)
        partial.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
