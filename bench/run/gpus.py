"""Several workers take different GPUs of a machine, also those of other commands."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bench import locks

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        names = [name.strip() for name in named.split(",") if name.strip()]
        return list(itertools.takewhile(lambda name: name != "-1", names))  # as CUDA reads it
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


@contextmanager
def taken(gpus: Sequence[str], count: int = 1, folder: Path | None = None) -> Iterator[list[str]]:
    """Take GPUs that no other worker has, and let this process see them alone.

    They must be taken before CUDA is used here. Where all are taken, as by more workers than there
    are GPUs, they are shared out evenly; of one GPU or none nothing is to choose.

    Args:
        gpus: to choose from.
        count: how many are taken; all where there are no more.
        folder: of the locks, one for the machine; None for one in the folder of temporary files.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as name, taken(["0", "1", "2"], 2, Path(name)) as first:
        ...     with taken(["0", "1", "2"], 1, Path(name)) as second:
        ...         first, second
        (['0', '1'], ['2'])
    """
    if len(gpus) < 2:
        yield list(gpus)
        return
    before = os.environ.get(VISIBLE)
    place = folder or _place()
    with ExitStack() as held:
        mine: list[str] = []
        for _ in range(min(count, len(gpus))):
            left = [gpu for gpu in gpus if gpu not in mine]
            mine.append(_least_taken(left, place, held))
        mine.sort(key=list(gpus).index)
        os.environ[VISIBLE] = ",".join(mine)
        try:
            yield mine
        finally:
            _restore(before)


def _least_taken(gpus: Sequence[str], place: Path, held: ExitStack) -> str:
    """Return a GPU that as few as possible have, and lock it in that rank until `held` closes."""
    for rank in itertools.count(1):
        for gpu in gpus:
            name = gpu if rank == 1 else f"{gpu}-{rank}"
            with suppress(locks.Held):
                held.enter_context(locks.lock(place / f"{name}.lock", everybodys=True))
                return gpu
    raise AssertionError


def _place() -> Path:
    """Return the folder of the machine's locks; one of this user alone where that is closed."""
    shared = Path(tempfile.gettempdir()) / "convboard-gpus"
    shared.mkdir(exist_ok=True)
    with suppress(PermissionError):  # whoever made it opens it to everybody
        shared.chmod(0o777)
    free = os.access(shared, os.W_OK) and all(os.access(f, os.W_OK) for f in shared.iterdir())
    return shared if free else shared.with_name(f"convboard-gpus-{os.getuid()}")


def _restore(before: str | None) -> None:
    if before is None:
        os.environ.pop(VISIBLE, None)
    else:
        os.environ[VISIBLE] = before
