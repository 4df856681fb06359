# SPDX-License-Identifier: AGPL-3.0-or-later
"""tractor 0.1.0a5 on modern trio: its source is edited as it loads, by an import hook.

The release is from 2022 and names things that trio has removed since. Each edit below is one exact piece of its text;
if one no longer matches, the import fails with that piece named, so a new release can't be run half adapted. trio
itself is left alone. `install` must be called before `tractor` is imported, in the root and in children.

The same edits close faults: whoever connects must know the tree's key before a word of theirs is acted on, whatever
goes wrong on one connection ends that connection only, a frame's length is bounded, and nothing is remembered of a
child that is gone.
"""

from __future__ import annotations

import contextlib
import hmac
import importlib.abc
import importlib.machinery
import logging
import marshal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash
from types import CodeType, ModuleType
from typing import Any

import trio

TRACTOR_VERSION = "0.1.0a5"
MAX_FRAME_BYTES = 16 * 1024 * 1024

HANDSHAKE_S = 10.0

launcher: ContextVar[Callable[[Sequence[str]], Awaitable[Any]]] = ContextVar("launcher")
"""Starts a child process from tractor's own command line; set by whoever asks tractor to start an actor."""

tree_key = ""
"""Known to the processes of one tree only; empty lets nobody connect."""

_HERE = __name__
_US = f"sys.modules[{_HERE!r}]"
_LOOSE_NURSERY = ("trio.open_nursery()", f"{_US}.open_loose_nursery()")
# async_generator's own is older than Python's and warns on 3.12 and newer.
_CONTEXT_MANAGER = ("from async_generator import asynccontextmanager", "from contextlib import asynccontextmanager")
_TASK_STATUS = ("from trio_typing import TaskStatus", "from trio import TaskStatus")

