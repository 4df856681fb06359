# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the Python clients do, whichever library they use. `typescript_client.mjs` does the same in its language.

MODE `visit` makes a tour and prints one JSON object with all that was seen. At the next line on standard input it
starts a long `sleep` and says so, at the one after it cancels that call and prints what that gave, and so on.
MODE `outlive` makes one round of everything and prints a line; at each line on standard input it starts two slow calls,
says so when both are running, makes rounds until both have ended and one more afterwards, and prints what it saw.
Both leave at the end of the input.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import anyio

OnProgress = Callable[[float, float | None, str | None], Awaitable[None]]
Outcome = dict[str, Any]
ROUNDS_AT_MOST = 40
SLOW_S = 5.0
LONG_S = 30.0
TIMEOUT_S = 12.0
"""Of one request."""
LIMIT_S = 150.0
SLOW_CALLS = ("sleep", "write_slowly")
handshakes: list[str] = []
"""One entry for each `initialize` that the library sent."""


class Peer(Protocol):
    """A connected client of one library. Every method may raise whatever its library raises."""

    def about(self) -> tuple[str, str | None]:
        """Protocol version and server name."""

    async def tools(self) -> list[str]: ...

    async def call(self, tool: str, arguments: dict[str, Any], on_progress: OnProgress | None = None) -> Outcome: ...

    async def resources(self) -> list[str]: ...

    async def templates(self) -> list[str]: ...

    async def read(self, uri: str) -> str: ...

    async def prompts(self) -> list[str]: ...

    async def prompt(self, name: str, arguments: dict[str, str]) -> str: ...


Connect = Callable[[], AbstractAsyncContextManager[Peer]]


async def note_handshake(request: Any) -> None:
    """For the HTTP library's event hook: remember each `initialize`."""
    if b'"initialize"' in await request.aread():
        handshakes.append(request.method)


async def outcome(awaitable: Awaitable[Any]) -> Any:
    """A value, or the error as a user would see it."""
    try:
        return await awaitable
    except Exception as error:
        code = getattr(error, "code", None)
        return {"error_code": code, "error_name": type(error).__name__, "message": str(error)}


async def progress_of(peer: Peer) -> list[list[Any]]:
    """The progress of a short call."""
    seen: list[list[Any]] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        seen.append([done, total, message])

    result = await peer.call("sleep", {"seconds": 0.3}, on_progress)
    return seen if not result["is_error"] else [[-1, None, result["text"]]]


async def cancelled_call(peer: Peer) -> bool:
    """Start a long call and cancel it when it runs; whether that ended it."""

    async def on_progress(_done: float, _total: float | None, _message: str | None) -> None:
        scope.cancel()

    with anyio.CancelScope() as scope:
        result = await peer.call("sleep", {"seconds": LONG_S, "steps": 300}, on_progress)
        raise RuntimeError(f"the long call ended by itself: {result}")
    return scope.cancelled_caught


async def one_round(peer: Peer) -> dict[str, Any]:
    """Everything once; what fails is an outcome with `error_name`."""
    return {
        "tools": await outcome(peer.tools()),
        "echo": await outcome(peer.call("echo", {"text": "grüß dich"})),
        "progress": await outcome(progress_of(peer)),
        "cancelled": await outcome(cancelled_call(peer)),
        "resources": await outcome(peer.resources()),
        "templates": await outcome(peer.templates()),
        "read": await outcome(peer.read("peers://colours")),
        "read_template": await outcome(peer.read("peers://colour/sky")),
        "prompts": await outcome(peer.prompts()),
        "prompt": await outcome(peer.prompt("describe", {"thing": "sky"})),
        "elicit": await outcome(peer.call("ask_name", {})),
        "sample": await outcome(peer.call("ask_model", {})),
    }


def failures(seen: dict[str, Any]) -> dict[str, Any]:
    """The steps of a round that failed: with an exception of the library, or with a result that is an error."""
    return {
        step: value
        for step, value in seen.items()
        if isinstance(value, dict) and (value.get("error_name") or value.get("is_error"))
    }


async def visit(connect: Connect) -> None:
    """See the module's docstring."""
    async with connect() as peer:
        await see_everything(peer)
        while await next_line():
            await long_call(peer)


