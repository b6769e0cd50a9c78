"""Exact forms of one computation: the fastest on the machine at hand is taken.

A module that is `Formed` names the forms in which it can compute its value. Which of them runs is
chosen for each problem by measuring (`bench.operators.choices`).

Nothing is measured unless it is asked for: by `bench.backbones.fuse(model, example)` and
`Operator.fuse(example)` for inference, by `fastest()` for what runs inside of it, such as a
training. Else the rule holds: the first form that a module names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.errors import require
from bench.operators.choices import Choices, by_channels, is_channels_last, problem

Compute = Callable[[Tensor], Tensor]

MOST_READY = 8
"""Shapes for which a module keeps what a form has prepared."""


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
        >>> from pathlib import Path
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

    def only(self, x: Tensor) -> Compute | None:
        """Return what computes inputs like `x` where there is nothing to choose, if that is so.

        It is asked at every call; what it returns keeps nothing of the weights.
        """
        return None

    def parts(self) -> Sequence[Formed]:
        """Return the modules inside of this one whose weights its forms prepare."""
        return ()

    def learnable(self, form: str) -> bool:
        """Whether gradients flow through a form."""
        return True

    def forward(self, x: Tensor) -> Tensor:
        """Compute the value in the form that was chosen, else by the rule."""
        only = self.only(x)
        if only is not None:
            return only(x)
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
        of = self._problem(type(self).__name__, x)
        form = self._chosen[x.shape, x.stride(), x.dtype] = choices.best(of, candidates)
        return form

    def reopen(self) -> None:
        """Leave no way past the module: a form is about to be chosen for another input."""

    def chosen(self, batch: int) -> list[str]:
        """Return the forms that were chosen for maps of a batch, of one shape or several."""
        return sorted({f for key, f in self._chosen.items() if key[0][0] == batch})

    def _problem(self, of: str, x: Tensor) -> dict[str, Any]:
        laid = {"weights": "by channels"} if any(map(by_channels, self.parameters())) else {}
        return problem(of, x, type(self), **laid, **self.described())

    def _rule(self, x: Tensor) -> str:
        able = self.forms(x)
        return self.form if self.form in able else able[0]

    def _form_for_learning(self, x: Tensor, key: _Key) -> str:
        """Return the form whose value and gradients take the least time together."""
        mine = (self, "learning", key)
        form = _active and _active.recalled(mine)
        if form:
            return form
        able = [form for form in self.forms(x) if self.learnable(form)]
        if _active is None or self.form in able or not x.numel():
            return self.form if self.form in able else able[0]
        candidates = {form: partial(self._gradient, form, x) for form in able}
        of = self._problem(f"{type(self).__name__}, training", x)
        return _active.best(of, candidates, mine)

    @torch.enable_grad()
    def _gradient(self, form: str, x: Tensor) -> list[Tensor]:
        x = x.detach().requires_grad_()
        weights = [p for p in self.parameters() if p.requires_grad]
        y = self.prepared(form, x)(x)
        found = torch.autograd.grad(y, [x, *weights], torch.ones_like(y), allow_unused=True)
        return [gradient for gradient in found if gradient is not None]

    def _learns(self, x: Tensor) -> bool:
        return x.requires_grad or any(p.requires_grad for p in self.parameters())

    def _learned(self) -> bool:
        """Whether an optimiser may change the weights: fused ones leave no trace of it."""
        mine = any(p is not None and p.requires_grad for p in self._parameters.values())
        return mine or any(part._learned() for part in self.parts())

    def _state(self) -> list[int]:
        """Return what changes with the weights, whoever changes them."""
        state = []
        for tensor in (*self._parameters.values(), *self._buffers.values()):
            if tensor is not None:
                state.append(tensor.data_ptr())
                if not tensor.is_inference():
                    state.append(tensor._version)
        for part in self.parts():
            state += part._state()
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
    formed = [module for module in model.modules() if isinstance(module, Formed)]
    for module in formed:
        module.reopen()
    handles = [
        module.register_forward_pre_hook(lambda module, args: met.append((module, args[0])))
        for module in formed
    ]
    model.requires_grad_(False)
    try:
        model(example)
    finally:
        for handle in handles:
            handle.remove()
    for module, x in reversed(met):  # what is inside of another is chosen before it
        if module.only(x) is None:
            module.choose(x, choices)
