# SPDX-License-Identifier: AGPL-3.0-or-later
"""A host in a process of its own that is attacked. Any of the patches may be left out.

It serves the protocols below and answers commands that come over a pipe: ("name", argument...) -> result.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os

import psutil
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from actors.p2p.peer_registry.stream import StreamBrokenError

ECHO = "/victim/echo/1"
HOLD = "/victim/hold/1"
"""Never reads."""
RAISE = "/victim/raise/1"
"""Fails as soon as there is a byte, with the error whose name it is."""
SPEW = "/victim/spew/1"
"""Writes 64 KiB at a time, and gives each up after a hundredth of a second."""
SIP = "/victim/sip/1"
"""Reads, gives up after a moment, reads again; writes how many bytes it got in all when it has this many."""
SIP_BYTES = 1 << 20
WATCH = "/victim/watch/1"
"""Reads to the end and remembers how that came."""
FLOW = "/victim/flow/1"
"""Writes as much as it is told, without a time limit."""

HARDENING = "actors.p2p.peer_registry.hardening"


def main(pipe, rules, without, numbers, errors):
    """The process. `numbers` are limits that differ: {"liveness.PING_EVERY_S": 1.0}; `errors` is where stderr goes."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    from actors.p2p.peer_registry import hardening

    hardening.apply(without=without)
    for name, value in numbers.items():
        module, _, constant = name.partition(".")
        setattr(importlib.import_module(f"{HARDENING}.{module}"), constant, value)
    trio.run(_run, pipe, rules)


async def _run(pipe, rules):
    from actors.p2p.peer_registry.host import open_host
    from actors.p2p.peer_registry.host_rules import HostRules

    async with open_host(HostRules(**rules), Ed25519PrivateKey.generate()) as host:
        raw = host._host
        for protocol, handler in HANDLERS.items():
            host.serve(protocol, handler)
        # Not through `Host.serve`, which has a net of its own.
        raw.set_stream_handler(RAISE, _raise)
        pipe.send((host.peer_id, host.addresses))
        while True:
            await trio.lowlevel.wait_readable(pipe.fileno())
            try:
                name, *arguments = pipe.recv()
            except EOFError:
                return
            try:
                pipe.send((True, await COMMANDS[name](host, *arguments)))
            except Exception as error:
                pipe.send((False, repr(error)))


async def _echo(stream):
    while data := await stream.read():
        await stream.write(data)


async def _hold(stream):
    await trio.sleep_forever()


async def _raise(stream):
    from libp2p.network.stream.exceptions import StreamEOF, StreamReset

    name = (await stream.read(32)).decode()
    raise {"RuntimeError": RuntimeError, "StreamEOF": StreamEOF, "StreamReset": StreamReset}[name]


async def _spew(stream):
    for _ in range(int(await stream.read(16))):
        with trio.move_on_after(0.01):
            await stream.write(bytes(65536))
    await stream.write(b"done")


async def _sip(stream):
    got = cancelled = tries = 0
    while got < SIP_BYTES:
        tries += 1
        with trio.move_on_after(0.00005 * (tries % 10)) as scope:
            data = await stream.read(4096)
            if not data:
                break
            got += len(data)
        cancelled += scope.cancelled_caught
    await stream.write(f"{got} {cancelled}".encode())


async def _flow(stream):
    left = int(await stream.read(16))
    while left > 0:
        await stream.write(bytes(min(left, 65536)))
        left -= 65536
    await stream.finish()


ends = []


async def _watch(stream):
    await stream.write(b"x")
    try:
        while await stream.read():
            pass
        ends.append("ended")
    except StreamBrokenError:
        ends.append("broken")


HANDLERS = {WATCH: _watch, ECHO: _echo, HOLD: _hold, SPEW: _spew, SIP: _sip, FLOW: _flow}


async def _counters(host):
    gc.collect()
    counted = host.counters()
    process = psutil.Process()
    return {
        "inbound": counted.inbound,
        "connections": counted.connections,
        "streams": counted.streams,
        "views": len(host.connections()),
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "files": process.num_fds(),
        "memory": process.memory_info().rss >> 20,
    }


async def _views(host):
    return [(view.peer_id, view.address, view.streams) for view in host.connections()]


async def _wait_views(host):
    with trio.fail_after(5):
        while not host.connections():
            await trio.sleep(0.01)
    return await _views(host)


async def _said(host, peer_id):
    return host.protocols(peer_id), host.agent(peer_id)


async def _identified(host, peer_id):
    with trio.fail_after(5):
        while host.says(peer_id) is None:
            await trio.sleep(0.01)


async def _dial(host, address, peer_id, within_s=5):
    await host.dial(address, peer_id, within_s)


async def _connect(host, address, peer_id):
    """The way of libp2p's own code: the seconds it took."""
    from libp2p.peer.id import ID
    from libp2p.peer.peerinfo import PeerInfo
    from multiaddr import Multiaddr

    begin = trio.current_time()
    host._network.peerstore.clear_addrs(ID.from_string(peer_id))
    await host._host.connect(PeerInfo(ID.from_string(peer_id), [Multiaddr(address)]))
    return trio.current_time() - begin


async def _ends(host, number):
    with trio.fail_after(5):
        while len(ends) < number:
            await trio.sleep(0.01)
    return ends


async def _forgotten(host):
    """What connections still hold of streams that have ended."""
    muxed = [conn.muxed_conn for conn in host._network.get_connections()]
    return sum(len(one.stream_events) - len(one.streams) for one in muxed)


async def _log_handlers(host):
    return len(logging.getLogger().handlers)


async def _break_streams(host):
    """From now on taking a stream fails in libp2p itself."""
    from libp2p.network.connection.swarm_connection import SwarmConn

    async def broken(*_):
        raise RuntimeError("broken on purpose")

    SwarmConn._add_stream = broken


COMMANDS = {
    "counters": _counters,
    "views": _views,
    "wait_views": _wait_views,
    "ends": _ends,
    "forgotten": _forgotten,
    "said": _said,
    "identified": _identified,
    "dial": _dial,
    "connect": _connect,
    "log_handlers": _log_handlers,
    "break_streams": _break_streams,
}
