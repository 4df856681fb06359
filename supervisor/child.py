# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a child process runs: the tie to its root, then tractor's own child, then the actor's main function."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import runpy
import signal
import sys
import traceback
from datetime import UTC, datetime

import msgspec
import trio

from actors.messages import Boot
from supervisor import tractor_compat
from supervisor.orphan import tie_to_root
from supervisor.spawn import stacks_path

tractor_compat.install()
import tractor  # noqa: E402

_started = trio.Event()
_MAX_TRACEBACK = 8192


@tractor.context  # type: ignore[untyped-decorator]
async def run_actor(ctx: tractor.Context, boot: bytes) -> None:
    """Run one actor's life, then end the process, with the code that `exit_code` says.

    The process ends from here, not through tractor's teardown, so the exit code is exact and nothing can delay it.
    """
    if _started.is_set():
        raise RuntimeError("this process runs an actor already")
    _started.set()
    life = msgspec.msgpack.decode(boot, type=Boot)
    code = 1
    try:
        for fd in life.listen_fds.values():
            os.set_inheritable(fd, False)
        _offer_stacks(life)
        await ctx.started()
        module, _, function = life.entry.partition(":")
        main = getattr(importlib.import_module(module), function)
        await main(life)
        code = 0
    except BaseException as error:  # noqa: BLE001
        code = exit_code(error)
        if code != 0:
            _tell(life.actor, error)
    finally:
        _end(code)


def _offer_stacks(life: Boot) -> None:
    """From now on the stacks of all threads go to this life's own file when they are asked for."""
    if life.runtime_dir:
        file = stacks_path(life.runtime_dir, life.incarnation).open("w")
        faulthandler.register(signal.SIGUSR1, file=file, all_threads=True)


def exit_code(error: BaseException) -> int:
    """How a process ends whose actor ended with this error: 0 after a cancel, as Python does after SystemExit, else 1.

    What is raised in a task arrives in groups; cancellation that comes along with something else does not count.
    """
    code = 0
    for leaf in _leaves(error):
        if isinstance(leaf, SystemExit):
            wanted = leaf.code if isinstance(leaf.code, int) else int(leaf.code is not None)
            code = code or wanted & 0xFF
        elif not isinstance(leaf, trio.Cancelled):
            return 1
    return code


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


def what_failed(error: BaseException) -> BaseException:
    """The one error in a group that is to blame, when there is one alone; else the group."""
    leaves = [leaf for leaf in _leaves(error) if not isinstance(leaf, trio.Cancelled)]
    return leaves[0] if len(leaves) == 1 else error


def _tell(actor: str, error: BaseException) -> None:
    """One structured line on stderr, which the root reads."""
    told = what_failed(error)
    line = {
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": "ERROR",
        "event": "actor failed",
        "actor": actor,
        "error": f"{type(told).__name__}: {told}"[:1000],
        "traceback": "".join(traceback.format_exception(error))[-_MAX_TRACEBACK:],
    }
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(msgspec.json.encode(line).decode() + "\n")


def _end(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        # Closed by the actor, or nobody reads any more: no reason to live on.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def main() -> None:
    """Entry of the child process."""
    tractor_compat.tree_key = tie_to_root()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    # Ctrl-C on the terminal is the root's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    runpy.run_module("tractor._child", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
