# SPDX-License-Identifier: AGPL-3.0-or-later
"""One chaos run: learn the tree, plan, put load on it, inject, look at everything, check."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from actors.errors import MCPServerError, RuntimeUnavailableError
from actors.messages import State, TreeStatus
from actors.peers import is_spare
from supervisor.chaos import view
from supervisor.chaos.checker import Violation, check
from supervisor.chaos.enabling import EFFECTS, ChaosInfo, forget_switches
from supervisor.chaos.history import Evidence, RootLife
from supervisor.chaos.load import Load, read_effects
from supervisor.chaos.nemesis import Nemesis
from supervisor.chaos.schedule import FORK_SERVER, Process, Shape, Step, make_schedule

if TYPE_CHECKING:
    from supervisor.chaos.own_tree import OwnTree

_WHOLE_AT_START_S = 30.0
_WARM_AFTER = 6
"""Faults until a root counts as warm."""
_NO_ZOMBIE_S = 5.0
_LOAD_ENDS_S = 90.0
_FORK_SERVER_BACK_S = 40.0

Tell = Callable[[str], None]
"""Called with one line of progress."""


class TreeGoneError(MCPServerError):
    """The tree under test ended before the run did."""

    code = "TREE_GONE"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of a run."""

    seed: int
    minutes: float
    faults: list[str]
    faults_given: bool = False
    own: bool = False


class Run(msgspec.Struct, kw_only=True):
    """What came of it."""

    plan: Plan
    planned: int
    """Faults in the schedule; the run may end before the last ones."""
    seconds: float
    calls: dict[str, int]
    """Calls of the load by how they ended."""
    evidence: Evidence
    violations: list[Violation]


def new_seed() -> int:
    """A seed for a run that was given none."""
    return secrets.randbelow(2**32)


def shape_of(status: TreeStatus, info: ChaosInfo, *, own: bool) -> Shape:
    """What the schedule may know of a tree."""
    running = [actor for actor in status.actors if actor.state != State.OFF]
    return Shape(
        processes=sorted(
            (Process(actor.name, actor.group, is_spare(actor.name)) for actor in running), key=lambda one: one.name
        ),
        pool=f"tools.{info.pool}",
        fork_server=info.fork_server,
        intensity=info.intensity,
        hung_after_s=info.hung_after_s,
        ready_timeout_s=info.ready_timeout_s,
        own=own,
    )


async def run_chaos(data_dir: Path, plan: Plan, tell: Tell, own: OwnTree | None = None) -> Run:
    """Run it to its end. Raises what the root says when it does not allow it, `NotRunningError`, `NoFaultFitsError`,
    and `RuntimeUnavailableError` when the tree has no pools, or is not whole to begin with."""
    tree = view.TreeView(data_dir)
    info = await tree.info()
    if not info.pool:
        raise RuntimeUnavailableError("a chaos run calls tools, and there are none: runtimes.general.enabled is false")
    if not await tree.wait(view.is_whole, _WHOLE_AT_START_S):
        missing = "; ".join(view.not_whole(await tree.status()))
        raise RuntimeUnavailableError(f"the tree must be whole before it is broken on purpose: {missing}")
    status = await tree.status()
    steps = make_schedule(plan.seed, plan.minutes * 60, plan.faults, shape_of(status, info, own=own is not None))
    return await _Runner(tree, info, status, plan, steps, tell, own).run()


