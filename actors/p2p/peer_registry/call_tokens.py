# SPDX-License-Identifier: AGPL-3.0-or-later
"""A token that proves in one call that its caller knows the shared secret: for protocols without a hello of their own.

It is bound to both peer ids, so that it is of no use to anybody else, who has to prove another id to the secure
channel; to its time, so that it grows old; and it counts once. Text: base64url of version, time in
milliseconds, nonce and HMAC-SHA256.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import struct
from typing import Final

from actors.errors import ForbiddenError, RateLimitedError
from actors.p2p.peer_registry.shared_secret import SharedSecret

MOST_AGE_S: Final = 60.0
MOST_AHEAD_S: Final = 30.0
"""The caller's clock may be so much ahead."""
MOST_REMEMBERED: Final = 100_000
"""Tokens that were used in the last two minutes; when there are more, others are refused until some are too old."""
_PURPOSE: Final = "greenroom call token 1"
_VERSION: Final = 1
_HEAD: Final = struct.Struct(">BQ16s")
_MAC_BYTES: Final = 32
_BYTES: Final = _HEAD.size + _MAC_BYTES
_MS: Final = 1000.0
_TEXT_CHARS: Final = _BYTES // 3 * 4
"""The number of bytes is a multiple of 3: there is no padding, and no bit without a meaning."""
_KEPT_BYTES: Final = 16
"""Of a MAC, to know a token again."""


def make(secret: SharedSecret, caller: str, callee: str, now: float) -> str:
    """A token for one call of the peer `callee` by the peer `caller`; `now` in Unix seconds."""
    head = _HEAD.pack(_VERSION, int(now * _MS), secrets.token_bytes(16))
    return base64.urlsafe_b64encode(head + _mac(secret.key(_PURPOSE), caller, callee, head)).decode()


class Checker:
    """Checks the tokens of calls to one peer."""

    def __init__(self, secret: SharedSecret, me: str, now: float, *, most: int = MOST_REMEMBERED) -> None:
        """`now`: what was made before that is refused, since nobody remembers whether it was used."""
        self._key = secret.key(_PURPOSE)
        self._me = me
        self._since = now
        self._most = most
        self._used: dict[int, set[bytes]] = {}
        """Tokens by the minute in which they were made."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def check(self, token: str, caller: str, now: float) -> None:
        """See that this token was made for this call by one who knows the secret: the peer `caller`, as the secure
        channel proves it. It is used up. Raises `ForbiddenError`, or `RateLimitedError` when too many were used."""
        raw = _raw(token)
        head, mac = raw[: _HEAD.size], raw[_HEAD.size :]
        right = hmac.compare_digest(_mac(self._key, caller, self._me, head), mac)
        if not right or not raw:
            raise ForbiddenError(
                "the call's token does not prove the shared secret for this caller and this node; make one with the "
                "secret of this node (p2p.peer_registry.secret_file) for these two peer ids"
            )
        _, ms, _ = _HEAD.unpack(head)
        self._check_time(ms / _MS, now)
        self._forget_old(now)
        minute = int(ms / _MS // MOST_AGE_S)
        mark = mac[:_KEPT_BYTES]
        if mark in self._used.get(minute, ()):
            raise ForbiddenError("the call's token was used before; make a new one for every call", retryable=True)
        if self._count >= self._most:
            raise RateLimitedError(
                f"{self._count} calls with a token came within two minutes; try again in a minute",
                retry_after_s=MOST_AGE_S,
            )
        self._used.setdefault(minute, set()).add(mark)
        self._count += 1

    def _check_time(self, at: float, now: float) -> None:
        if at < now - MOST_AGE_S or at > now + MOST_AHEAD_S:
            raise ForbiddenError(
                f"the call's token was made {now - at:.0f} s ago by this node's clock; it counts for "
                f"{MOST_AGE_S:.0f} s, and both clocks have to be right",
                retryable=True,
            )
        if at < self._since:
            raise ForbiddenError("the call's token was made before this node started; make a new one", retryable=True)

    def _forget_old(self, now: float) -> None:
        first = int((now - MOST_AGE_S) // MOST_AGE_S)
        for minute in [minute for minute in self._used if minute < first]:
            self._count -= len(self._used.pop(minute))


def _mac(key: bytes, caller: str, callee: str, head: bytes) -> bytes:
    text = bytearray(head)
    for name in (caller, callee):
        encoded = name.encode()
        text += len(encoded).to_bytes(4, "big") + encoded
    return hmac.digest(key, text, hashlib.sha256)


def _raw(token: str) -> bytes:
    """The bytes of a token; none = it is none."""
    if len(token) != _TEXT_CHARS or not token.isascii():
        return b""
    try:
        raw = base64.urlsafe_b64decode(token)
    except binascii.Error:
        return b""
    return raw if len(raw) == _BYTES and raw[0] == _VERSION else b""
