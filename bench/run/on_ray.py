"""Ray, in one place: it places jobs on the machines of a cluster, and again where one is lost."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.errors import Failure, UserError
from bench.run import gpus
from bench.run.executor import Event, Job, Needs, one_device
from bench.run.node import Expected, OnNode, Sealed, expected, surroundings
from bench.run.processes import require_devices

RETRIES = 5
"""How often a job is placed anew when its machine is lost."""
_LOOK_S = 120
"""How long a machine may take to join the cluster, and to say that it is ready."""
_POLL_S = 1.0
_CANCEL_S = 60


class OnRay:
    """Runs jobs on a Ray cluster that is there already.

    Each is a task of Ray's, which takes cores and GPUs of one node and runs the job in a fresh
    process there. A node that is lost costs its jobs the time since their last checkpoint: Ray
    places them anew.

    Args:
        timeout_s: see `LocalProcesses`.
        address: host:port of the cluster's head; None for $RAY_ADDRESS, else one on this machine.
        cpus: cores for each device of a job.
        gpus: GPUs for each device of a job, less than 1 to share one; None for 1 where there are
            any.
        workers: jobs at a time at most; None for as many as find room.

    Raises:
        UserError: Ray is not installed, or the address is none.
        Failure: no cluster answers.
    """

    def __init__(
        self,
        timeout_s: float,
        address: str | None = None,
        cpus: int = 1,
        gpus: float | None = None,
        workers: int | None = None,
    ) -> None:
        self.ray = connected(address)
        self.timeout_s, self.cpus, self.share, self.most = timeout_s, cpus, gpus, workers

    @property
    def workers(self) -> int:
        """Jobs of one device that find room at a time, and are let in."""
        room = sum(self._room(node) for node in self._nodes())
        return max(1, room if self.most is None else min(room, self.most))

    def _joined(self) -> list[dict[str, Any]]:
        """Return the nodes, when one that computes has joined: a head may be there before them."""
        until = time.monotonic() + _LOOK_S
        while True:
            nodes = self._nodes()
            if any(_size(node)[0] for node in nodes) or time.monotonic() > until:
                return nodes
            time.sleep(_POLL_S)

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def _room(self, node: dict[str, Any]) -> int:
        """Return how many jobs of one device a node takes at a time."""
        cores, graphics = _size(node)
        room = int(cores // self.cpus)
        share = self.share if self.share is not None else float(self._have_gpus())
        return min(room, int(graphics / share)) if share else room

    def _have_gpus(self) -> bool:
        return any(_size(node)[1] for node in self._nodes())

    def require_ready(self, folder: Path, needs: Needs) -> None:
        """Say before any work what is missing: room for a job, code, store or data on a node.

        Raises:
            UserError: a job finds room on no node, or a node lacks something.
        """
        if self.share and self.share % 1 and needs.devices > 1:
            rule = "a whole number where a cell takes several devices"
            raise UserError(f"`gpus` (={self.share:g}) must be {rule}.")
        nodes = self._joined()
        on_gpus = not needs.cpu and any(_size(node)[1] for node in nodes)
        sizes = sorted(map(_size, nodes), key=lambda size: size[on_gpus], reverse=True)
        refusals = [self._refusal(needs, *size) for size in sizes if size[1] or not on_gpus]
        if all(refusals):
            raise UserError(refusals[0])
        with expected(folder) as wanted:
            for node, words in self._faults([n for n in nodes if self._room(n)], wanted):
                raise UserError(f"the Ray node {node} is of no use: {words}.")

    def _refusal(self, needs: Needs, cores: float, graphics: float) -> str:
        """Say why a job finds no room on a node of this size; nothing where it does."""
        try:
            require_devices(needs, int(graphics), int(cores), "the largest node")
        except UserError as error:
            return str(error)
        if needs.devices * self.cpus > cores:
            rule = f"at most {cores / needs.devices:g} for each device; the largest node has so few"
            return f"`cpus` (={self.cpus}) must be {rule}."
        if self.share and not needs.cpu and needs.devices * self.share > graphics:
            return f"`gpus` (={self.share:g}) must be at most {graphics:g}, as on a node."
        return ""

    def _faults(self, nodes: list[dict[str, Any]], wanted: Expected) -> Iterator[tuple[str, str]]:
        """Yield the address of each node that lacks something, and what."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        look = self.ray.remote(num_cpus=0, max_retries=0)(Expected.fault)
        asked = [
            look.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(wanted)
            for node in nodes
        ]
        for node, answer in zip(nodes, asked, strict=True):
            try:
                words = self.ray.get(answer, timeout=_LOOK_S)
            except self.ray.exceptions.GetTimeoutError:
                words = f"it has not answered within {_LOOK_S} s"
            except self.ray.exceptions.RayError as error:
                words = f"convboard does not start there ({_last_line(error)})"
            if words is not None:
                yield node["NodeManagerAddress"], words

    def run(
        self,
        function: Callable[[Job], Any],
        jobs: Sequence[Job],
        needs: Callable[[Job], Needs] = one_device,
    ) -> Iterator[Event[Job]]:
        """Yield events as they come; see `Executor`."""
        waiting = deque(jobs)
        running: dict[Any, Job] = {}
        have_gpus = self._have_gpus()
        variables = surroundings()
        try:
            while waiting or running:
                while waiting and (self.most is None or len(running) < self.most):
                    job = waiting.popleft()
                    stream = self._start(function, job, needs(job), have_gpus, variables)
                    running[stream] = job
                ready, _ = self.ray.wait(list(running), num_returns=1)
                for stream in ready:
                    event = self._event(stream, running[stream])
                    if event.kind != "started":
                        del running[stream]
                    yield event
        finally:
            self._cancel(list(running))

    def _start(
        self,
        function: Callable[[Job], Any],
        job: Job,
        needs: Needs,
        have_gpus: bool,
        variables: dict[str, str],
    ) -> Any:
        """Hand a job to Ray; return the stream of its events."""
        cpus = needs.devices * self.cpus
        share = self.share if self.share is not None else float(have_gpus)
        if needs.cpu or not share:
            share, variables = 0.0, {**variables, gpus.VISIBLE: ""}
        task = self.ray.remote(
            num_cpus=cpus,
            num_gpus=needs.devices * share,
            max_retries=RETRIES,
            num_returns="streaming",
        )(_events)
        return task.remote(OnNode(Sealed.of(function), self.timeout_s, cpus, variables), job)

    def _event(self, stream: Any, job: Job) -> Event[Job]:
        """Return what has come of a job."""
        try:
            event: Event[Job] = self.ray.get(next(stream))
        except StopIteration:
            return Event("died", job, "its task ended without a result")
        except self.ray.exceptions.RayError as error:
            return Event("died", job, f"its node or its task was lost: {_last_line(error)}")
        return replace(event, job=job)

    def _cancel(self, streams: list[Any]) -> None:
        """Cancel tasks, and wait until they are over: their processes end with them."""
        for stream in streams:
            self.ray.cancel(stream, force=False)
        ended = [stream.completed() for stream in streams]
        if ended:
            self.ray.wait(ended, num_returns=len(ended), timeout=_CANCEL_S)