class _Runner:
    def __init__(
        self,
        tree: view.TreeView,
        info: ChaosInfo,
        status: TreeStatus,
        plan: Plan,
        steps: Sequence[Step],
        tell: Tell,
        own: OwnTree | None,
    ) -> None:
        self._tree = tree
        self._plan = plan
        self._steps = steps
        self._tell = tell
        pool = f"tools.{info.pool}"
        self.evidence = Evidence(
            pools={"echo": "tools.general", "sleep": "tools.general", "chaos_effect": pool},
            roots=[RootLife(pid=status.root_pid)],
        )
        patience = 2 * info.hung_after_s + info.ready_timeout_s + 5.0
        self._load = Load(
            status.url, self.evidence, seed=plan.seed, patience_s=patience, tool_timeout_s=info.tool_timeout_s
        )
        self._nemesis = Nemesis(tree, info, self._load, self.evidence, plan.seed, own)

    async def run(self) -> Run:
        self._forget_effects()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._load.run)
            try:
                await self._harm(began)
            finally:
                # Whatever ended the run, also a person's Ctrl-C: no start of that system must fail later on.
                forget_switches(self._nemesis.info.folder)
            self._load.stopping.set()
            nursery.cancel_scope.deadline = trio.current_time() + _LOAD_ENDS_S
        await self._look()
        return Run(
            plan=self._plan,
            planned=len(self._steps),
            seconds=round(trio.current_time() - began, 1),
            calls=dict(sorted(self._load.counts.items())),
            evidence=self.evidence,
            violations=check(self.evidence),
        )

    def _forget_effects(self) -> None:
        """Tokens repeat between runs: the file begins anew."""
        (Path(self._nemesis.info.folder) / EFFECTS).unlink(missing_ok=True)

    async def _harm(self, began: float) -> None:
        """Carry the schedule out. A fault that takes longer than planned moves all later ones, so that no two come
        nearer to each other than the restart intensity allows."""
        end = began + self._plan.minutes * 60
        late = 0.0
        in_this_life = 0
        for step in self._steps:
            await trio.sleep_until(began + step.at_s + late)
            if trio.current_time() >= end:
                break
            what = f"{step.fault} {step.target}".rstrip()
            left = max(0.0, end - trio.current_time())
            self._tell(
                f"{step.number}/{len(self._steps)} {what}  ({self._answered()} calls answered, {left:.0f} s left)"
            )
            fault = await self._nemesis.inject(step)
            if not self._tree.is_there():
                raise TreeGoneError(
                    f"the root ended during the run, at fault {step.number} ({what}, seed {self._plan.seed}); if "
                    "nobody stopped it, that is a fault of its own: see its log, and greenroom events"
                )
            next_at = began + late + self._after(step)
            late += max(0.0, trio.current_time() - next_at)
            in_this_life = 0 if fault.fault == "root_death" else in_this_life + 1
            self._warm(in_this_life)
        else:
            await trio.sleep_until(end)

    def _after(self, step: Step) -> float:
        """When the next fault is planned."""
        later = [other.at_s for other in self._steps if other.number == step.number + 1]
        return later[0] if later else self._plan.minutes * 60

    def _warm(self, faults: int) -> None:
        root = self.evidence.roots[-1]
        if faults == _WARM_AFTER:
            root.warm = view.footprint(root.pid)

    def _answered(self) -> int:
        return self._load.counts.get("ok", 0)

    async def _look(self) -> None:
        """The state of everything, once the load has ended."""
        evidence = self.evidence
        await self._tree.wait(view.is_whole, self._nemesis.settle_s)
        if self._nemesis.info.fork_server and not await self._tree.wait_fork_server(0, _FORK_SERVER_BACK_S):
            evidence.not_whole.append(f"the {FORK_SERVER} did not come back within {_FORK_SERVER_BACK_S:g} s")
        status = await self._tree.status()
        evidence.not_whole += view.not_whole(status)
        self._nemesis.root_ends(status.root_pid)
        with trio.move_on_after(_NO_ZOMBIE_S):
            while True:
                info = await self._tree.info()
                known = view.pids(await self._tree.status()).values()
                evidence.zombies = view.zombies(status.root_pid)
                evidence.strays = view.strays(status.root_pid, info.fork_server_pid, known)
                if not evidence.zombies and not evidence.strays:
                    break
                await trio.sleep(0.1)
        effects = Path(self._nemesis.info.folder) / EFFECTS
        evidence.effects = read_effects(effects.read_text()) if effects.exists() else []
