"""Exact forms of one computation: the fastest on the machine at hand is measured once, and kept.

A module that is `Formed` names the forms in which it can compute its value. Which of them runs is
chosen for each problem (shape, dtype, layout, threads, device, versions), as cuDNN's benchmark
mode does: by taking turns on the very input. The choice is kept in a file, so that the next
process does not measure again and computes the same, bit by bit.

Nothing is measured unless it is asked for: by `bench.backbones.fuse(model, example)` and
`Operator.fuse(example)` for inference, by `fastest()` for what runs inside of it, such as a
training. Else the rule holds: the first form that a module names.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import math
import os
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench import local
from bench.errors import require
from bench.hashing import canonical, digest
from bench.locks import Held, lock
from bench.whole_files import write_whole

Candidates = Mapping[str, Callable[[], Tensor]]
Compute = Callable[[Tensor], Tensor]

TURNS = 7
"""Turns that every form takes before one is chosen."""
TURN_MS = 0.5
"""The least time of a turn."""
HOPELESS = 3
"""A form so many times slower than another at its second call takes no turns."""
ALIKE = 0.02
"""Of forms whose times differ by less, the first that is named is taken."""
EQUAL = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""dtype → largest |a − b| / max |b| of two forms of one value."""
WAIT_S = 120.0
MOST_READY = 8
"""Shapes for which a module keeps what a form has prepared."""

_log = logging.getLogger(__name__)


def default_file() -> Path:
    """Return where choices are kept: forms.json in the user's cache."""
    try:
        return local.cache_folder() / "forms.json"
    except RuntimeError:  # no home: nothing is kept
        return Path(os.devnull) / "forms.json"


class Choices:
    """Which form is the fastest for which problem, kept in a file.

    The file may lie on another machine's disk, be edited or be gone: an entry that names no form
    of the problem counts as none, and a file that cannot be read or written costs time alone.

    Args:
        path: the file; by default `default_file()`.

    Attributes:
        taken: problem in words → form, of all that was asked for.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from time import sleep
        >>> with TemporaryDirectory() as folder:
        ...     choices = Choices(Path(folder) / "forms.json")
        ...     one = torch.ones(1)
        ...     slow = lambda: (sleep(0.02), one)[1]
        ...     choices.best({"of": "ones"}, {"slow": slow, "quick": lambda: one})
        'quick'
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or default_file()
        self._entries = self._read()
        self.taken: dict[str, str] = {}
        self._recalled: dict[Hashable, str] = {}
        self._measuring = self._told = False

    def best(self, problem: Mapping[str, Any], candidates: Candidates) -> str:
        """Return the name of the fastest candidate; measured now if the file does not know.

        Args:
            problem: what the times depend on beside the machine, as JSON.
            candidates: form → what computes the value in it, on the real input.
        """
        if len(candidates) == 1:
            return next(iter(candidates))
        form = quickest(self.times(problem, candidates))
        words = [problem["of"], "×".join(map(str, problem.get("shape", [])))]
        if "kernel" in problem:
            words.append("kernel " + "×".join(map(str, problem["kernel"])))
        self.taken[" ".join(filter(None, words))] = form
        return form

    def times(self, problem: Mapping[str, Any], candidates: Candidates) -> dict[str, float]:
        """Return candidate → ms of a call; measured now if the file does not know."""
        key = digest({**problem, "forms": list(candidates)})[:16]
        try:
            known = self._known(key, candidates)
            if known is None:
                with self._alone():
                    self._entries |= self._read()
                    known = self._known(key, candidates)
                    if known is None:
                        known = self._measure(key, problem, candidates)
                        write_whole(self.path, canonical(self._entries) + "\n")
        except (OSError, Held) as error:
            if not self._told:
                _log.warning("Choices of forms are not kept in %r: %s.", self.path.name, error)
                self._told = True
            known = self._known(key, candidates) or self._measure(key, problem, candidates)
        return known

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from measuring; what is measured may choose forms inside of it."""
        if self._measuring:
            yield
            return
        with lock(self.path.with_suffix(".lock"), wait_s=WAIT_S):
            self._measuring = True
            try:
                yield
            finally:
                self._measuring = False

    def recalled(self, key: Hashable) -> str | None:
        """Return the form that this process remembers for a key of its own, if it does."""
        return self._recalled.get((key, torch.get_num_threads()))

    def remember(self, key: Hashable, form: str) -> None:
        """Remember a form for as long as these choices live, so that calls need not describe."""
        self._recalled[key, torch.get_num_threads()] = form

    def _known(self, key: str, candidates: Candidates) -> dict[str, float] | None:
        """Return the times that are kept, if they are times of these candidates."""
        times = self._entries.get(key, {}).get("ms")
        if not isinstance(times, dict) or not times or not times.keys() <= candidates.keys():
            return None
        numbers = all(isinstance(ms, float | int) and 0 < ms < math.inf for ms in times.values())
        return {name: times[name] for name in candidates if name in times} if numbers else None

    def _measure(
        self, key: str, problem: Mapping[str, Any], candidates: Candidates
    ) -> dict[str, float]:
        times = {name: round(ms, 5) + 1e-9 for name, ms in race(candidates).items()}
        self._entries[key] = {"problem": dict(problem), "ms": times}
        return times

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            entries = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            _log.warning("The file of forms %r is not read: %s.", self.path.name, error)
            return {}
        if not isinstance(entries, dict):
            return {}
        return {key: entry for key, entry in entries.items() if isinstance(entry, dict)}