_EDITS: dict[str, list[tuple[str, str]]] = {
    "tractor": [("from trio import MultiError", "MultiError = BaseExceptionGroup")],
    "tractor._actor": [
        ("from async_generator import aclosing", "from contextlib import aclosing"),
        _TASK_STATUS,
        _LOOSE_NURSERY,
        ("trio.MultiError", "BaseExceptionGroup"),
        # trio's events refuse truth tests.
        ("        if event:\n", "        if event is not None:\n"),
        ("uid = await self._do_handshake(chan)\n", f"uid = await {_US}.admit(self, chan)\n"),
        ("await chan.send(self.uid)\n", f"await chan.send((*self.uid, {_US}.tree_key))\n"),
        (
            "                        self._stream_handler,\n",
            f"                        {_US}.contained(self._stream_handler),\n",
        ),
        # A child may connect before anybody waits for it: forks are quick.
        (
            "        event = self._peer_connected.setdefault(uid, trio.Event())\n        await event.wait()\n",
            "        if self._peers.get(uid):\n"
            "            event = trio.Event()\n"
            "            event.set()\n"
            "        else:\n"
            "            event = self._peer_connected.setdefault(uid, trio.Event())\n"
            "        await event.wait()\n",
        ),
        # Nobody looks an actor up by its name, and the registry would grow with every restart.
        (
            "                    async with get_arbiter(*self._arb_addr) as arb_portal:\n"
            "                        await arb_portal.run_from_ns(\n"
            "                            'self',\n"
            "                            'register_actor',\n"
            "                            uid=self.uid,\n"
            "                            sockaddr=accept_addr,\n"
            "                        )\n"
            "\n"
            "                    registered_with_arbiter = True\n",
            "",
        ),
        # It would let a child import our own modules under short names, such as `spec`.
        ("                sys.path.append(os.path.dirname(filepath))\n", ""),
        # Children never import the root's __main__: it takes time and runs code.
        ("_mp_fixup_main._mp_figure_out_main()", "{}"),
    ],
    "tractor._clustering": [
        ("import trio\n", "import trio\nimport sys\n"),
        _LOOSE_NURSERY,
        ("from multiprocessing import cpu_count", "from os import cpu_count"),
    ],
    "tractor._debug": [
        _TASK_STATUS,
        _LOOSE_NURSERY,
        (
            "    import pdbpp\n",
            "    import types\n    pdbpp = types.SimpleNamespace(DefaultConfig=object, Pdb=object, xpm=None)\n",
        ),
    ],
    "tractor._entry": [
        ("from .to_asyncio import run_as_asyncio_guest\n", ""),
        ("get_console_log(actor.loglevel)", "pass"),
    ],
    "tractor._exceptions": [
        (
            "    return not trio.MultiError.filter(\n"
            "        lambda exc: exc if not isinstance(exc, trio.Cancelled) else None,\n"
            "        exc,\n    )",
            "    if isinstance(exc, BaseExceptionGroup):\n"
            "        return exc.split(trio.Cancelled)[1] is None\n"
            "    return isinstance(exc, trio.Cancelled)",
        ),
    ],
    "tractor._ipc": [
        _CONTEXT_MANAGER,
        (
            "                trio.BrokenResourceError,\n            ):\n",
            "                trio.BrokenResourceError, trio.ClosedResourceError,\n            ):\n",
        ),
        (
            '            size, = struct.unpack("<I", header)\n',
            '            size, = struct.unpack("<I", header)\n'
            f"            if size > {MAX_FRAME_BYTES}:\n"
            "                raise TransportClosed(f'a frame of {size} bytes was announced')\n",
        ),
        (
            "            msg_bytes = await self.recv_stream.receive_exactly(size)\n",
            "            try:\n"
            "                msg_bytes = await self.recv_stream.receive_exactly(size)\n"
            "            except (ValueError, OSError, trio.BrokenResourceError) as error:\n"
            "                raise TransportClosed('half a frame') from error\n",
        ),
    ],
    "tractor._portal": [
        _CONTEXT_MANAGER,
        ("import importlib\n", "import importlib\nimport sys\n"),
        _LOOSE_NURSERY,
    ],
    "tractor._root": [
        ("import importlib\n", "import importlib\nimport sys\n"),
        _LOOSE_NURSERY,
        ("trio.MultiError", "BaseExceptionGroup"),
        ("    os.environ['PYTHONBREAKPOINT'] = 'tractor._debug._set_trace'\n", ""),
        ("    log.get_console_log(loglevel)\n", ""),
    ],
    "tractor._spawn": [
        _TASK_STATUS,
        _LOOSE_NURSERY,
        ("trio.MultiError", "BaseExceptionGroup"),
        # A process is no context manager any more; without this the teardown hangs.
        (
            "        async with proc:  # calls ``trio.Process.aclose()``\n"
            '            log.debug(f"Terminating {proc}")\n',
            "        proc.terminate()\n        await proc.wait()\n",
        ),
        # The launcher may give another kind of process than trio's.
        ("                    trio.Process.wait,\n", "                    type(proc).wait,\n"),
        (
            "await trio.lowlevel.open_process(spawn_cmd)",
            f"await {_US}.launcher.get()(spawn_cmd)",
        ),
        (
            "            if not cancelled_during_spawn:\n                # pop child",
            f"            {_US}.forget(actor_nursery._actor, subactor.uid)\n"
            "            if not cancelled_during_spawn:\n                # pop child",
        ),
    ],
    "tractor._supervise": [
        _CONTEXT_MANAGER,
        ("import inspect\n", "import inspect\nimport sys\n"),
        _LOOSE_NURSERY,
        (
            "raise trio.MultiError(merr.exceptions + [err])",
            'raise BaseExceptionGroup("tractor nursery", [*merr.exceptions, err])',
        ),
        (
            "raise trio.MultiError(tuple(errors.values()))",
            'raise BaseExceptionGroup("tractor actors", tuple(errors.values()))',
        ),
        ("trio.MultiError", "BaseExceptionGroup"),
    ],
    "tractor.trionics._mngrs": [_TASK_STATUS, ("import trio\n", "import sys\nimport trio\n"), _LOOSE_NURSERY],
}


class AdaptationError(ImportError):
    """The tractor that is installed is not the one that the edits were written for."""


