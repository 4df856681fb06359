# SPDX-License-Identifier: AGPL-3.0-or-later
"""A root that a test may kill: one child for each argument, which is its code. It tells what they say."""

from __future__ import annotations

import os
import sys
from itertools import count

import trio
from actor_scripts import ENTRY

from actors.messages import Boot
from supervisor.spawn_tractor import open_tractor_spawner
from supervisor.spec import Limits

LIFETIME_S = 60.0


def hear(_: str, chunk: bytes) -> None:
    sys.stdout.write(chunk.decode())
    sys.stdout.flush()


async def main(codes: list[str], until_ended: bool = False) -> None:
    with trio.move_on_after(LIFETIME_S):
        async with open_tractor_spawner() as spawner:
            for incarnation, code in zip(count(1), codes, strict=False):
                boot = Boot(
                    actor="a_child",
                    incarnation=incarnation,
                    entry=ENTRY,
                    token="token",
                    runtime_dir="",
                    data_dir="",
                    beat_every_s=1.0,
                    root_pid=os.getpid(),
                    settings=code.encode(),
                )
                child = await spawner.spawn(boot, limits=Limits(), on_stderr=hear)
                hear("", f"spawned {child.pid}\n".encode())
                if until_ended:
                    hear("", f"ended with {(await child.wait()).returncode}\n".encode())
            if not until_ended:
                await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
