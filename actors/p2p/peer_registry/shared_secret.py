# SPDX-License-Identifier: AGPL-3.0-or-later
"""The secret that nodes share: read from a file that its owner alone can read, compared without telling how much of
it was right, and never shown."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from actors.errors import UnavailableError

LEAST_BYTES: Final = 32
MOST_BYTES: Final = 4096
_MAKE_ONE: Final = "make one with: (umask 077; openssl rand -base64 48 > FILE), and copy it to the other nodes"


class SharedSecret:
    """The bytes, for those who prove that they know them."""

    def __init__(self, secret: bytes) -> None:
        """Raises `ValueError` for one that is too short."""
        if len(secret) < LEAST_BYTES:
            raise ValueError(f"a shared secret has at least {LEAST_BYTES} bytes")
        self._secret = secret
        self._blind = secrets.token_bytes(32)

    def __repr__(self) -> str:
        return "SharedSecret(***)"

    def key(self, purpose: str) -> bytes:
        """A key of 32 bytes for one purpose; who sees it learns nothing of the secret, nor of other keys."""
        return hmac.digest(self._secret, purpose.encode(), hashlib.sha256)

    def is_text(self, given: str) -> bool:
        """Whether this text, sent as it is, is the secret: for old protocols that have nothing better."""
        said = given.encode(errors="surrogatepass")
        # Both are hashed with a key that nobody knows, so that not even the length can be measured.
        return hmac.compare_digest(
            hmac.digest(self._blind, said, hashlib.sha256), hmac.digest(self._blind, self._secret, hashlib.sha256)
        )


def load_secret(path: Path) -> SharedSecret:
    """Read the secret; line ends behind it do not count. Blocks.

    Raises `UnavailableError` when there is none, others than this user could read or change it, or it is too short.
    """
    try:
        # A named pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _refusal(path, f"it can't be opened ({error.strerror}); {_MAKE_ONE}") from None
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise _refusal(path, f"it is no file; {_MAKE_ONE}")
        if about.st_uid != os.geteuid():
            raise _refusal(path, f"it belongs to user {about.st_uid}, not to {os.geteuid()}, who runs this: chown it")
        if about.st_mode & 0o077:
            raise _refusal(path, f"its mode is {stat.S_IMODE(about.st_mode):04o}, others may use it: chmod 600 {path}")
        read = os.read(descriptor, MOST_BYTES + 1)
    except OSError as error:
        raise _refusal(path, f"it can't be read ({error.strerror})") from None
    finally:
        os.close(descriptor)
    if len(read) > MOST_BYTES:
        raise _refusal(path, f"it has more than {MOST_BYTES} bytes; {_MAKE_ONE}")
    secret = read.rstrip(b"\r\n")
    if len(secret) < LEAST_BYTES:
        raise _refusal(path, f"it has {len(secret)} bytes, and {LEAST_BYTES} are needed; {_MAKE_ONE}")
    return SharedSecret(secret)


def _refusal(path: Path, why: str) -> UnavailableError:
    return UnavailableError(
        f"the shared secret {path} (p2p.peer_registry.secret_file) can't be used: {why}", path=str(path)
    )
