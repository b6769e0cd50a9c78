"""Which sets there are: generated ones, with their knobs, and a user's own, in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError, near, require
from tasks.data.cache import manifest
from tasks.data.figures import figures
from tasks.data.holdout import drawn_split
from tasks.data.locations import existing_folder
from tasks.data.paths import paths
from tasks.data.scenes import scenes

GENERATORS: dict[str, Callable[..., Path]] = {
    "scenes": scenes,
    "paths": paths,
    "figures": figures,
}


def check_source(
    source: str, known: Iterable[str], root: str | None, options: Mapping[str, Any]
) -> None:
    """UserError unless the source is known and root and options are of use to it."""
    if source not in (names := tuple(known)):
        raise UserError(f"`source` (={source!r}) is not known; {near(str(source), names)}")
    if source not in GENERATORS:
        rule = f"the folder of the set for `source` (={source!r})"
        require("root", root, root is not None, rule)
        rule = f"empty for `source` (={source!r}): only generated sets have knobs"
        require("options", dict(options), not options, rule)
        return
    knobs = set(signature(GENERATORS[source]).parameters) - {"task", "root"}
    for knob in sorted(set(options) - knobs):
        raise UserError(f"`options` ({knob!r}) is no knob of {source}; {near(knob, knobs)}")


DRAWN = "image drawn into the validation split, which the set lacks"


class Divisible(Protocol):
    """A set, a dataclass, of which a part is one again; `skipped` says what was done to it."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def subset(self, indices: Sequence[int]) -> Self:
        """Return the set of some of the images."""


Whole = TypeVar("Whole", bound=Divisible)


def drawn(whole: Whole, strata: NDArray[np.int64], share: float) -> dict[str, Whole]:
    """Return a set without splits as "train" and "val", which is drawn alike of each stratum."""
    trained, scored = drawn_split(strata, share)
    val = replace(whole.subset(scored.tolist()), skipped={DRAWN: len(scored)})
    return {"train": whole.subset(trained.tolist()), "val": val}


def require_drawable(
    val_share: float | None, source: str, scored: str, drawable: Iterable[str]
) -> None:
    """UserError unless a share that is drawn to be scored is of use to the source."""
    if val_share is not None:
        names = tuple(drawable)
        rule = f"None for `source` (={source!r}): only sets of {', '.join(names)} may lack splits"
        require("val_share", val_share, source in names, rule)
        require("scored", scored, scored == "val", f"'val' with `val_share` (={val_share})")


def require_undivided(val_share: float, folder: Path, divided: bool) -> None:
    """UserError where a validation split would be drawn of a set that has one."""
    if divided:
        raise UserError(
            f"`val_share` (={val_share}) must be None: {folder} has a validation split."
        )


def folder_of(
    source: str, task: str, root: str | None, size: int, options: Mapping[str, Any]
) -> Path:
    """Return where a set lies; a generated one is written first, if it is not there."""
    if source not in GENERATORS:
        assert root is not None
        return existing_folder(root)
    generate = GENERATORS[source]
    if source == "scenes":
        generate = partial(generate, task)
    return generate(root=root, **{"size": size, **options})


def generated_identity(source: str, folder: Path) -> dict[str, Any]:
    """Return what a generated set is known by: the parts of `TaskData.identity`."""
    written = manifest(folder)
    return {
        "name": source,
        "revision": str(written["revision"]),
        "files_sha256": written["files_sha256"],
        "skipped": {},
        "options": dict(written["knobs"]),
    }
