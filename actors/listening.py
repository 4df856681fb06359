# SPDX-License-Identifier: AGPL-3.0-or-later
"""Accepting connections in a process that may have run out of files: it waits until there are some again."""

from __future__ import annotations

import errno
from typing import Final

import trio

OUT_OF_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What `accept` says when the process or the machine can't open one more. The connection stays in the backlog."""
AGAIN_S: Final = 0.1


async def accept(listener: trio.SocketListener) -> trio.SocketStream:
    """The next connection. A tool that uses up its process's files must not cost it its socket."""
    while True:
        try:
            return await listener.accept()
        except OSError as error:
            if error.errno not in OUT_OF_FILES:
                raise
        await trio.sleep(AGAIN_S)
