# SPDX-License-Identifier: AGPL-3.0-or-later
"""The secret that nodes share: read from a file that its owner alone can read, used by keys that are made of it, and
never shown."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from pathlib import Path
from typing import Final

from actors.errors import UnavailableError

LEAST_BYTES: Final = 32
MOST_BYTES: Final = 4096
_SETTING: Final = "p2p.peer_registry.secret_file"
_TEXT_SETTING: Final = "p2p.peer_registry.queue_protocol.secret_file"
_MAKE_ONE: Final = "make one with: (umask 077; openssl rand -base64 48 > FILE), and copy it to the other nodes"


class SharedSecret:
    """The bytes, for those who prove that they know them."""

    def __init__(self, secret: bytes) -> None:
        """Raises `ValueError` for one that is too short."""
        if len(secret) < LEAST_BYTES:
            raise ValueError(f"a shared secret has at least {LEAST_BYTES} bytes")
        self._secret = secret

    def __repr__(self) -> str:
        return "SharedSecret(***)"

    def key(self, purpose: str) -> bytes:
        """A key of 32 bytes for one purpose; who sees it learns nothing of the secret, nor of other keys."""
        return hmac.digest(self._secret, purpose.encode(), hashlib.sha256)


def load_secret(path: Path) -> SharedSecret:
    """Read the secret that nodes share; line ends behind it do not count. Blocks.

    Raises `UnavailableError` when there is none, others than this user could read or change it, or it is too short.
    """
    secret = _read(path, _SETTING)
    if len(secret) < LEAST_BYTES:
        why = f"it has {len(secret)} bytes, and {LEAST_BYTES} are needed; {_MAKE_ONE}"
        raise _refusal(path, _SETTING, why)
    return SharedSecret(secret)


def load_text(path: Path) -> str:
    """Read a secret that is sent as it is (`p2p.peer_registry.queue_protocol.secret_file`), in the same way. Others
    have chosen it: it may be short."""
    secret = _read(path, _TEXT_SETTING)
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        raise _refusal(path, _TEXT_SETTING, "it is no UTF-8") from None
    if not text:
        raise _refusal(path, _TEXT_SETTING, "it is empty")
    return text


def _read(path: Path, setting: str) -> bytes:
    try:
        # A named pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _refusal(path, setting, f"it can't be opened ({error.strerror}); {_MAKE_ONE}") from None
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise _refusal(path, setting, f"it is no file; {_MAKE_ONE}")
        if about.st_uid != os.geteuid():
            raise _refusal(
                path, setting, f"it belongs to user {about.st_uid}, not to {os.geteuid()}, who runs this: chown it"
            )
        if about.st_mode & 0o077:
            raise _refusal(
                path, setting, f"its mode is {stat.S_IMODE(about.st_mode):04o}, others may use it: chmod 600 {path}"
            )
        read = os.read(descriptor, MOST_BYTES + 1)
    except OSError as error:
        raise _refusal(path, setting, f"it can't be read ({error.strerror})") from None
    finally:
        os.close(descriptor)
    if len(read) > MOST_BYTES:
        raise _refusal(path, setting, f"it has more than {MOST_BYTES} bytes; {_MAKE_ONE}")
    return read.rstrip(b"\r\n")


def _refusal(path: Path, setting: str, why: str) -> UnavailableError:
    return UnavailableError(f"the shared secret {path} ({setting}) can't be used: {why}", path=str(path))
