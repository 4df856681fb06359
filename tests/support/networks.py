# SPDX-License-Identifier: AGPL-3.0-or-later
"""Networks of their own for processes: each has an interface, and all of them are one cable."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import ExitStack, contextmanager

IMPOSSIBLE = "a network of its own needs root and Linux's ip, unshare and nsenter"


def possible():
    """Whether such networks can be made here."""
    if not all(shutil.which(tool) for tool in ("ip", "unshare", "nsenter")):
        return False
    return subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode == 0


class Network:
    """One of them."""

    def __init__(self, pid):
        self.inside = ("nsenter", f"--net=/proc/{pid}/ns/net")
        """Runs what follows in it."""
        self.pid = pid

    def run(self, *command):
        subprocess.run([*self.inside, *command], check=True, capture_output=True, timeout=10)


@contextmanager
def _network():
    # It lives as long as the process that has it.
    keeper = subprocess.Popen(
        ["unshare", "-n", "sh", "-c", "echo here; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert keeper.stdout.readline() == b"here\n"
        network = Network(keeper.pid)
        network.run("ip", "link", "set", "lo", "up")
        yield network
    finally:
        keeper.stdin.close()
        keeper.wait(10)
        keeper.stdout.close()


@contextmanager
def cable(first_ip, second_ip):
    """Two networks; each has one end of a cable, with that address (of /24)."""
    with ExitStack() as stack:
        ends = [stack.enter_context(_network()) for _ in range(2)]
        ends[0].run(
            *("ip", "link", "add", "cable", "type", "veth"),
            *("peer", "name", "cable", "netns", str(ends[1].pid)),
        )
        for end, ip in zip(ends, (first_ip, second_ip), strict=True):
            end.run("ip", "addr", "add", f"{ip}/24", "dev", "cable")
            end.run("ip", "link", "set", "cable", "up")
        yield ends
