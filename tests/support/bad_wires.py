# SPDX-License-Identifier: AGPL-3.0-or-later
"""Wires between the ports of a switch and machines: each has a TAP device at both ends, and delays and loses frames.

Usage: `bad_wires.py COUNT DELAY_MS LOSS_PERCENT SEED`. Makes the devices `pN` (for the switch) and `mN` (for machine N)
in its namespace, prints "ready", and carries frames until it is killed.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 2, 0x1000
_MOST_WAITING = 20_000


def tap(name: str) -> int:
    """A new TAP device."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return descriptor


def main() -> None:
    """Carry frames."""
    count, delay_s, loss, rng = (
        int(sys.argv[1]),
        float(sys.argv[2]) / 1000,
        float(sys.argv[3]) / 100,
        random.Random(sys.argv[4]),
    )
    others: dict[int, int] = {}
    for number in range(count):
        port, machine = tap(f"p{number}"), tap(f"m{number}")
        others |= {port: machine, machine: port}
    print("ready", flush=True)
    waiting: list[tuple[float, int, int, bytes]] = []
    last = dict.fromkeys(others, 0.0)
    order = 0
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for source in select.select(list(others), [], [], timeout)[0]:
            try:
                frame = os.read(source, 65536)
            except OSError:  # it is down
                continue
            if rng.random() < loss or len(waiting) >= _MOST_WAITING:
                continue
            # A wire keeps the order of its frames.
            due = last[source] = max(last[source], time.monotonic() + delay_s * rng.uniform(1, 1.5))
            order += 1
            heapq.heappush(waiting, (due, order, others[source], frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, target, frame = heapq.heappop(waiting)
            try:
                os.write(target, frame)
            except OSError:
                continue


main()
