# SPDX-License-Identifier: AGPL-3.0-or-later
"""Machines of their own, each a network namespace, behind one switch; their wires are slow, lose frames and can be cut.

The wires are a program of ours (`bad_wires.py`), since not every kernel has `tc netem`. All of it is made by the test
and ends with it; nothing outside of these namespaces is touched.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_WIRES = Path(__file__).with_name("bad_wires.py")
_TIMEOUT_S = 120


def why_not():
    """Why there can be none here; None = they can be made."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need iproute2's ip"
    if not Path("/dev/net/tun").exists():
        return "this kernel has no TAP devices"
    name = f"gr{os.getpid()}-try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespace can be made ({made.stderr.strip()[:100]})"
    try:
        found = subprocess.run(
            ["ip", "-n", name, "link", "add", "br0", "type", "bridge"], capture_output=True, text=True
        )
        return f"no bridge can be made ({found.stderr.strip()[:100]})" if found.returncode else None
    finally:
        _ip("netns", "del", name)


class Machine:
    """One namespace, and a thread that lives in it: what it does and starts is on that machine."""

    def __init__(self, network, number):
        self.name = f"{network.name}-{number}"
        self.address = f"10.77.0.{number + 1}"
        self.port = f"p{number}"
        """Of the switch."""
        self._switch = network.switch
        self._thread = ThreadPoolExecutor(1, initializer=self._enter)

    def _enter(self):
        descriptor = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            if _libc.setns(descriptor, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(descriptor)

    def do(self, what, *arguments, **named):
        """Have it done there."""
        return self._thread.submit(what, *arguments, **named).result(_TIMEOUT_S)

    def cut(self):
        """Nothing reaches it any more, nor comes from it."""
        _ip("-n", self._switch, "link", "set", self.port, "down")

    def heal(self):
        _ip("-n", self._switch, "link", "set", self.port, "up")

    def close(self):
        self._thread.shutdown()


class There:
    """An object of a machine: its methods run there."""

    def __init__(self, machine, made):
        self.machine = machine
        self._made = made

    def __getattr__(self, name):
        found = getattr(self._made, name)
        if not callable(found):
            return found
        return lambda *arguments, **named: self.machine.do(found, *arguments, **named)


class Network:
    """Their names."""

    def __init__(self):
        self.name = f"gr{os.getpid()}"
        self.switch = f"{self.name}-sw"


@contextmanager
def machines(count, *, delay_ms, loss_percent, seed):
    """So many machines on one switch. Each frame takes so long on each wire, up to half as much again, and some of
    them are lost."""
    network = Network()
    with ExitStack() as stack:
        for name in (network.switch, *(f"{network.name}-{number}" for number in range(count))):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
        _ip("-n", network.switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", network.switch, "link", "set", "br0", "up")
        command = [sys.executable, _WIRES, count, delay_ms, loss_percent, seed]
        wires = subprocess.Popen(
            ["ip", "netns", "exec", network.switch, *map(str, command)], stdout=subprocess.PIPE, text=True
        )
        stack.callback(_end, wires)
        assert wires.stdout.readline() == "ready\n"
        made = []
        for number in range(count):
            machine = Machine(network, number)
            stack.callback(machine.close)
            _ip("-n", network.switch, "link", "set", machine.port, "master", "br0", "up")
            _ip("-n", network.switch, "link", "set", f"m{number}", "netns", machine.name)
            _ip("-n", machine.name, "addr", "add", f"{machine.address}/24", "dev", f"m{number}")
            for device in ("lo", f"m{number}"):
                _ip("-n", machine.name, "link", "set", device, "up")
            made.append(machine)
        yield made


def _ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _end(process):
    process.kill()
    process.wait()
    process.stdout.close()