def open_loose_nursery() -> trio._core._run.NurseryManager:
    """A nursery that raises a single error bare, as tractor's `except` clauses expect. For tractor's code only.

    The public way to ask for it warns; the manager itself is what `trio.open_nursery` returns.
    """
    return trio._core._run.NurseryManager(strict_exception_groups=False)  # noqa: SLF001


async def admit(actor: Any, channel: Any) -> tuple[str, str]:  # noqa: ANN401
    """The handshake of whoever was connected to: hear the other side first, and answer only one that has the key.

    Both are tractor's: the actor that was connected to, and the connection. Raises PermissionError.
    """
    with trio.move_on_after(HANDSHAKE_S):
        match await channel.recv():
            case [str(name), str(identity), str(key)] if _is_key(key):
                channel.uid = (name, identity)
                await channel.send(actor.uid)
                return name, identity
    raise PermissionError("a stranger connected")


def _is_key(key: str) -> bool:
    return tree_key != "" and hmac.compare_digest(key.encode(errors="replace"), tree_key.encode())


def contained(
    handler: Callable[[trio.SocketStream], Awaitable[None]],
) -> Callable[[trio.SocketStream], Awaitable[None]]:
    """A connection handler whose failure ends its connection instead of the process."""

    async def handle(stream: trio.SocketStream) -> None:
        try:
            await handler(stream)
        except Exception:
            logging.getLogger(__name__).debug("a connection failed", exc_info=True)

    return handle


def forget(actor: Any, child: tuple[str, str]) -> None:  # noqa: ANN401
    """Drop what a parent keeps of a child that is gone; tractor itself would keep it for good."""
    actor._peer_connected.pop(child, None)  # noqa: SLF001
    if not actor._peers.get(child):  # noqa: SLF001
        # Asking for the connection of a child that died right after it had connected leaves an empty entry.
        actor._peers.pop(child, None)  # noqa: SLF001
    actor._actoruid2nursery.pop(child, None)  # noqa: SLF001
    for context in [context for context in actor._contexts if context[0] == child]:  # noqa: SLF001
        del actor._contexts[context]  # noqa: SLF001


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads one module of tractor from its edited source, and keeps the byte code beside Python's own."""

    def get_code(self, fullname: str) -> CodeType:
        original = self.get_data(self.path)
        edits = _EDITS[fullname]
        digest = source_hash(MAGIC_NUMBER + repr(edits).encode() + original)
        cache = cache_from_source(self.path, optimization="greenroom")
        with contextlib.suppress(OSError, ValueError, EOFError, TypeError):
            kept = self.get_data(cache)
            code = marshal.loads(kept[len(digest) :]) if kept.startswith(digest) else None  # noqa: S302
            if isinstance(code, CodeType):
                return code
        code = compile(_edited(fullname, original.decode(), edits), self.path, "exec", dont_inherit=True)
        if not sys.dont_write_bytecode:
            self.set_data(cache, digest + marshal.dumps(code))
        return code


def _edited(fullname: str, source: str, edits: list[tuple[str, str]]) -> str:
    for old, new in edits:
        if old not in source:
            from importlib.metadata import version

            raise AdaptationError(
                f"Greenroom is adapted to tractor {TRACTOR_VERSION}; {version('tractor')} is installed, "
                f"and its module {fullname} does not have the text {old!r}"
            )
        source = source.replace(old, new)
    return source


class _Finder(importlib.abc.MetaPathFinder):
    """Finds tractor's modules where they are and gives them the loader above."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "tractor" and not fullname.startswith("tractor."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None and fullname in _EDITS:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


def install() -> None:
    """Put the hook in place; a second call does nothing. Raises `AdaptationError` when tractor was imported before."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    if "tractor" in sys.modules:
        raise AdaptationError("tractor was imported before it could be adapted")
    # What it has to say is about its own inner life; deaths and errors are reported by us.
    logging.getLogger("tractor").setLevel(logging.CRITICAL + 1)
    sys.meta_path.insert(0, _Finder())
