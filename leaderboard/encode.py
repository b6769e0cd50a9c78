"""Data in scripts and archives: the same bytes for the same values, and nothing that acts."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable
from typing import Any

from markupsafe import Markup


def script_json(value: Any) -> Markup:
    r"""JSON that can stand in a script element: no `<`, `>`, `&` and no line separators.

    Example:
        >>> print(script_json({"a": "</script>"}))
        {"a":"\u003c/script\u003e"}
    """
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":  # what is not ASCII is escaped already, U+2028 too
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def archive(names: Iterable[str], content: Callable[[str], bytes]) -> bytes:
    """Pack files without the time of packing, which would differ from build to build."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for name in sorted(names):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(info, content(name))
    return buffer.getvalue()