async def see_everything(peer: Peer) -> None:
    """A round, and three mistakes."""
    version, server = peer.about()
    say(
        {
            "protocol_version": version,
            "server_name": server,
            **await one_round(peer),
            "wrong_argument": await outcome(peer.call("echo", {"txet": 1})),
            "unknown_tool": await outcome(peer.call("no_such_tool", {})),
            "unknown_resource": await outcome(peer.read("peers://colour/nothing")),
        }
    )


async def long_call(peer: Peer) -> None:
    """Start, and on command cancel, one long call."""
    finished: list[Outcome] = []

    async def ignore(_done: float, _total: float | None, _message: str | None) -> None:
        """Progress is asked for so that the answer is a stream."""

    async def call() -> None:
        with scope:
            finished.append(await peer.call("sleep", {"seconds": LONG_S}, ignore))

    scope = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        say({"started": True})
        await next_line()
        scope.cancel()
    # A further call shows that cancelling one call leaves the connection usable.
    echo = await outcome(peer.call("echo", {"text": "a"}))
    say({"cancelled": scope.cancelled_caught, "finished": finished, "echo": echo})


class Death:
    """What a client sees while a process of the server dies."""

    def __init__(self) -> None:
        self.calls: dict[str, Any] = {}
        self.rounds: list[dict[str, Any]] = []
        self.broken: str | None = None
        """Why the library gave its connection up, if it did."""


class ConnectionLostError(Exception):
    """Requests fail although nothing dies any more."""


async def outlive(connect: Connect) -> None:
    """See the module's docstring. A library that gives its connection up gets a new one, as a user would have to do."""
    death: Death | None = None
    greeted = False
    while True:
        try:
            async with connect() as peer:
                if not greeted:
                    say({"failures": failures(await one_round(peer)), "handshakes": len(handshakes)})
                    greeted = True
                if death is not None:
                    await conclude(peer, death)
                    death = None
                while await next_line():
                    death = Death()
                    await work_on(peer, death)
                    await conclude(peer, death)
                    death = None
                return
        except Exception as error:
            if death is None or death.broken is not None:
                raise
            death.broken = innermost(error)


async def work_on(peer: Peer, death: Death) -> None:
    """Two slow calls, and rounds until both have ended."""
    async with anyio.create_task_group() as tasks:
        running = [await tasks.start(slow_call, peer, name, death.calls) for name in SLOW_CALLS]
        for event in running:
            await event.wait()
        say({"calling": True})
        while len(death.calls) < len(SLOW_CALLS) and len(death.rounds) < ROUNDS_AT_MOST:
            death.rounds.append(failures(await one_round(peer)))


async def conclude(peer: Peer, death: Death) -> None:
    """One more round, in which nothing may fail, and the report."""
    after = failures(await one_round(peer))
    if after and death.broken is None:
        raise ConnectionLostError(json.dumps(after))
    for name in SLOW_CALLS:
        death.calls.setdefault(name, {"error_name": "ConnectionLost", "message": death.broken})
    say(
        {
            "calls": death.calls,
            "rounds": death.rounds,
            "broken": death.broken,
            "after": after,
            "handshakes": len(handshakes),
        }
    )


def innermost(error: BaseException) -> str:
    """The first error in a tree of groups, as text."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


async def slow_call(peer: Peer, tool: str, calls: dict[str, Any], *, task_status: Any) -> None:
    """One slow call; the event that is handed out is set when the tool runs."""
    runs = anyio.Event()

    async def on_progress(_done: float, _total: float | None, _message: str | None) -> None:
        runs.set()

    task_status.started(runs)
    began = time.monotonic()
    seen = await outcome(peer.call(tool, {"seconds": SLOW_S}, on_progress))
    calls[tool] = {**seen, "seconds": time.monotonic() - began}
    runs.set()


def say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


async def next_line() -> str:
    return await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)


MODES = {"visit": visit, "outlive": outlive}


def run(connect: Connect, mode: str) -> None:
    """Do what was asked for. No client may hang a test run, so it has a limit."""

    async def main() -> None:
        with anyio.fail_after(LIMIT_S):
            await MODES[mode](connect)

    anyio.run(main)
