# SPDX-License-Identifier: AGPL-3.0-or-later
"""Is it text, in which encoding, and of what form? From the first bytes of a file, without a library."""

from __future__ import annotations

import codecs
import csv
import re

import msgspec

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_MARKUP = re.compile(r"\s*<(!doctype html|html|head|body)\b", re.IGNORECASE)
_XML = re.compile(r"\s*<\?xml\b")
_SVG = re.compile(r"<svg\b")
_SCRIPT = re.compile(r"#!\s*\S*?(?:/env\s+(?:-S\s+)?)?([\w.]+)\s*(?:$|\s)")
_SCRIPTS = (("python", "text/x-python"), ("node", "text/javascript"), ("perl", "text/x-perl"), ("ruby", "text/x-ruby"))
_MIN_ROWS = 2


class TextGuess(msgspec.Struct, frozen=True):
    """Text, its encoding and its media type; `text/plain` when it has no form that we know."""

    encoding: str
    mime_type: str


def guess_text(head: bytes, *, whole: bool) -> TextGuess | None:
    """What text `head` begins; None when it is not text. `whole`: there is nothing after `head`."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            text = _decoded(head, encoding, whole=whole)
            break
    else:
        # A single-byte encoding fits any bytes, so without a mark only these two are believed.
        encoding = "us-ascii" if head.isascii() else "utf-8"
        text = _decoded(head, encoding, whole=whole)
    if text is None or _CONTROL.search(text):
        return None
    return TextGuess(encoding.removesuffix("-sig"), _form(text, whole=whole))


def _decoded(head: bytes, encoding: str, *, whole: bool) -> str | None:
    try:
        return codecs.getincrementaldecoder(encoding)().decode(head, whole)
    except UnicodeDecodeError:
        return None


def _form(text: str, *, whole: bool) -> str:
    if text.startswith("#!"):
        program = _SCRIPT.match(text)
        name = program[1] if program else ""
        return next((mime for start, mime in _SCRIPTS if name.startswith(start)), "text/x-shellscript")
    if _MARKUP.match(text):
        return "text/html"
    if _XML.match(text) or _SVG.match(text):
        return "image/svg+xml" if _SVG.search(text[:2000]) else "application/xml"
    lines = [line for line in text.splitlines() if line.strip()]
    if not whole:
        lines = lines[:-1]
    if text.lstrip()[:1] in ("{", "["):
        if whole and _is_json(text):
            return "application/json"
        if lines and all(_is_json(line) for line in lines[:20]):
            return "application/jsonl"
    return _table(lines) or "text/plain"


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _table(lines: list[str]) -> str | None:
    """A table has at least two rows, and in all of the first rows the same number of fields, more than one."""
    for delimiter, mime_type in (("\t", "text/tab-separated-values"), (",", "text/csv"), (";", "text/csv")):
        try:
            widths = {len(row) for row in csv.reader(lines[:50], delimiter=delimiter)}
        except csv.Error:
            continue
        if len(lines) >= _MIN_ROWS and len(widths) == 1 and widths.pop() > 1:
            return mime_type
    return None
