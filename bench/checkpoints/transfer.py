"""The bookkeeping of a transfer: what was taken, what lacks, what is left, what does not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import Tensor

from bench.errors import UserError

# As many lines of one kind as a message shows; the error's attributes have all.
_SHOWN = 12


class CheckpointError(UserError):
    """A checkpoint does not fit; nothing was loaded.

    Attributes:
        missing: public keys that the module needs and the checkpoint lacks.
        unexpected: keys of the checkpoint that the module has no place for.
        shapes: public key → (shape in the checkpoint, shape that the module needs).
    """

    def __init__(
        self,
        missing: Sequence[str],
        unexpected: Sequence[str],
        shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
    ) -> None:
        self.missing, self.unexpected, self.shapes = list(missing), list(unexpected), dict(shapes)
        lines = ["the checkpoint does not fit, nothing was loaded:"]
        lines += _listed("missing", self.missing)
        lines += _listed("unexpected", self.unexpected)
        differences = [
            f"{key}: {public} in the checkpoint, {ours} here"
            for key, (public, ours) in shapes.items()
        ]
        lines += _listed("of another shape", differences)
        super().__init__("\n".join(lines))


def _listed(kind: str, entries: Sequence[str]) -> list[str]:
    lines = [f"  {kind}: {entry}" for entry in entries[:_SHOWN]]
    more = len(entries) - _SHOWN
    return [*lines, f"  {kind}: and {more} more"] if more > 0 else lines


@dataclass
class Transfer:
    """One state_dict on its way into a module.

    Attributes:
        public: the checkpoint.
        ours: the module's state_dict, for its keys and shapes.
        values: our key → what it gets.
    """

    public: dict[str, Tensor]
    ours: dict[str, Tensor]
    values: dict[str, Tensor] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    def take(self, key: str, shape: Sequence[int]) -> Tensor | None:
        """Return the public tensor `key` if it is there in this shape; note it if not."""
        if key not in self.public:
            self.missing.append(key)
            return None
        self.used.add(key)
        public_shape = tuple(self.public[key].shape)
        if public_shape != tuple(shape):
            self.shapes[key] = (public_shape, tuple(shape))
            return None
        return self.public[key]

    def finish(self, allow: Sequence[str]) -> dict[str, Tensor]:
        """Return the module's new state_dict; keys that match `allow` may miss or be left."""

        def allowed(key: str) -> bool:
            return any(fnmatchcase(key, pattern) for pattern in allow)

        missing = [key for key in self.missing if not allowed(key)]
        unexpected = [key for key in self.public if key not in self.used and not allowed(key)]
        if missing or unexpected or self.shapes:
            raise CheckpointError(missing, unexpected, self.shapes)
        return {**self.ours, **self.values}


@dataclass(frozen=True)
class Scope:
    """A place in both trees: prefixes of our keys and of the public ones, with their dots."""

    transfer: Transfer
    ours: str = ""
    public: str = ""

    def child(self, ours: str, public: str | None = None) -> Scope:
        """Go down; "" stays where it is."""
        public = ours if public is None else public
        return Scope(
            self.transfer,
            self.ours + (f"{ours}." if ours else ""),
            self.public + (f"{public}." if public else ""),
        )

    def parent(self) -> Scope:
        """Go up in the public tree only."""
        above = self.public.rstrip(".").rpartition(".")[0]
        return Scope(self.transfer, self.ours, f"{above}." if above else "")

    def has(self, start: str) -> bool:
        """Tell whether a public key starts so."""
        return any(key.startswith(self.public + start) for key in self.transfer.public)

    def move(
        self, ours: str, public: str | None = None, shape: Sequence[int] | None = None
    ) -> None:
        """Let our tensor be the public one; `shape` is the public shape where it is another."""
        our_shape = self.transfer.ours[self.ours + ours].shape
        key = self.public + (ours if public is None else public)
        value = self.transfer.take(key, our_shape if shape is None else shape)
        if value is not None:
            self.transfer.values[self.ours + ours] = value.reshape(our_shape)

    def set(self, ours: str, value: Tensor) -> None:
        """Let our tensor be `value`, which the caller made of public ones."""
        self.transfer.values[self.ours + ours] = value
