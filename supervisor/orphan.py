# SPDX-License-Identifier: AGPL-3.0-or-later
"""A child and all that it started end with their root, whatever they do: the kernel sees to it.

Each life has a pipe of its own, the lifeline: the root holds its writing end, the child its reading end. The reading
end asks for a signal when something happens on it (O_ASYNC, fcntl(2)), the signal is SIGKILL and goes to the child's
process group. Nobody writes any more by then, so what happens can only be that the writing end is closed: by the root,
or by the kernel after the root's death. No code of the child has to run for that, so it also ends a child that is
stopped, that blocks its signals, or that sits in a C call that keeps the interpreter's lock.

Not PR_SET_PDEATHSIG: that signal is tied to the thread that started the child, and trio's worker threads come and go.
Not killpg after the fact: the number of a group whose leader is reaped may belong to somebody else; the pipe refers to
the group itself.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal

ROOT_PID = "GREENROOM_ROOT_PID"
"""Environment variable that names the root of the tree that a process belongs to; for people who look at processes."""
LIFELINE = "GREENROOM_LIFELINE"
"""Environment variable by which a child learns which of its file descriptors is the lifeline."""
EXIT_ORPHANED = 70

_KEY_BYTES = 64


class Lifeline:
    """The root's part. `key` is the one thing that is ever sent: a secret for the child, before the guard is set."""

    def __init__(self, key: str) -> None:
        assert len(key) == _KEY_BYTES
        self.fd, self._write = os.pipe2(os.O_CLOEXEC)
        self._open = True
        os.write(self._write, key.encode())

    def tie(self, group: int) -> None:
        """From now on the process group `group` ends with this process."""
        _tie(self.fd, group)

    def cut(self) -> None:
        """End the group that is tied, also when its leader is dead and reaped. A second call does nothing."""
        if self._open:
            self._open = False
            os.close(self._write)

    def close(self) -> None:
        """Cut it and let go of it."""
        if self.fd >= 0:
            self.cut()
            os.close(self.fd)
            self.fd = -1


def tie_to_root() -> str:
    """The child's part, first of all: end with the root from now on, and return the key that the root sent.

    The root ties the child as well, but may die before it does. First tied, then asked: a death of the root before is
    seen by the question, one after it by the kernel. Raises KeyError when the process was not started by a root.
    """
    lifeline = int(os.environ.pop(LIFELINE))
    os.set_inheritable(lifeline, False)
    key = os.read(lifeline, _KEY_BYTES).decode()
    _tie(lifeline, os.getpid())
    poll = select.poll()
    poll.register(lifeline, 0)
    if poll.poll(0):
        os._exit(EXIT_ORPHANED)
    return key


def _tie(lifeline: int, group: int) -> None:
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -group)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
