# SPDX-License-Identifier: AGPL-3.0-or-later
"""Injects one fault after the other and sees what becomes of it: the half of a chaos run that does harm."""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio

from actors.errors import MCPServerError
from actors.messages import State, TreeStatus
from actors.peers import base_name
from supervisor.chaos import view, wire
from supervisor.chaos.enabling import ChaosInfo
from supervisor.chaos.faults import FAULTS, FaultKind
from supervisor.chaos.history import Ended, Evidence, Injected, RootLife
from supervisor.chaos.load import Client, Load
from supervisor.chaos.schedule import FORK_SERVER, Step
from supervisor.rundir import ADMIN_SOCKET, CONTROL_SOCKET

if TYPE_CHECKING:
    from supervisor.chaos.own_tree import OwnTree

_BREAKER = frozenset({"BREAKER_OPEN", "QUARANTINED"})
_SETTLE_S = 15.0
"""Besides what a hang and a start may take: until the tree is whole again."""
_HANG_SLACK_S = 5.0
_WELL_S = 15.0
_FORK_SERVER_S = 3.0
_ORPHANS_S = 1.0
_ROOT_BACK_S = 30.0


class Nemesis:
    """Carries out the steps of a schedule on one tree."""

    def __init__(
        self, tree: view.TreeView, info: ChaosInfo, load: Load, evidence: Evidence, seed: int, own: OwnTree | None
    ) -> None:
        self._tree = tree
        self.info = info
        self._load = load
        self._evidence = evidence
        self._chance = random.Random(f"{seed} nemesis")  # noqa: S311
        self._own = own
        self._pool = f"tools.{info.pool}"
        self._ways: dict[str, Callable[[Injected], Awaitable[None]]] = {
            "kill": self._kill,
            "stop": self._stop,
            "boot_death": self._boot,
            "boot_hang": self._boot,
            "length_prefix": self._wire,
            "half_frame": self._wire,
            "random_bytes": self._wire,
            "slow_reader": self._wire,
            "slow_writer": self._wire,
            "wrong_peer": self._wire,
            "root_death": self._root_death,
        }

    @property
    def settle_s(self) -> float:
        """The longest that the tree may take to be whole again after any fault."""
        return self.info.hung_after_s + self.info.ready_timeout_s + _SETTLE_S

    async def inject(self, step: Step) -> Injected:
        """One fault, and the wait until the tree is whole again."""
        kind = FAULTS[step.fault]
        fault = Injected(
            number=step.number,
            fault=step.fault,
            target=step.target,
            parameter=step.parameter,
            began=trio.current_time(),
        )
        fault.touches = self._touched(kind, step.target)
        # Known to the checker from now on, should the run be cut short.
        self._evidence.faults.append(fault)
        try:
            before = await self._tree.status()
            fault.pids_before = view.pids(before)
            if fault.touches:
                fault.touches += view.restarted_with(before, step.target)
            await self._ways.get(step.fault, self._tool)(fault)
            whole = await self._tree.wait(view.is_whole, self.settle_s)
            status = await self._tree.status()
            fault.pids_after = view.pids(status)
            if not whole:
                fault.problems.append(
                    f"after {self.settle_s:g} s the tree was not whole: {'; '.join(view.not_whole(status))}"
                )
        except (MCPServerError, OSError, wire.WireError, trio.BrokenResourceError) as error:
            fault.problems.append(f"{type(error).__name__}: {error}")
        if fault.pids_after:
            still = set(fault.pids_after.values())
            fault.dead += [pid for pid in fault.pids_before.values() if pid not in still and pid not in fault.dead]
        fault.ended = trio.current_time()
        return fault

    def _touched(self, kind: FaultKind, target: str) -> list[str]:
        if kind.where == "root":
            return ["*"]
        if (
            kind.where == "none"
            or target == FORK_SERVER
            or kind.name in {"length_prefix", "half_frame", "random_bytes"}
        ):
            return []
        base = base_name(target)
        return ["router", "*"] if base == "router" and self.info.carry else [base]

    # --- processes -------------------------------------------------------------------------------------------------

    async def _kill(self, fault: Injected) -> None:
        if fault.target == FORK_SERVER:
            await self._kill_fork_server(fault)
            return
        await self._signal(fault, signal.SIGKILL)
        await self._recovered(fault, self.settle_s)

    async def _stop(self, fault: Injected) -> None:
        await self._signal(fault, signal.SIGSTOP)
        await self._recovered(fault, self.info.hung_after_s + _HANG_SLACK_S)

    async def _signal(self, fault: Injected, number: signal.Signals) -> None:
        pid = fault.pids_before.get(fault.target)
        if pid is None or not view.kill(pid, number):
            fault.problems.append(f"there was no process {fault.target}")
            return
        fault.dead.append(pid)
        fault.began = trio.current_time()
        fault.seen = f"{number.name} to pid {pid}"

    async def _recovered(self, fault: Injected, within_s: float) -> None:
        """Until another process has the target's name and is ready."""
        old = fault.pids_before.get(fault.target)

        def back(status: TreeStatus) -> bool:
            now = view.actor(status, fault.target)
            return now is not None and now.state in {State.READY, State.SPARE} and now.pid not in {None, old}

        if await self._tree.wait(back, within_s):
            fault.recovery_s = trio.current_time() - fault.began
        else:
            fault.problems.append(f"{fault.target} was not replaced within {within_s:g} s")

    async def _kill_fork_server(self, fault: Injected) -> None:
        pid = (await self._tree.info()).fork_server_pid
        if not pid or not view.kill(pid, signal.SIGKILL):
            fault.seen = "it was being replaced at that moment"
            return
        fault.began = trio.current_time()
        if await self._tree.wait_fork_server(pid, _FORK_SERVER_S):
            fault.recovery_s = trio.current_time() - fault.began
            fault.seen = f"SIGKILL to pid {pid}"
        else:
            fault.seen = f"SIGKILL to pid {pid}; children are started the slow way for some seconds"

    # --- tools -----------------------------------------------------------------------------------------------------

    async def _tool(self, fault: Injected) -> None:
        """Call the chaos tool, judge how that call ends, and call it again without harm until it answers."""
        kind = FAULTS[fault.fault]
        token = f"fault-{fault.number}-{self._load.number()}"
        async with Client(self._load) as client, trio.open_nursery() as meanwhile:
            arguments: dict[str, object] = {"token": token}
            if kind.tool == "chaos_raise":
                arguments["kind"] = fault.parameter
            if fault.fault == "fd_exhaustion":
                meanwhile.start_soon(self._connect_meanwhile)
            fault.began = trio.current_time()
            end, _ = await client.call(kind.tool, arguments, token, fault=True)
            self._judge(fault, kind, end)
            await self._well(fault, kind, client)

    def _judge(self, fault: Injected, kind: FaultKind, end: Ended) -> None:
        code = "ok" if end.outcome == "ok" else end.code
        took = end.at - fault.began
        fault.seen = f"{code} after {took:.2f} s"
        if code not in kind.codes and code not in _BREAKER:
            fault.problems.append(f"its call ended with {code} instead of {' or '.join(kind.codes)}")
        if kind.hangs and took > self.info.hung_after_s + _HANG_SLACK_S:
            fault.problems.append(f"its hang was noticed only after {took:.1f} s")

    async def _well(self, fault: Injected, kind: FaultKind, client: Client) -> None:
        """A harmless call of the same tool succeeds soon, and closes its breaker."""
        code = ""
        with trio.move_on_after(_WELL_S):
            while True:
                token = f"well-{fault.number}-{self._load.number()}"
                harmless: dict[str, object] = {"token": token}
                harmless |= {"kind": "none"} if kind.tool == "chaos_raise" else {"harm": False}
                end, _ = await client.call(kind.tool, harmless, token, fault=True)
                if end.outcome == "ok":
                    fault.recovery_s = trio.current_time() - fault.began
                    return
                code = end.code
                await trio.sleep(0.05)
        if code in _BREAKER:
            fault.seen += f", then {code}"
        else:
            fault.problems.append(f"{kind.tool} did not answer again within {_WELL_S:g} s ({code})")

    async def _connect_meanwhile(self) -> None:
        """Connections that come while there are no files for them."""
        paths = [path for name, path in (await self._tree.sockets()).items() if base_name(name) == self._pool]
        for _ in range(5):
            await trio.sleep(0.05)
            for path in paths:
                with contextlib.suppress(OSError, trio.BrokenResourceError):
                    async with await trio.open_unix_socket(path) as stream:
                        await stream.send_all(wire.greeting())

    # --- starts ----------------------------------------------------------------------------------------------------

    async def _boot(self, fault: Injected) -> None:
        """Leave switches for the next starts, and cause one."""
        folder = Path(self.info.folder)
        switches = [folder / f"{fault.fault}.{number}" for number in range(1, int(fault.parameter or "1") + 1)]
        for switch in switches:
            switch.touch()
        await self._signal(fault, signal.SIGKILL)
        await self._recovered(fault, self.settle_s)
        await self._tree.wait(view.is_whole, self.settle_s)
        unused = [switch for switch in switches if switch.exists()]
        for switch in unused:
            switch.unlink(missing_ok=True)
        if unused:
            fault.problems.append(f"{len(unused)} of {len(switches)} starts that should fail never came")

    # --- the wire --------------------------------------------------------------------------------------------------

    async def _wire(self, fault: Injected) -> None:
        sockets = await self._tree.sockets()
        runtime_dir = Path(self.info.runtime_dir)
        # A spare's name changes when it takes a place; its socket's does not.
        target = sockets.get(fault.target)
        paths = [*([target] if target else []), str(runtime_dir / CONTROL_SOCKET), str(runtime_dir / ADMIN_SOCKET)]
        pool = next(path for name, path in sorted(sockets.items()) if base_name(name) == self._pool)
        url, chance = self._load.url, self._chance
        if fault.fault == "length_prefix":
            fault.seen = await wire.length_prefix(paths, after_hello=fault.parameter == "after hello")
        elif fault.fault == "half_frame":
            fault.seen = await wire.half_frame(paths)
        elif fault.fault == "random_bytes":
            root = (await self._tree.status()).root_pid
            ports = set(view.listening_ports([root, *fault.pids_before.values()])) | {urlsplit(url).port or 80}
            fault.seen = await wire.random_bytes(paths, sorted(ports), chance)
        elif fault.fault == "slow_reader":
            fault.seen = await wire.slow_reader(url, pool, self._load.number())
        elif fault.fault == "slow_writer":
            fault.seen = await wire.slow_writer(url, pool, self._load.number(), chance)
        else:
            fault.seen = await wire.wrong_peer(pool)

    # --- the root --------------------------------------------------------------------------------------------------

    async def _root_death(self, fault: Injected) -> None:
        assert self._own is not None
        status = await self._tree.status()
        everybody = [*view.below(status.root_pid)]
        self.root_ends(status.root_pid)
        fault.dead += everybody
        fault.began = trio.current_time()
        await self._own.kill_root()
        left = await view.outlive(everybody, _ORPHANS_S)
        gone_s = trio.current_time() - fault.began
        if left:
            fault.problems.append(f"{len(left)} processes outlived their root by more than {_ORPHANS_S:g} s")
        await self._own.start()
        if not await self._tree.wait(view.is_whole, _ROOT_BACK_S):
            fault.problems.append(f"a new root was not ready within {_ROOT_BACK_S:g} s")
            return
        fault.recovery_s = trio.current_time() - fault.began
        fault.seen = f"all {len(everybody)} processes gone after {gone_s * 1000:.0f} ms"
        if view.exists(self.info.runtime_dir):
            fault.problems.append("the runtime directory of the dead root was left")
        self.info = await self._tree.info()
        self._evidence.roots.append(RootLife(pid=(await self._tree.status()).root_pid))

    def root_ends(self, pid: int) -> None:
        """Take the measure of a root whose end has come."""
        for root in self._evidence.roots:
            if root.pid == pid:
                root.last = view.footprint(pid)
