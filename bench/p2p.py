# SPDX-License-Identifier: AGPL-3.0-or-later
"""Operations between nodes by Greenroom's way and by a bridge, in one run.

Native: one long-lived host and link (or connection to the queue), as the peer registry has them. Bridge: as servers do
that keep their peer-to-peer code apart, each operation runs in a worker thread with a new Trio loop, a new libp2p host
and a new connection. Both ask the same node over loopback: `submit` hands a task to the local queue, which answers when
it is on disk (the bridge makes a host for it, too), `status` asks a peer how it is, `call` runs a tool there. Besides:
echoes with 64 callers, calls with 64 callers, the raw round trip on one stream, a call of the same tool without the
network, and an upload.

Usage: `./dev bench p2p [--rounds N] [--seconds S] [--bridged N]`. Writes `bench/results/p2p-TIME.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
from kit.p2p_host import RAW, SINK, near
from kit.processes import Program, adopt_orphans, cores

from actors.client import ToolClient
from actors.p2p.peer_registry.link.messages import CallTool, Describe, Echo
from actors.task_messages import Enqueue, Submitted
from actors.tool_messages import ToolCall
from supervisor.client_tasks import open_peers, open_tasks

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
GREENROOM = ROOT / ".venv" / "bin" / "greenroom"
CALLERS = 64
MESSAGE = b"x" * 128
UPLOAD_BYTES = 64 << 20
TIMEOUT_S = 30.0
ARGUMENTS = '{"text": "a"}'
Operation = Callable[[], Awaitable[object]]


@contextlib.contextmanager
def tree(scratch: Path, secret: Path) -> Iterator[Path]:
    """A node whose tool `echo` others may call; its data directory."""
    home = Path(tempfile.mkdtemp(dir=scratch))
    grants = {"tools": ["echo"], "rate_per_s": 1e6, "burst": 1_000_000, "max_in_flight": 1000}
    registry = {
        "secret_file": str(secret),
        "secret_grants": grants | {"max_bytes_per_s": 2**40},
        "per_address": {key: value for key, value in grants.items() if key != "tools"} | {"max_bytes_per_s": 2**40},
    }
    config = {
        "p2p": {"enabled": True, "connectivity": {"listen_port": 0}, "peer_registry": registry},
        "server": {"spares": 0},
        "router": {"spares": 0},
        "runtimes": {"general": {"spares": 0}},
    }
    (home / "config.yaml").write_text(json.dumps(config))
    command = [str(GREENROOM), "up", "--port", "0", "--data-dir", str(home / "data")]
    command += ["--config", str(home / "config.yaml")]
    with Program(command, on=cores(), log=home / "log", cwd=home) as running:
        end = time.monotonic() + 60
        while address_of(home / "data") is None:
            if running.ended or time.monotonic() > end:
                raise SystemExit(f"bench: the tree did not become ready:\n{running.tail()}")
            time.sleep(0.2)
        yield home / "data"


def address_of(data_dir: Path) -> str | None:
    """Where the node of this tree is; None while it is not up."""
    command = [str(GREENROOM), "peers", "id", "--json", "--data-dir", str(data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    found = json.loads(done.stdout).get("addresses") if done.returncode == 0 else None
    return found[0] if found else None


@contextlib.contextmanager
def far(secret: Path) -> Iterator[str]:
    """A bare node in a process of its own; its address."""
    command = [sys.executable, "-m", "kit.p2p_host", str(secret)]
    with subprocess.Popen(
        command, cwd=ROOT / "bench", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


async def timed(operation: Operation, seconds: float) -> dict[str, float]:
    """One after the other: milliseconds, and how many per second."""
    for _ in range(20):
        await operation()
    took = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        await operation()
        took.append((time.perf_counter() - began) * 1000)
    return shown(took) | {"per_s": len(took) / seconds}


async def at_once(operation: Operation, seconds: float) -> float:
    """How many per second with `CALLERS` callers."""
    count = 0

    async def caller() -> None:
        nonlocal count
        while True:
            await operation()
            count += 1

    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(caller)
        await trio.sleep(0.5)
        before, began = count, time.perf_counter()
        await trio.sleep(seconds)
        rate = (count - before) / (time.perf_counter() - began)
        nursery.cancel_scope.cancel()
    return rate


def shown(took: list[float]) -> dict[str, float]:
    """Of milliseconds."""
    quantiles = statistics.quantiles(took, n=100) if len(took) > 1 else took * 99
    return {"p50_ms": quantiles[49], "p99_ms": quantiles[98]}


def submission() -> Enqueue:
    """A task that nobody here does."""
    return Enqueue(type="nobody-does-this", payload="{}")


@asynccontextmanager
async def tool_client(data_dir: Path) -> AsyncGenerator[ToolClient]:
    """The tools of a tree, as its own actors call them."""
    async with open_peers(data_dir) as (peers, nursery):
        client = ToolClient(peers, max_held_calls=1000, max_calls_per_process=1000, carry=False)
        nursery.start_soon(client.keep_catalogue)
        with trio.fail_after(TIMEOUT_S):
            while client.catalogue.get("echo") is None:
                await trio.sleep(0.01)
        yield client


async def native(data_dir: Path, address: str, bare: str, secret: Path, seconds: float) -> dict[str, Any]:
    """All that is measured by our way."""
    found: dict[str, Any] = {}
    async with open_tasks(data_dir) as queue:
        found["submit"] = await timed(lambda: queue.do(submission(), Submitted), seconds)
    async with tool_client(data_dir) as client:
        numbers = iter(range(10**9))

        def local() -> Awaitable[object]:
            call = ToolCall(name="echo", arguments=ARGUMENTS.encode(), call_id=f"bench-{next(numbers)}")
            return client.call(call, timeout_s=TIMEOUT_S)

        found["local call"] = await timed(local, seconds)
    async with near(secret, listen=False) as here:
        async with here.link(address) as link:
            found["status"] = await timed(lambda: link.call(Describe(), TIMEOUT_S), seconds)
            call = CallTool(name="echo", arguments=ARGUMENTS)
            found["call"] = await timed(lambda: link.call(call, TIMEOUT_S), seconds)
            found["calls at once"] = {"per_s": await at_once(lambda: link.call(call, TIMEOUT_S), seconds)}
        async with here.link(bare) as link:
            found["echoes at once"] = {"per_s": await at_once(lambda: link.call(Echo(MESSAGE), TIMEOUT_S), seconds)}
            found["echo"] = await timed(lambda: link.call(Echo(MESSAGE), TIMEOUT_S), seconds)
        stream = await here.stream(bare, RAW)

        async def raw() -> None:
            await stream.write(MESSAGE)
            left = len(MESSAGE)
            while left:
                left -= len(await stream.read())

        found["raw"] = await timed(raw, seconds)
        await stream.reset()
        stream = await here.stream(bare, SINK)
        block, began = b"x" * (256 << 10), time.perf_counter()
        for _ in range(UPLOAD_BYTES // len(block)):
            await stream.write(block)
        await stream.finish()
        assert int.from_bytes(await stream.read(), "big") == UPLOAD_BYTES
        found["upload"] = {"mb_per_s": UPLOAD_BYTES / 1e6 / (time.perf_counter() - began)}
    return found


async def bridged(data_dir: Path, address: str, secret: Path, count: int) -> dict[str, Any]:
    """The same operations, each in a thread with a loop and a host of its own."""

    async def submit() -> None:
        async with near(secret, listen=False), open_tasks(data_dir) as queue:
            await queue.do(submission(), Submitted)

    async def status() -> None:
        async with near(secret, listen=False) as here, here.link(address) as link:
            await link.call(Describe(), TIMEOUT_S)

    async def call() -> None:
        async with near(secret, listen=False) as here, here.link(address) as link:
            await link.call(CallTool(name="echo", arguments=ARGUMENTS), TIMEOUT_S)

    found = {}
    for name, operation in {"submit": submit, "status": status, "call": call}.items():
        took = []
        for number in range(count + 2):
            began = time.perf_counter()
            await trio.to_thread.run_sync(partial(trio.run, operation))
            if number >= 2:
                took.append((time.perf_counter() - began) * 1000)
        found[name] = shown(took)
    return found


def report(rounds: list[dict[str, Any]]) -> Iterator[str]:
    """Medians over the rounds, and what was wanted."""

    def median(side: str, what: str, key: str) -> float:
        return statistics.median(one[side][what][key] for one in rounds)

    for what in ("submit", "status", "call"):
        ours, theirs = median("native", what, "p50_ms"), median("bridged", what, "p50_ms")
        yield (
            f"{what:7} native {ours:7.2f} ms, bridged {theirs:7.1f} ms: {100 * (1 - ours / theirs):.1f} % less (p99 "
            f"{median('native', what, 'p99_ms'):.2f} / {median('bridged', what, 'p99_ms'):.1f}; 90 % wanted)"
        )
    raw, local, remote = (median("native", what, "p50_ms") for what in ("raw", "local call", "call"))
    yield (
        f"a remote call takes {remote:.2f} ms p50; the raw round trip {raw:.2f} and a local call {local:.2f}: "
        f"{remote / (2 * raw + local):.2f} of twice the one plus the other (below 1 wanted)"
    )
    yield f"echoes/s, {CALLERS} callers: {median('native', 'echoes at once', 'per_s'):.0f} (10,000 wanted)"
    yield f"remote calls/s, {CALLERS} callers: {median('native', 'calls at once', 'per_s'):.0f} (3,000 wanted)"
    yield f"upload: {median('native', 'upload', 'mb_per_s'):.0f} MB/s (100 wanted)"


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="./dev bench p2p", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each measurement")
    parser.add_argument("--bridged", type=int, default=20, help="operations by the bridge, each")
    options = parser.parse_args()
    adopt_orphans()
    rounds = []
    with tempfile.TemporaryDirectory(prefix="greenroom-bench-") as name:
        scratch = Path(name)
        secret = scratch / "secret"
        secret.write_text(secrets.token_hex(32))
        secret.chmod(0o600)
        for number in range(options.rounds):
            with tree(scratch, secret) as data_dir, far(secret) as bare:
                address = address_of(data_dir)
                assert address is not None
                rounds.append(
                    {
                        "native": trio.run(native, data_dir, address, bare, secret, options.seconds),
                        "bridged": trio.run(bridged, data_dir, address, secret, options.bridged),
                    }
                )
            print(f"round {number}: {json.dumps(rounds[-1])}", flush=True)
    for line in report(rounds):
        print(line)
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"p2p-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}.json"
    file.write_text(json.dumps({"options": vars(options), "cores": os.cpu_count(), "rounds": rounds}, indent=1))
    print(f"written to {file.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
