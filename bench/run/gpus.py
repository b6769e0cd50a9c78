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
        return [name.strip() for name in named.split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


@contextmanager
def one_of(gpus: Sequence[str], folder: Path | None = None) -> Iterator[str | None]:
    """Take a GPU that no other worker has, and let this process see it alone.

    It must be taken before CUDA is used here. Where all are taken, as by more workers than there
    are GPUs, they are shared out evenly; of one GPU or none nothing is to choose.

    Args:
        gpus: to choose from.
        folder: of the locks, one for the machine; None for one in the folder of temporary files.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as name, one_of(["0", "1"], Path(name)) as first:
        ...     with one_of(["0", "1"], Path(name)) as second:
        ...         first, second
        ('0', '1')
    """
    if len(gpus) < 2:
        yield gpus[0] if gpus else None
        return
    before = os.environ.get(VISIBLE)
    place = folder or _place()
    with ExitStack() as held:
        os.environ[VISIBLE] = gpu = _least_taken(gpus, place, held)
        try:
            yield gpu
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
