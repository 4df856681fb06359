# SPDX-License-Identifier: AGPL-3.0-or-later
"""`file_detect`: what a file is, by its content first and its name last."""

from __future__ import annotations

import mimetypes
from pathlib import Path

import msgspec

from actors.toolkit import ToolContext, UnavailableError, tool
from actors.tools.file_tools._text import TextGuess, guess_text

_SAMPLE = 256 * 1024
_LIKELY = 0.5
_GUESSES = ("", "text/plain", "application/octet-stream")


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the content may be, by its signature."""

    mime_type: str
    extension: str
    description: str
    confidence: float
    """0 to 1, as the signature's library rates it."""


class FileKind(msgspec.Struct, frozen=True, kw_only=True):
    """What `file_detect` answers."""

    path: str
    bytes: int
    mime_type: str
    method: str
    """What told: `signature`, `text`, `name`, `empty`, or `none` when nothing did."""
    is_text: bool
    encoding: str | None
    """Of text."""
    extension_fits: bool | None
    """Whether the file's name goes with its content; None when the name says nothing."""
    candidates: list[Candidate]
    """By signature, best first."""


@tool(read_only=True, idempotent=True, open_world=False)
def file_detect(ctx: ToolContext, path: str) -> FileKind:
    """Tell what kind of file it is from its content: signatures of known formats, then the form of text, then its name.

    Args:
        path: Path below the configured roots; relative to the home folder `files/`.
    """
    place = ctx.files.existing_file(path)
    size = place.stat().st_size
    with place.open("rb") as file:
        head = file.read(_SAMPLE)
    text = guess_text(head, whole=len(head) == size) if head else None
    candidates = _by_signature(place) if head else []
    named = mimetypes.guess_type(place.name)[0]
    mime_type, method = _decide(candidates, text, named, empty=not head)
    return FileKind(
        path=ctx.files.shown(place),
        bytes=size,
        mime_type=mime_type,
        method=method,
        is_text=text is not None,
        encoding=text.encoding if text is not None else None,
        extension_fits=_fits(place, mime_type, candidates) if method in ("signature", "text") and named else None,
        candidates=candidates[:5],
    )


def _decide(candidates: list[Candidate], text: TextGuess | None, named: str | None, *, empty: bool) -> tuple[str, str]:
    if empty:
        return "application/x-empty", "empty"
    # Text that has a form of its own is surer than a short signature that happens to match its first letters.
    if text is not None and text.mime_type != "text/plain":
        return text.mime_type, "text"
    if candidates and (text is None or candidates[0].confidence > _LIKELY):
        return candidates[0].mime_type, "signature"
    if text is not None:
        return (named, "name") if named and named.startswith("text/") else ("text/plain", "text")
    return (named, "name") if named else ("application/octet-stream", "none")


def _by_signature(place: Path) -> list[Candidate]:
    try:
        import puremagic
    except ImportError as error:
        raise UnavailableError("file_detect needs the Python package puremagic") from error
    try:
        found = puremagic.magic_file(str(place))
    except (puremagic.PureError, ValueError):
        return []
    return [
        Candidate(
            mime_type=one.mime_type,
            extension=one.extension,
            description=one.name,
            confidence=float(one.confidence),
        )
        for one in sorted(found, key=lambda one: -one.confidence)
        # Newer versions of the library guess when they know no signature.
        if one.mime_type not in _GUESSES
    ]


def _fits(place: Path, mime_type: str, candidates: list[Candidate]) -> bool:
    suffix = place.suffix.lower()
    known = {one.extension.lower() for one in candidates if one.mime_type == mime_type}
    return suffix in known or mimetypes.guess_type(place.name)[0] == mime_type
