"""A job on a machine of a cluster: placed there by Ray or SLURM, run there as on this one."""

from __future__ import annotations

import os
import pickle
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Generic, Self

from bench import __version__
from bench.config import trust
from bench.local import PLUGINS
from bench.run.code import all_sha256
from bench.run.executor import Event, Job
from bench.run.processes import LocalProcesses
from bench.store import STUDIES, server

_SAME = ("CONVBOARD_TRUST", "CONVBOARD_FORMS", trust.NAMED, PLUGINS, STUDIES)
"""Variables that must say the same on all machines, beside those of the tracking server."""
_SERVER = "MLFLOW_TRACKING_"
_DATA = "CONVBOARD_DATA"
"""Where a machine has the data: its own variable counts, if it has one."""


def surroundings() -> dict[str, str]:
    """Return the variables of this process that a job elsewhere needs."""
    names = [name for name in os.environ if name.startswith(_SERVER) or name in (*_SAME, _DATA)]
    variables = {name: os.environ[name] for name in names}
    if server() is None:
        variables.pop("MLFLOW_TRACKING_URI", None)  # left there by MLflow: see `bench.store`
    return variables


def surround(variables: Mapping[str, str]) -> None:
    """Set the variables of another process in this one, which may have others of its own."""
    for name in [name for name in os.environ if name.startswith(_SERVER) or name in _SAME]:
        del os.environ[name]
    os.environ.update({n: value for n, value in variables.items() if n != _DATA})
    if _DATA in variables:
        os.environ.setdefault(_DATA, variables[_DATA])


@dataclass(frozen=True)
class Sealed:
    """A function that is unpickled where it is called: its imports are made in that process alone.

    Example:
        >>> Sealed.of(str.upper)("a")
        'A'
    """

    content: bytes

    @classmethod
    def of(cls, function: Callable[[Any], Any]) -> Self:
        """Seal a function."""
        return cls(pickle.dumps(function))

    def __call__(self, job: Any) -> Any:
        """Call the function."""
        return pickle.loads(self.content)(job)


@dataclass(frozen=True)
class OnNode(Generic[Job]):
    """A function of a job, where it has been placed: in a fresh process with a time limit.

    So a death, a hang or an exception is told as on this machine; what is left to the engine is the
    loss of a whole machine.

    Attributes:
        function: of the job; see `Sealed`.
        timeout_s: see `LocalProcesses`.
        threads: torch's.
        variables: see `surroundings`.
    """

    function: Callable[[Job], Any]
    timeout_s: float
    threads: int
    variables: Mapping[str, str]

    def __call__(self, job: Job) -> Iterator[Event[Job]]:
        """Yield what becomes of the job."""
        surround(self.variables)
        yield from LocalProcesses(1, self.timeout_s, self.threads).run(self.function, [job])


@dataclass(frozen=True)
class Expected:
    """What every machine must have.

    Attributes:
        code: hash of the package.
        mark: a file in the runs folder; None where a server keeps the runs.
        server: its address.
        variables: see `surroundings`.
    """

    code: str
    mark: Path | None
    server: str | None
    variables: Mapping[str, str]

    def fault(self) -> str | None:
        """Say what this machine lacks; None where nothing."""
        surround(self.variables)
        if all_sha256() != self.code:
            return f"it has other code of convboard (this is {__version__}); install the same"
        if self.mark is not None and not self.mark.exists():
            return (
                "it does not see the runs folder; put --runs on a file system that all machines "
                "share, or name a server by MLFLOW_TRACKING_URI"
            )
        if self.server is not None and not answers(self.server):
            return "it does not reach the server that MLFLOW_TRACKING_URI names"
        data = os.environ.get(_DATA)
        if data is not None and not Path(data).is_dir():
            return f"it has no folder {Path(data).name}/ of data; set {_DATA} there"
        return None


@contextmanager
def expected(folder: Path) -> Iterator[Expected]:
    """Give what every machine must have, while a mark lies in the runs folder."""
    address = server()
    if address is not None:
        yield Expected(all_sha256(), None, address, surroundings())
        return
    folder.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=folder, prefix=".seen-by-all-") as mark:
        yield Expected(all_sha256(), Path(mark.name), None, surroundings())


def answers(address: str) -> bool:
    """Whether a server answers over HTTP; an address of another kind is not asked."""
    if not address.startswith("http"):
        return True
    try:
        urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=10).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