def quickest(times: Mapping[str, float]) -> str:
    """Return the name of the least time; of those that are alike, the first.

    Example:
        >>> quickest({"direct": 1.01, "padded": 1.0, "fft": 3.0})
        'direct'
    """
    least = min(times.values())
    return next(name for name, ms in times.items() if ms <= (1 + ALIKE) * least)


def race(candidates: Candidates) -> dict[str, float]:
    """Return the median ms of a call of each candidate, which take turns.

    A candidate whose value is not the first one's, or that raises where the first does not, is
    left out with a word: no form that is wrong is ever chosen.
    """
    times: dict[str, float] = {}
    calls: dict[str, Callable[[], Tensor]] = {}
    reference: Tensor | None = None
    for name, call in candidates.items():
        try:
            value = call()
            if reference is not None and not alike(value, reference):
                _log.warning("The form %r does not compute the value of the others.", name)
                continue
            reference = value if reference is None else reference
            times[name] = _ms(call, 1)
        except Exception as error:
            if reference is None:
                raise
            _log.warning("The form %r fails: %s: %s.", name, type(error).__name__, error)
            continue
        calls[name] = call
    least = min(times.values())
    hopeful = [name for name in calls if times[name] <= HOPELESS * least]
    lengths = {name: max(1, round(TURN_MS / max(times[name], 1e-4))) for name in hopeful}
    turns: dict[str, list[float]] = {name: [] for name in hopeful}
    for turn in range(TURNS):
        for name in hopeful if turn % 2 else reversed(hopeful):
            calls[name]()  # the caches are as this form leaves them
            turns[name].append(_ms(calls[name], lengths[name]))
    return times | {name: statistics.median(ms) for name, ms in turns.items()}


def alike(value: Tensor, reference: Tensor) -> bool:
    """Whether two forms computed one value, up to the rounding of their dtype."""
    if value.shape != reference.shape or value.dtype != reference.dtype:
        return False
    wide = reference.double()
    limit = EQUAL[reference.dtype] * float(wide.abs().max()) if wide.numel() else 0.0
    return not wide.numel() or float((value.double() - wide).abs().max()) <= limit


def _ms(call: Callable[[], Tensor], times: int) -> float:
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    start = time.perf_counter_ns()
    for _ in range(times):
        out = call()
    if out.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter_ns() - start) / 1e6 / times


def problem(of: str, x: Tensor, **more: Any) -> dict[str, Any]:
    """Return what the time of a computation on `x` depends on, the machine included, as JSON."""
    return {
        "of": of,
        "shape": list(x.shape),
        "layout": "channels_last" if is_channels_last(x) else "contiguous",
        "dtype": str(x.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        **_machine(x.device),
        **more,
    }


@cache
def _machine(device: torch.device) -> dict[str, Any]:
    versions = {"torch": str(torch.__version__)}
    with suppress(importlib.metadata.PackageNotFoundError):
        versions["numba"] = importlib.metadata.version("numba")
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), "versions": versions}
    level = torch.backends.cpu.get_cpu_capability()
    return {"device": f"{local.processor()}, {level}", "versions": versions}