def _events(work: OnNode[Job], job: Job) -> Iterator[Event[Job]]:
    """Run a job in a task of Ray's."""
    yield from work(job)


def connected(address: str | None) -> Any:
    """Return Ray's package, connected to a cluster.

    Raises:
        UserError: Ray is not installed, or the address is none.
        Failure: no cluster answers.
    """
    try:
        import ray
    except ImportError:
        raise UserError("`--executor` (='ray') needs Ray: pip install 'convboard[ray]'.") from None
    if ray.is_initialized():
        return ray
    named = address or os.environ.get("RAY_ADDRESS") or "auto"
    if named != "auto":
        _require_answer(named)
    try:
        ray.init(
            address=named,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except (ConnectionError, RuntimeError) as error:
        raise Failure(
            f"no Ray cluster answers ({_last_line(error)}); start one with `ray start --head`, or "
            "name one by --address HOST:PORT."
        ) from error
    return ray


def _require_answer(address: str) -> None:
    """Refuse an address that is none, and one where nobody listens: Ray tries it for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "/" in host:
        raise UserError(f"`--address` (={address!r}) must read HOST:PORT, as `ray start` says it.")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise Failure(
            f"`--address` (={address!r}): no Ray cluster answers there ({error.strerror or error})."
        ) from None


def _size(node: dict[str, Any]) -> tuple[float, float]:
    """Return a node's cores and GPUs."""
    return node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
