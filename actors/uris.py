# SPDX-License-Identifier: AGPL-3.0-or-later
"""URIs of resources, and templates for many of them: RFC 6570 with `{name}` (one piece of a path) and `{+name}` (the
rest of a path, slashes included). Pure functions and values.

A template is matched backwards: from the URI that a client asks for to the values of its variables, percent-decoded.
Matching takes time in proportion to the URI's length: a variable ends where what follows it in the template first
comes, and only one may hold slashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Final
from urllib.parse import unquote

MAX_URI_CHARS: Final = 2048
"""Longest URI that is declared, read or subscribed to. Ours."""

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s\x00-\x1f\x7f]*")
_ENDS_A_PIECE = re.compile(r"[/?#]")
_EXPRESSION = re.compile(r"\{(\+?)([A-Za-z_][A-Za-z0-9_]*)\}")


class UriError(ValueError):
    """This is no URI, or no template that is understood; for whoever wrote it."""


class UriTemplate:
    """One template, ready to be matched."""

    __slots__ = ("_literals", "_pivot", "_slashes", "literal_chars", "names", "text")

    def __init__(self, text: str) -> None:
        """Raises `UriError`."""
        parts = _EXPRESSION.split(text)
        self.text = text
        self.names: tuple[str, ...] = tuple(parts[2::3])
        self._literals = parts[0::3]
        self._slashes = [bool(plus) for plus in parts[1::3]]
        self.literal_chars = sum(map(len, self._literals))
        """The more of them, the more specific it is."""
        self._check()
        # The variables before it are matched from the left, those behind it from the right; it takes what remains.
        self._pivot = self._slashes.index(True) if True in self._slashes else len(self.names) - 1

    def _check(self) -> None:
        if any("{" in literal or "}" in literal for literal in self._literals):
            raise UriError("it may hold {name} and {+name} only")
        if len(set(self.names)) != len(self.names):
            raise UriError("a variable stands there twice")
        if not all(self._literals[1:-1]):
            raise UriError("two variables need something between them")
        if ":" not in self._literals[0]:
            raise UriError("it needs a scheme, as in notes://{name}")
        if sum(self._slashes) > 1:
            raise UriError("only one of its variables may be {+name}")
        check_uri("x".join(self._literals))

    def match(self, uri: str) -> dict[str, str] | None:
        """The variables' values in `uri`, decoded; None when it is not one of this template's."""
        literals = self._literals
        start, end = len(literals[0]), len(uri) - len(literals[-1])
        if start > end or not (uri.startswith(literals[0]) and uri.endswith(literals[-1])):
            return None
        values = [""] * len(self.names)
        for number in range(self._pivot):
            found = uri.find(literals[number + 1], start, end)
            if found < 0:
                return None
            values[number], start = uri[start:found], found + len(literals[number + 1])
        for number in range(len(values) - 1, self._pivot, -1):
            found = uri.rfind(literals[number], start, end)
            if found < 0:
                return None
            values[number], end = uri[found + len(literals[number]) : end], found
        if values:
            values[self._pivot] = uri[start:end]
        elif start != len(uri):
            return None
        return self._decoded(values)

    def _decoded(self, values: list[str]) -> dict[str, str] | None:
        for value, slashes in zip(values, self._slashes, strict=True):
            if not value or (not slashes and _ENDS_A_PIECE.search(value)):
                return None
        try:
            return {name: unquote(value, errors="strict") for name, value in zip(self.names, values, strict=True)}
        except UnicodeDecodeError:
            return None


def check_uri(uri: str) -> None:
    """Raise `UriError` unless this may be a resource's URI: it has a scheme, no blanks, and a bounded length."""
    if len(uri) > MAX_URI_CHARS:
        raise UriError(f"it has more than {MAX_URI_CHARS} characters")
    if not _URI.fullmatch(uri):
        raise UriError(f"{uri[:100]!r} is no URI: it needs a scheme, as in notes://today, and no blanks")


def is_template(text: str) -> bool:
    """Whether this is meant as a template."""
    return "{" in text or "}" in text


class ResourceTable:
    """Which of some resources a URI means: the one that has it, else that of the most specific template."""

    def __init__(self, uris: Iterable[str]) -> None:
        """`uris`: URIs and templates; those that are not understood are left out."""
        self._fixed: dict[str, int] = {}
        self._templates: list[tuple[UriTemplate, int]] = []
        for number, uri in enumerate(uris):
            if not is_template(uri):
                self._fixed.setdefault(uri, number)
                continue
            with suppress(UriError):
                self._templates.append((UriTemplate(uri), number))
        self._templates.sort(key=lambda entry: (-entry[0].literal_chars, entry[0].text))

    def find(self, uri: str) -> tuple[int, dict[str, str]] | None:
        """The number of the resource in the given order, and its variables; None when there is none."""
        number = self._fixed.get(uri)
        if number is not None:
            return number, {}
        if len(uri) > MAX_URI_CHARS:
            return None
        for template, number in self._templates:
            values = template.match(uri)
            if values is not None:
                return number, values
        return None
