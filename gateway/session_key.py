# SPDX-License-Identifier: AGPL-3.0-or-later
"""The key that signs session ids. It lies in the data directory, so that a session outlives the gateway that made
it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

_FILE = "session.key"
_KEY_BYTES = 32


def load_or_create_session_key(data_dir: Path) -> bytes:
    """The key of this data directory; made on first use, readable by the user alone.

    Several gateways may start at once: the file appears whole, by link, and the first one wins.
    """
    path = data_dir / _FILE
    draft = data_dir / f"{_FILE}.{os.getpid()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(_KEY_BYTES))
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_bytes()
