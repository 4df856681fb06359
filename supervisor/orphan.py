# SPDX-License-Identifier: AGPL-3.0-or-later
"""A child notices by itself that its root is gone, also when its own loop is blocked, and ends.

Not PR_SET_PDEATHSIG: that signal is tied to the thread that started the child, and trio's worker threads come and go.
"""

from __future__ import annotations

import os
import select
import threading

ROOT_PID = "GREENROOM_ROOT_PID"
"""Environment variable by which the root tells its process id to its children."""
EXIT_ORPHANED = 70


def watch_root() -> None:
    """End this process within milliseconds of the root's death, from now on.

    First the root is pinned by a pidfd, then it is checked to be the parent still: so no other process that gets its
    number later can be taken for it.
    """
    root = int(os.environ[ROOT_PID])
    try:
        pidfd = os.pidfd_open(root)
    except ProcessLookupError:
        os._exit(EXIT_ORPHANED)
    if os.getppid() != root:
        os._exit(EXIT_ORPHANED)
    threading.Thread(target=_end_with, args=(pidfd,), name="root-watch", daemon=True).start()


def _end_with(pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll()
    os._exit(EXIT_ORPHANED)