def is_channels_last(x: Tensor) -> bool:
    """Whether a map lies channel by channel of a pixel, and not also plane by plane."""
    return (
        x.dim() == 4
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def like(y: Tensor, x: Tensor) -> Tensor:
    """Return y in the layout of x, so that a form never changes what follows it."""
    if is_channels_last(x):
        return y.contiguous(memory_format=torch.channels_last)
    return y.contiguous()


_Key = tuple[torch.Size, tuple[int, ...], torch.dtype]
"""What a choice holds for; what is prepared hangs on the weights too, and so on their device."""

_active: Choices | None = None


@contextmanager
def fastest(choices: Choices | None = None) -> Iterator[Choices]:
    """Let everything that is `Formed` choose its forms by measuring, gradients too, inside of it.

    Args:
        choices: where they are kept; by default those of `default_file()`.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from bench.operators import create
        >>> op = create("dwconv", in_channels=4, out_channels=4, kernel_size=7)
        >>> with TemporaryDirectory() as folder, fastest(Choices(Path(folder) / "forms.json")):
        ...     op(torch.rand(2, 4, 8, 8)).sum().backward()
    """
    global _active
    before, _active = _active, choices or Choices()
    try:
        yield _active
    finally:
        _active = before


def active() -> Choices | None:
    """Return the choices of the `fastest()` that this runs in, if it does."""
    return _active


@contextmanager
def asked() -> Iterator[Choices | None]:
    """Be in `fastest()`, unless the environment variable CONVBOARD_FORMS says "rule".

    Raises:
        UserError: it says something else.
    """
    word = os.environ.get("CONVBOARD_FORMS", "measured")
    require("CONVBOARD_FORMS", word, word in ("measured", "rule"), "'measured' or 'rule'")
    if word == "rule":
        yield None
        return
    with fastest() as choices:
        yield choices


_plain = False


@contextmanager
def plainly() -> Iterator[None]:
    """Let everything compute by the rule, and depthwise convolutions by torch's own calls alone."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def traced() -> bool:
    """Whether this runs for a compiler, an export or a count, which want torch's own calls."""
    return bool(
        _plain
        or torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or torch._C._len_torch_dispatch_stack()
    )


class _Ready(NamedTuple):
    """A form, and what it has prepared of the weights in a state."""

    form: str
    state: list[int]
    compute: Compute


class Formed(nn.Module):
    """A module that computes its value in one of several exact forms, chosen for each problem.

    A subclass names the forms that can compute an input, and prepares each. It gets from here:
    the choice, by `choose` or inside of `fastest()`; what a form has prepared of the weights,
    which is kept until they change, where nothing learns them; and the rule, the first form,
    wherever nothing was chosen, and for compilers, exports and counters of MACs. `form`, if it is
    not "auto", is the one that is taken wherever it can be.

    Example:
        >>> class Double(Formed):
        ...     def forms(self, x):
        ...         return ("sum", "product")
        ...     def prepared(self, form, x):
        ...         return (lambda x: x + x) if form == "sum" else (lambda x: 2 * x)
        >>> Double()(torch.ones(2))
        tensor([2., 2.])
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.form = "auto"
        self._chosen: dict[_Key, str] = {}
        self._ready: dict[_Key, _Ready] = {}

    def forms(self, x: Tensor) -> Sequence[str]:
        """Return the forms that can compute `x`, the rule's first."""
        raise NotImplementedError

    def prepared(self, form: str, x: Tensor) -> Compute:
        """Return what computes the value of inputs like `x` in a form.

        Whatever hangs on the weights alone is computed now, and kept. The first form must be
        differentiable, in the weights too.
        """
        raise NotImplementedError

    def described(self) -> dict[str, Any]:
        """Return what else the time depends on, as JSON: by default what the module prints."""
        return {"module": self.extra_repr()}

    def learnable(self, form: str) -> bool:
        """Whether gradients flow through a form."""
        return True

    def forward(self, x: Tensor) -> Tensor:
        """Compute the value in the form that was chosen, else by the rule."""
        if traced() or torch._C._is_any_autocast_enabled():
            return self.prepared(self._rule(x), x)(x)
        key = x.shape, x.stride(), x.dtype
        if torch.is_grad_enabled() and self._learns(x):
            return self.prepared(self._form_for_learning(x, key), x)(x)
        if self._learned():
            return self._prepare(x, key, []).compute(x)
        ready, state = self._ready.get(key), self._state()
        wanted = self._chosen.get(key)
        if ready is None or ready.state != state or wanted not in (None, ready.form):
            if len(self._ready) >= MOST_READY:
                self._ready.clear()
            ready = self._ready[key] = self._prepare(x, key, state)
        return ready.compute(x)

    def _prepare(self, x: Tensor, key: _Key, state: list[int]) -> _Ready:
        form = self._chosen.get(key)
        if form is None and _active is not None and self.form == "auto" and x.numel():
            form = self.choose(x, _active)
        form = form or self._rule(x)
        return _Ready(form, state, self.prepared(form, x))

    def choose(self, x: Tensor, choices: Choices) -> str:
        """Choose the form for inputs like `x`, and return it."""
        able = (self.form,) if self.form in self.forms(x) else self.forms(x)
        candidates = {form: partial(self.prepared(form, x), x) for form in able}
        of = problem(type(self).__name__, x, **self.described())
        form = self._chosen[x.shape, x.stride(), x.dtype] = choices.best(of, candidates)
        return form

    def chosen(self, batch: int) -> list[str]:
        """Return the forms that were chosen for maps of a batch, of one shape or several."""
        return sorted({f for key, f in self._chosen.items() if key[0][0] == batch})

    def _rule(self, x: Tensor) -> str:
        able = self.forms(x)
        return self.form if self.form in able else able[0]

    def _form_for_learning(self, x: Tensor, key: _Key) -> str:
        """Return the form whose value and gradients take the least time together."""
        mine = (id(self), "learning", key)
        form = _active and _active.recalled(mine)
        if form:
            return form
        able = [form for form in self.forms(x) if self.learnable(form)]
        if _active is None or self.form in able or not x.numel():
            return self.form if self.form in able else able[0]
        candidates = {form: partial(self._gradient, form, x) for form in able}
        of = problem(f"{type(self).__name__}, training", x, **self.described())
        form = _active.best(of, candidates)
        _active.remember(mine, form)
        return form

    @torch.enable_grad()
    def _gradient(self, form: str, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        weights = [p for p in self.parameters() if p.requires_grad]
        y = self.prepared(form, x)(x)
        return torch.autograd.grad(y, [x, *weights], torch.ones_like(y), allow_unused=True)[0]

    def _learns(self, x: Tensor) -> bool:
        return x.requires_grad or any(p.requires_grad for p in self.parameters())

    def _learned(self) -> bool:
        """Whether an optimiser may change the weights: fused ones leave no trace of it."""
        return any(p is not None and p.requires_grad for p in self._parameters.values())

    def _state(self) -> list[int]:
        """Return what changes with the weights, whoever changes them."""
        state = []
        for tensor in (*self._parameters.values(), *self._buffers.values()):
            if tensor is not None:
                state.append(tensor.data_ptr())
                if not tensor.is_inference():
                    state.append(tensor._version)
        return state

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is prepared: it is made anew of the weights."""
        return {**self.__dict__, "_ready": {}}


@torch.inference_mode()
def choose(model: nn.Module, example: Tensor, choices: Choices) -> None:
    """Choose the form of everything `Formed` in a model, for inputs like the example.

    The model is for inference then: its weights ask for no gradients any more.

    Args:
        model: in evaluation mode.
        example: an input, (N, C, H, W).
        choices: where they are kept.
    """
    met: list[tuple[Formed, Tensor]] = []
    handles = [
        module.register_forward_pre_hook(lambda module, args: met.append((module, args[0])))
        for module in model.modules()
        if isinstance(module, Formed)
    ]
    model.requires_grad_(False)
    try:
        model(example)
    finally:
        for handle in handles:
            handle.remove()
    for module, x in reversed(met):  # what is inside of another is chosen before it
        module.choose(x, choices)
