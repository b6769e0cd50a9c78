"""Selections: which of a host's slots get the operator, by keys that hold for every host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from bench.backbones.slots import Slot
from bench.errors import DoesNotFit, UserError, near, require
from bench.operators.base import pair


def _integers(key: str, value: Any, minimum: int) -> list[int]:
    numbers = [value] if isinstance(value, int) else value
    if (
        not isinstance(numbers, Sequence)
        or isinstance(numbers, str)
        or any(isinstance(n, bool) or not isinstance(n, int) or n < minimum for n in numbers)
    ):
        raise UserError(f"`where.{key}` (={value!r}) must be integers >= {minimum}.")
    return list(numbers)


def _by_stages(slots: list[Slot], value: Any) -> list[Slot]:
    """One or more stage numbers: 0 is up to stride 2, 1 to 4 are strides 4, 8, 16 and 32."""
    wanted, there = set(_integers("stages", value, 0)), {slot.stage for slot in slots}
    if not wanted <= there:
        raise DoesNotFit(
            f"`where.stages` (={value!r}) must be stages that have slots: {sorted(there)} "
            "(0: up to stride 2, then 1 to 4: strides 4, 8, 16, 32)."
        )
    return [slot for slot in slots if slot.stage in wanted]


def _by_names(slots: list[Slot], value: Any) -> list[Slot]:
    """One or more shell patterns (`*`, `?`, `[...]`) over the slots' full names."""
    patterns = [value] if isinstance(value, str) else value
    if not isinstance(patterns, Sequence) or any(not isinstance(p, str) for p in patterns):
        raise UserError(
            f"`where.names` (={value!r}) must be a pattern such as 'layer3.*', or a list of them."
        )
    for pattern in patterns:
        if not any(fnmatchcase(slot.name, pattern) for slot in slots):
            raise DoesNotFit(
                f"`where.names` (={pattern!r}) must match the name of a slot; "
                + near(pattern, [slot.name for slot in slots])
            )
    return [slot for slot in slots if any(fnmatchcase(slot.name, p) for p in patterns)]


def _by_kernel_size(slots: list[Slot], value: Any) -> list[Slot]:
    """One or more sizes K, or [[Kh, Kw], ...]."""
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    wanted = {pair("where.kernel_size", size, 1) for size in values}
    there = sorted({slot.spec.kernel_size for slot in slots})
    if not wanted & set(there):
        raise DoesNotFit(f"`where.kernel_size` (={value!r}) must be among the slots': {there}.")
    return [slot for slot in slots if slot.spec.kernel_size in wanted]


def _by_depthwise(slots: list[Slot], value: Any) -> list[Slot]:
    """True or false: whether the slot's convolution is depthwise."""
    if not isinstance(value, bool):
        raise UserError(f"`where.depthwise` (={value!r}) must be true or false.")
    return [slot for slot in slots if slot.spec.depthwise is value]


def _by_indices(slots: list[Slot], value: Any) -> list[Slot]:
    """Positions among those selected so far, from 0."""
    wanted = set(_integers("indices", value, 0))
    if any(index >= len(slots) for index in wanted):
        raise DoesNotFit(
            f"`where.indices` (={value!r}) must be below the number of slots that the other keys "
            f"select (={len(slots)})."
        )
    return [slot for index, slot in enumerate(slots) if index in wanted]


def _by_every(slots: list[Slot], value: Any) -> list[Slot]:
    """N takes the first of those selected so far, and every n-th after it."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"`where.every` (={value!r}) must be an integer >= 1.")
    return slots[::value]


# In the order in which they narrow the selection, whatever their order in `where`.
_KEYS: dict[str, Callable[[list[Slot], Any], list[Slot]]] = {
    "stages": _by_stages,
    "names": _by_names,
    "kernel_size": _by_kernel_size,
    "depthwise": _by_depthwise,
    "indices": _by_indices,
    "every": _by_every,
}


def keys() -> dict[str, str]:
    """Return what `where` may say, in the order in which the keys narrow: key → meaning.

    Example:
        >>> list(keys())
        ['stages', 'names', 'kernel_size', 'depthwise', 'indices', 'every']
    """
    return {key: (narrow.__doc__ or "") for key, narrow in _KEYS.items()}


def select(slots: list[Slot], where: Mapping[str, Any] | None) -> list[Slot]:
    """Narrow `slots` by the keys of `where`; the result does not depend on the operator.

    Args:
        slots: as `find_slots` gives them.
        where: None for all, or any of the keys that `keys` lists, which narrow in that order.

    Raises:
        UserError: an unknown key, or a value of the wrong type.
        DoesNotFit: a value that selects nothing in this host.

    Example:
        >>> import timm
        >>> from bench.backbones.slots import find_slots
        >>> slots = find_slots(timm.create_model("test_convnext"), input_size=(64, 64))
        >>> [slot.name for slot in select(slots, {"stages": 3, "kernel_size": 7, "every": 2})]
        ['stages.2.blocks.0.conv_dw', 'stages.2.blocks.2.conv_dw']
    """
    where = {} if where is None else where
    require("where", where, isinstance(where, Mapping), f"a mapping of {', '.join(_KEYS)}")
    for key in where:
        if key not in _KEYS:
            raise UserError(f"`where` (={dict(where)!r}) has no key {key!r}; {near(key, _KEYS)}")
    for key, narrow in _KEYS.items():
        if where.get(key) is not None:
            slots = narrow(slots, where[key])
    if where and not slots:
        raise DoesNotFit(f"`where` (={dict(where)!r}) selects no slot: no slot has all its keys.")
    return slots
