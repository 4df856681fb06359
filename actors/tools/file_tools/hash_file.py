# SPDX-License-Identifier: AGPL-3.0-or-later
"""`hash_file`: the digest of a file of any size."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from actors.toolkit import ToolContext, tool

_BLOCK = 1024 * 1024

Algorithm = Literal["sha256", "sha512", "sha3-256", "blake2b", "sha1", "md5"]


class Digest(msgspec.Struct, frozen=True, kw_only=True):
    """What `hash_file` answers."""

    path: str
    algorithm: str
    digest: str
    """Hexadecimal, lower case."""
    bytes: int


@tool(read_only=True, idempotent=True, open_world=False, timeout=600)
def hash_file(ctx: ToolContext, path: str, algorithm: Algorithm = "sha256") -> Digest:
    """Compute the digest of a file.

    Args:
        path: Path below the configured roots; relative to the home folder `files/`.
        algorithm: Hash function; sha1 and md5 only to compare with old lists, they protect from nothing.
    """
    place = ctx.files.existing_file(path)
    digest = hashlib.new(algorithm.replace("-", "_"), usedforsecurity=False)
    size, done = place.stat().st_size, 0
    with place.open("rb") as file:
        while block := file.read(_BLOCK):
            ctx.check_cancelled()
            digest.update(block)
            done += len(block)
            ctx.progress(done, max(size, done), "bytes")
    return Digest(path=ctx.files.shown(place), algorithm=algorithm, digest=digest.hexdigest(), bytes=done)
