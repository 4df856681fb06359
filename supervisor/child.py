# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a child process runs: the watch on its root, then tractor's own child, then the actor's main function."""

from __future__ import annotations

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

tractor_compat.install()
import tractor  # noqa: E402

_started = trio.Event()
_MAX_TRACEBACK = 8192


@tractor.context  # type: ignore[untyped-decorator]
async def run_actor(ctx: tractor.Context, boot: bytes) -> None:
    """Run one actor's life, then end the process: 0 after `main` returned or was cancelled, 1 after an error.

    The process ends from here, not through tractor's teardown, so the exit code is exact and nothing can delay it.
    """
    if _started.is_set():
        raise RuntimeError("this process runs an actor already")
    _started.set()
    life = msgspec.msgpack.decode(boot, type=Boot)
    code = 0
    try:
        await ctx.started()
        module, _, function = life.entry.partition(":")
        main = getattr(importlib.import_module(module), function)
        await main(life)
    except trio.Cancelled:
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException as error:  # noqa: BLE001
        _tell(life.actor, error)
        code = 1
    finally:
        _end(code)


def _tell(actor: str, error: BaseException) -> None:
    """One structured line on stderr, which the root reads."""
    line = {
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": "ERROR",
        "event": "actor failed",
        "actor": actor,
        "error": f"{type(error).__name__}: {error}"[:1000],
        "traceback": "".join(traceback.format_exception(error))[-_MAX_TRACEBACK:],
    }
    sys.stderr.write(msgspec.json.encode(line).decode() + "\n")


def _end(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    """Entry of the child process."""
    from supervisor.orphan import watch_root

    watch_root()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    # Ctrl-C on the terminal is the root's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    runpy.run_module("tractor._child", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
