"""A JSON file of lists of entries, each with an `id`: read, and checked field by field."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from bench.errors import DataError
from tasks.data.locations import shortened

OTHER_FORM = "number given in another form (text, true or false, or 7.0 for 7)"
INTEGERS = ("id", "image_id", "category_id", "height", "width", "iscrowd", "num_keypoints")
LISTS_OF_NUMBERS = ("bbox", "keypoints")
_DECIMAL = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")
_LENGTH = re.compile(r"^List should have (at \w+ \d+) items? after validation, not (\d+)")
SINGULAR = {"images": "image", "annotations": "annotation", "categories": "category"}


class _TwiceError(Exception):
    """A key that an object has twice."""


def read_entries(
    file: Path, models: Mapping[str, type[BaseModel]], repairs: Counter[str]
) -> dict[str, Sequence[Any]]:
    """Read the lists of a file.

    Args:
        file: of JSON.
        models: name of a list → what its entries must be; each has a field `id`.
        repairs: numbers that are given in another form are counted here.

    Raises:
        DataError: naming file, id, field, value and rule.
    """
    content = _load(file, models)
    lists: dict[str, Sequence[Any]] = {}
    for key, model in models.items():
        for entry in content[key]:
            if isinstance(entry, dict):
                _mend_numbers(entry, model.model_fields, repairs)
        try:
            lists[key] = TypeAdapter(list[model]).validate_python(content[key])  # type: ignore[valid-type]
        except ValidationError as error:
            raise DataError(_told(file, key, content[key], error)) from None
    _require_different(file, lists["annotations"])
    return lists


def _load(file: Path, keys: Mapping[str, Any]) -> dict[str, Any]:
    if not file.is_file():
        raise DataError(f"`annotations` (={str(file)!r}) is no file.")
    try:
        # Out of bytes: a byte-order mark, and UTF-16 as some shells write it, are told by these.
        content = json.loads(file.read_bytes(), object_pairs_hook=_unique)
    except _TwiceError as error:
        raise DataError(f"{file.name}: {error}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file.name} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{file.name} must be an object with {', '.join(keys)}.")
    for key in keys:
        if not isinstance(content.get(key), list):
            raise DataError(f"{file.name} has no list of `{key}`.")
    return content


def _mend_numbers(entry: dict[str, Any], read: Collection[str], repairs: Counter[str]) -> None:
    """Make numbers of what some tools write in their place: "7", 7.0, true; `[]` is no box.

    Only fields that are read are mended, and counted.
    """
    if entry.get("bbox") == []:
        entry["bbox"] = None
    for field in INTEGERS:
        if field in entry and field in read and type(entry[field]) is not int:
            value = _number(entry[field])
            truth = field == "iscrowd" and type(value) is bool
            if truth or (type(value) is float and value.is_integer()):
                value = int(value)
            if type(value) is int:
                entry[field] = value
                repairs[OTHER_FORM] += 1
    if isinstance(entry.get("area"), str):
        _replace(entry, "area", repairs)
    for field in LISTS_OF_NUMBERS:
        numbers = entry.get(field) if field in read else None
        if isinstance(numbers, list):
            for place, value in enumerate(numbers):
                if isinstance(value, str):
                    _replace(numbers, place, repairs)


def _replace(holder: Any, key: Any, repairs: Counter[str]) -> None:
    value = _number(holder[key])
    if type(value) in (int, float):
        holder[key] = value
        repairs[OTHER_FORM] += 1


def _number(value: Any) -> Any:
    """Return the number that a text is; any other value as it is."""
    if not isinstance(value, str) or not _DECIMAL.fullmatch(value.strip()):
        return value
    return float(value) if "." in value else int(value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object, whose keys must differ: Python's JSON takes the last one in silence."""
    entry = dict(pairs)
    if len(entry) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _TwiceError(f"the entry with `id` {shortened(entry.get('id'))} has `{twice}` twice")
    return entry


def _told(file: Path, key: str, entries: list[Any], error: ValidationError) -> str:
    """Return the message of the first fault."""
    faults = error.errors(include_url=False, include_context=False)
    index, *path = faults[0]["loc"]
    at = int(index)
    entry = entries[at]
    known = isinstance(entry, dict) and type(entry.get("id")) is int
    name = (
        f"{SINGULAR[key]} {shortened(entry['id'], 24)}" if known else f"entry {at + 1} of `{key}`"
    )
    if not path:
        return f"{name} in {file.name} (={shortened(entry)}) must be an object with fields."
    field = str(path[0])
    more = f" {len(faults)} fields are wrong." if len(faults) > 1 else ""
    if faults[0]["type"] == "missing":
        return f"{name} in {file.name} has no `{field}`.{more}"
    rule = faults[0]["msg"].removeprefix("Input should ").removeprefix("be ")
    rule = _LENGTH.sub(r"a list of \1 items, not of \2", rule)
    part = f", at place {int(path[1]) + 1}," if len(path) > 1 else ""
    return (
        f"{name} in {file.name}: `{field}` (={shortened(entry[field])}){part} must be {rule}.{more}"
    )


def _require_different(file: Path, annotations: Sequence[Any]) -> None:
    ids = set()
    for annotation in annotations:
        if annotation.id in ids:
            raise DataError(f"{file.name} has the annotation id {annotation.id} twice (`id`).")
        ids.add(annotation.id)
