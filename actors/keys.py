# SPDX-License-Identifier: AGPL-3.0-or-later
"""Secret keys in the data directory: made on first use, readable by the user alone, the same for all processes."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

SESSION_KEY = "session.key"
"""Signs session ids, so that a session outlives the gateway that made it."""
DIGEST_KEY = "digest.key"
"""Keys the digests of arguments, so that nobody can guess short arguments from what is kept of a call."""
_KEY_BYTES = 32


def load_or_create_key(data_dir: Path, name: str) -> bytes:
    """The key of this name.

    Several processes may start at once: the file appears whole, by link, and the first one wins.
    """
    path = data_dir / name
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    draft = data_dir / f"{name}.{os.getpid()}"
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
