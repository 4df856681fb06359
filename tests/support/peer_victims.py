# SPDX-License-Identifier: AGPL-3.0-or-later
"""Victims and attackers: see `peer_victim.py` for what a victim is.

An attacker is a host in this process whose connections can be written to below libp2p's rules.
"""

from __future__ import annotations

import multiprocessing
import struct
from contextlib import asynccontextmanager
from multiprocessing import forkserver
from pathlib import Path

import peer_victim
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from peer_victim import ECHO

from actors.p2p.identity import peer_id
from actors.p2p.peer_registry.host import open_host
from actors.p2p.peer_registry.host_rules import HostRules

DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
MORE_MEMORY_MIB = 30
"""That a victim may have more of after an attack: what its allocator keeps."""
_SETTLE_S = 8
_PATIENCE_S = 20

_processes = multiprocessing.get_context("forkserver")


def _prepare():
    """Start the process that victims are forked from. It finds its modules by its environment only."""
    _processes.set_forkserver_preload(["peer_preload"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        forkserver.ensure_running()


class Victim:
    """One victim process."""

    def __init__(self, process, pipe, errors):
        self.process = process
        self.errors = errors
        self._pipe = pipe
        self.peer_id = ""
        self.addresses = []
        self.stranger = peer_id(Ed25519PrivateKey.generate())
        """The id of a peer that nobody is."""

    @property
    def address(self):
        return self.addresses[0]

    async def ask(self, *command):
        """The answer to a command. Raises EOFError when the process has ended."""
        try:
            self._pipe.send(command)
        except OSError:
            raise EOFError from None
        fine, answer = await self.hear()
        assert fine, answer
        return answer

    async def hear(self):
        with trio.fail_after(_PATIENCE_S):
            await trio.lowlevel.wait_readable(self._pipe.fileno())
        try:
            return self._pipe.recv()
        except ConnectionError:
            raise EOFError from None

    async def lives(self):
        """Whether it answers."""
        try:
            await self.ask("counters")
        except EOFError:
            return False
        return True

    async def survives(self, within_s):
        """Whether it still answers after this time. Returns as soon as it has ended."""
        with trio.move_on_after(within_s):
            await trio.lowlevel.wait_readable(self.process.sentinel)
        return await self.lives()

    async def settled(self, start):
        """Wait until its counters are what they were at the start. Raises AssertionError that says what is left."""
        by = trio.current_time() + _SETTLE_S
        while left := _more(start, now := await self.ask("counters")):
            assert trio.current_time() < by, f"{left} more than at the start: {now}"
            await trio.sleep(0.1)


def _more(start, now):
    more = {name: now[name] - start[name] for name in start if now[name] > start[name]}
    if more.get("memory", 0) <= MORE_MEMORY_MIB:
        more.pop("memory", None)
    return more


@asynccontextmanager
async def victim(tmp_path, *, without=(), numbers=None, **rules):
    """A victim; it is killed in the end."""
    _prepare()
    numbers = {"handlers.GRACE_S": 0.3, **(numbers or {})}
    ours, theirs = _processes.Pipe()
    errors = tmp_path / f"errors-{id(ours)}"
    process = _processes.Process(target=peer_victim.main, args=(theirs, rules, without, numbers, str(errors)))
    process.start()
    theirs.close()
    try:
        made = Victim(process, ours, errors)
        made.peer_id, made.addresses = await made.hear()
        yield made
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()


@asynccontextmanager
async def peer(key=None):
    """A host in this process that only dials."""
    async with open_host(HostRules(listen=()), key or Ed25519PrivateKey.generate()) as host:
        yield host


@asynccontextmanager
async def connected(target, key=None):
    """A host in this process that is connected to the victim."""
    async with peer(key) as host:
        await host.dial(target.address, target.peer_id, 5)
        yield host


async def echoes(target, text=b"hello"):
    """Whether a fresh honest peer gets its bytes back."""
    async with connected(target) as host:
        stream = await host.open_stream(target.peer_id, ECHO, 5)
        await stream.write(text)
        return await exactly(stream, len(text)) == text


async def exactly(stream, length):
    data = b""
    while len(data) < length and (more := await stream.read(length - len(data))):
        data += more
    return data


async def at_rest(target):
    """The counters of a victim that has served a peer and has nobody left."""
    assert await echoes(target)
    before = None
    while (now := await target.ask("counters")) != before or now["inbound"]:
        before = now
        await trio.sleep(0.1)
    return now


async def unharmed(target, start):
    """Check what has to hold after any attack: an honest peer is served, and nothing is left of the attacker."""
    assert await echoes(target)
    await target.settled(start)
    assert target.errors.read_text() == ""


def muxed(host):
    """The yamux connection of an attacker."""
    (conn,) = host._network.get_connections()
    return conn.muxed_conn


def frame(kind, flags, stream, length, body=b""):
    return struct.pack("!BBHII", 0, kind, flags, stream, length) + body


class Deaf:
    """Makes a host in this process stop reading from the socket of a connection, until it is told to go on."""

    def __init__(self, connection):
        self._tcp = connection.secured_conn.conn.read_writer.read_write_closer.stream
        self._read = self._tcp.read
        self._hears = trio.Event()
        self._tcp.read = self._wait

    async def _wait(self, most=None):
        await self._hears.wait()
        return await self._read(most)

    def hear(self):
        self._hears.set()


async def send(connection, *frames):
    """Put frames on the wire; whether all went out."""
    try:
        async with connection._write_lock:
            await connection.secured_conn.write(b"".join(frames))
    except Exception:
        return False
    return True


async def closes(connection, within_s):
    """Whether the other side ends the connection in this time."""
    with trio.move_on_after(within_s):
        await connection.event_shutting_down.wait()
    return connection.event_shutting_down.is_set()
