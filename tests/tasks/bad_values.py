"""What a field of an annotation may hold instead of what it should, in every format."""

import json
import math

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings

from bench.errors import DataError

anything = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

MISSING, TWICE = object(), object()

JSON = {
    "null": None,
    "text": "seven",
    "empty text": "",
    "digits as text": "7",
    "list": [1, 2],
    "empty list": [],
    "object": {"a": 1},
    "true": True,
    "false": False,
    "nan": math.nan,
    "infinite": math.inf,
    "negative": -3,
    "negative part": -0.5,
    "huge": 1e30,
    "huge integer": 10**400,
    "large": 10**7,
    "missing": MISSING,
    "twice": TWICE,
}

TEXT = {
    "null": "null",
    "text": "seven",
    "empty": "",
    "spaces": "  ",
    "list": "[1; 2]",
    "true": "True",
    "nan": "nan",
    "infinite": "inf",
    "negative": "-3",
    "part": "0.5",
    "huge": "1e300",
    "huge integer": "1" + "0" * 400,
    "very long": "9" * 5000,
    "large": "10000000",
    "escapes": "\x1b[31m",
}

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)


def changed(entry, field, value):
    """Return an entry as JSON text, a field of which is changed, missing, or there twice."""
    pairs = [(k, v) for k, v in entry.items() if k != field]
    if value is TWICE:
        pairs += [(field, entry[field]), (field, entry[field])]
    elif value is not MISSING:
        pairs.append((field, value))
    return "{" + ", ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in pairs) + "}"


def outcome(read, *arguments, **options):
    """Return what a reader returns, or the message of its error; nothing else may be raised."""
    try:
        return read(*arguments, **options), ""
    except DataError as error:
        return None, str(error)
