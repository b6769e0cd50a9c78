"""What is said of an operator's family: one YAML file each, read with a safe loader."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

FOLDER = Path(__file__).parent / "operators"
OTHER = 8
"""Colour of the operators of other people, which have no file here."""


class Taps(BaseModel):
    """A kernel as a drawing: '#' a tap, '+' a weak one, 'o' the pixel itself, '.' none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    caption: str
    rows: list[str]


class Family(BaseModel):
    """A family of operators, for its page."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    colour: int = Field(ge=0, le=8)
    idea: str
    formula: str
    cost: str
    taps: list[Taps] = []
    papers: list[str] = []


@cache
def families() -> Mapping[str, Family]:
    """Return operator → its family.

    Example:
        >>> families()["acb"].colour
        4
    """
    return {
        path.stem: Family.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        for path in sorted(FOLDER.glob("*.yaml"))
    }


def colour(operator: str) -> int:
    """Return the number of an operator's colour."""
    family = families().get(operator)
    return family.colour if family else OTHER
