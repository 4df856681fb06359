# SPDX-License-Identifier: AGPL-3.0-or-later
"""tractor 0.1.0a5 on modern trio: its source is edited as it loads, by an import hook.

The release is from 2022 and names things that trio has removed since. Each edit below is one exact piece of its text;
if one no longer matches, the import fails with that piece named, so a new release can't be run half adapted. trio
itself is left alone. The same edits close three faults: a stray or broken connection no longer ends the process it
reached, and the length of a frame is bounded. `install` must be called before `tractor` is imported, in the root and
in children.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from importlib.metadata import version
from types import CodeType, ModuleType

import trio

TRACTOR_VERSION = "0.1.0a5"
MAX_FRAME_BYTES = 16 * 1024 * 1024

launcher: ContextVar[Callable[[Sequence[str]], Awaitable[trio.Process]]] = ContextVar("launcher")
"""Starts a child process from tractor's own command line; set by whoever asks tractor to start an actor."""

_HERE = __name__
_LOOSE_NURSERY = ("trio.open_nursery()", f"sys.modules[{_HERE!r}].open_loose_nursery()")
_TASK_STATUS = ("from trio_typing import TaskStatus", "from trio import TaskStatus")

_EDITS: dict[str, list[tuple[str, str]]] = {
    "tractor": [("from trio import MultiError", "MultiError = BaseExceptionGroup")],
    "tractor._actor": [
        _TASK_STATUS,
        _LOOSE_NURSERY,
        ("trio.MultiError", "BaseExceptionGroup"),
        # trio's events refuse truth tests.
        ("        if event:\n", "        if event is not None:\n"),
        (
            "            TransportClosed,\n        ):\n"
            "            # XXX: This may propagate up from ``Channel._aiter_recv()``",
            "            TransportClosed, OSError, ValueError, TypeError, KeyError,\n"
            "            trio.BrokenResourceError, trio.ClosedResourceError,\n        ):\n"
            "            # XXX: This may propagate up from ``Channel._aiter_recv()``",
        ),
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
        ("import importlib\n", "import importlib\nimport sys\n"),
        _LOOSE_NURSERY,
    ],
    "tractor._root": [
        ("import importlib\n", "import importlib\nimport sys\n"),
        _LOOSE_NURSERY,
        ("trio.MultiError", "BaseExceptionGroup"),
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
        (
            "await trio.lowlevel.open_process(spawn_cmd)",
            f"await sys.modules[{_HERE!r}].launcher.get()(spawn_cmd)",
        ),
    ],
    "tractor._supervise": [
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


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads one module of tractor from its edited source; the byte code on disk is not used."""

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path).decode()
        for old, new in _EDITS.get(fullname, []):
            if old not in source:
                raise AdaptationError(f"{fullname} of tractor {TRACTOR_VERSION} no longer has the text {old!r}")
            source = source.replace(old, new)
        return compile(source, self.path, "exec", dont_inherit=True)


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
    """Put the hook in place; a second call does nothing. Raises `AdaptationError` for another version of tractor."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    if "tractor" in sys.modules:
        raise AdaptationError("tractor was imported before it could be adapted")
    found = version("tractor")
    if found != TRACTOR_VERSION:
        raise AdaptationError(f"tractor {found} is installed; Greenroom is adapted to {TRACTOR_VERSION}")
    sys.meta_path.insert(0, _Finder())
