"""Compact letter display: arms that share a letter cannot be told apart."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from string import ascii_letters


def letters(order: Sequence[str], apart: Collection[tuple[str, str]]) -> dict[str, str]:
    """Return the letters of each arm, by insertion and absorption (Piepho 2004).

    Two arms share a letter if and only if they are not told apart. Each pair that is apart splits
    every group that holds both; groups inside others go. `a` is the group of the first arm.

    Args:
        order: arms, the best first.
        apart: pairs of arms that are told apart, in either order.

    Example:
        >>> letters(["x", "y", "z"], {("x", "z")})
        {'x': 'a', 'y': 'ab', 'z': 'b'}
        >>> letters(["x", "y"], set())
        {'x': 'a', 'y': 'a'}
    """
    place = {arm: index for index, arm in enumerate(order)}
    groups = [frozenset(order)]
    for one, other in sorted(apart, key=lambda pair: (place[pair[0]], place[pair[1]])):
        split = [
            part
            for group in groups
            for part in ([group - {one}, group - {other}] if {one, other} <= group else [group])
        ]
        groups = [g for g in dict.fromkeys(split) if not any(g < larger for larger in split)]
    groups.sort(key=lambda group: sorted(place[arm] for arm in group))
    names = [_name(index) for index in range(len(groups))]
    between = "" if len(groups) <= len(ascii_letters) else " "
    return {
        arm: between.join(n for n, group in zip(names, groups, strict=True) if arm in group)
        for arm in order
    }


def _name(index: int) -> str:
    """Return a, b, … z, A, … Z, a1, b1 and so on."""
    again, letter = divmod(index, len(ascii_letters))
    return ascii_letters[letter] + (str(again) if again else "")
