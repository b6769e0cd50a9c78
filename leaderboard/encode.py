"""Data in scripts and archives: the same bytes for the same values, and nothing that acts."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup, escape


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


_SOURCE = re.compile(r"(?P<url>https://[\w./~%-]*[\w/])|arXiv (?P<paper>\d{4}\.\d{4,5})")


def linked(text: str) -> Markup:
    """Return a text in which https addresses and papers on arXiv are links; all else is text.

    Example:
        >>> print(linked("GRN <1>, arXiv 2301.00808, table 2"))
        GRN &lt;1&gt;, <a href="https://arxiv.org/abs/2301.00808">arXiv 2301.00808</a>, table 2
    """
    parts, end = [], 0
    for found in _SOURCE.finditer(text):
        address = found["url"] or f"https://arxiv.org/abs/{found['paper']}"
        link = Markup('<a href="{}">{}</a>').format(address, found[0])
        parts += [escape(text[end : found.start()]), link]
        end = found.end()
    return Markup("").join([*parts, escape(text[end:])])


def archive(files: Mapping[str, str], content: Callable[[str], bytes], old: bytes = b"") -> bytes:
    """Pack files without the time of packing, which would differ from build to build.

    Args:
        files: name → hash of what is in it, which is kept as its comment in the archive.
        content: gives what is in a file by its name.
        old: an archive made before: what it has of the same name and hash is taken as it is
            packed, since to pack ten thousand records anew takes seconds.
    """
    buffer, before = io.BytesIO(), _packed(old)
    with zipfile.ZipFile(buffer, "w") as archived:
        for name, sha256 in sorted(files.items()):
            if (name, sha256) in before:
                _take_over(archived, *before[name, sha256])
                continue
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            info.comment = sha256.encode()
            archived.writestr(info, content(name), zipfile.ZIP_DEFLATED, compresslevel=1)
    return buffer.getvalue()


def _packed(old: bytes) -> dict[tuple[str, str], tuple[zipfile.ZipInfo, bytes]]:
    """Return (name, hash) → what an archive says of a file, and the file as it is packed."""
    try:
        with zipfile.ZipFile(io.BytesIO(old)) as archived:
            infos = archived.infolist()
    except zipfile.BadZipFile:
        return {}
    packed = {}
    for info in infos:
        start = info.header_offset + len(info.FileHeader())
        data = old[start : start + info.compress_size]
        packed[info.filename, info.comment.decode(errors="replace")] = (info, data)
    return packed


def _take_over(archived: Any, info: zipfile.ZipInfo, data: bytes) -> None:
    """Write a file as it is packed; `zipfile` has no call for it, and keeps its books so."""
    info.header_offset = archived.fp.tell()
    archived.fp.write(info.FileHeader() + data)
    archived.start_dir = archived.fp.tell()
    archived.filelist.append(info)
    archived.NameToInfo[info.filename] = info
    archived._didModify = True
