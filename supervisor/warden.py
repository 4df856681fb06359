# SPDX-License-Identifier: AGPL-3.0-or-later
"""The root's side of the quarantine: it reads what a dead process was running, asks `supervisor.quarantine` what that
means, tells every actor, and keeps what is quarantined in the data directory.

Of a process that hung the calls of the tool that its stacks name are to blame, of any other all that it was running;
never those that only waited for their client's answer, which people may take long to give. Deaths that were ordered (a
stop, a restart, the end of the tree) never count; every other end of a process counts, also an exit with code 0: nobody
asked for it. The list is pushed within the same turn in which the death is noticed, before anything that follows from
the death, so a spare has it when it takes the place. It is written by a task of its own.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import trio

from actors.errors import MCPServerError
from actors.flight import flight_path, read_flight
from actors.messages import Marks, QuarantinedCall, Survived
from actors.settings import SupervisorSettings
from supervisor.events import ExitReason
from supervisor.lives import Life, Lives
from supervisor.quarantine import Call, Policy, Quarantine, Verdict

FILE = "quarantine.json"
_MAX_FILE_BYTES = 16 * 1024 * 1024
_RUNS_TOOLS = "/actors/tools/execution.py"
_GATHER_S = 0.02
"""Answers that come together are told together."""
_decode = msgspec.json.Decoder(list[QuarantinedCall]).decode

Report = Callable[..., None]
"""Called as `report(level, event, **fields)`."""


class NotQuarantinedError(MCPServerError):
    """Nothing that is refused has this id or this name."""

    code = "NOT_QUARANTINED"


class Warden:
    """See the module's text. `run` is its task."""

    def __init__(
        self, settings: SupervisorSettings, *, runtime_dir: Path, data_dir: Path, lives: Lives, report: Report
    ) -> None:
        self._runtime_dir = runtime_dir
        self._path = data_dir / FILE
        self._lives = lives
        self._report = report
        self._wake = trio.Event()
        self._unsaved = self._unsaid = False
        policy = Policy(
            after=settings.quarantine_after,
            max_calls=settings.quarantine_max,
            deaths=settings.breaker_deaths,
            within_s=settings.breaker_within_s,
            open_s=settings.breaker_open_s,
            open_cap_s=settings.breaker_open_cap_s,
        )
        self._state = Quarantine(policy, self._load())

    def marks(self) -> Marks:
        """What the actors have to know now."""
        return self._state.marks(trio.current_time())

    # --- what happens ----------------------------------------------------------------------------------------------

    def ended(self, life: Life, reason: ExitReason) -> None:
        """A life has ended: read and remove its record, decide, and tell everybody at once."""
        path = flight_path(self._runtime_dir, life.incarnation)
        life.flight = read_flight(path)
        path.unlink(missing_ok=True)
        if life.flight is None or not life.flight.calls or life.ordered or life.stop is not None:
            return
        calls = blamed([Call(one.tool, one.digest) for one in life.flight.calls if not one.waiting], life.stacks)
        if not calls:
            return
        cause = reason.words.partition(": ")[0]
        at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self._decided(self._state.died(calls, cause=cause, at=at, now=trio.current_time()))
        self._push()

    def survived(self, message: Survived) -> None:
        """An actor answered a call that is watched."""
        self._decided(self._state.survived(Call(message.tool, message.digest)))
        self._unsaid = True
        self._wake.set()

    def release(self, names: Iterable[str], *, everything: bool = False) -> list[Verdict]:
        """Let these in again, or all. Raises `NotQuarantinedError`, before anything is released."""
        if everything:
            verdicts = self._state.release_all()
        else:
            wanted = list(names)
            for name in wanted:
                self._must_know(name)
            verdicts = [verdict for name in wanted for verdict in self._state.release(name)]
        self._decided(verdicts)
        self._push()
        return verdicts

    def _must_know(self, name: str) -> None:
        marks = self.marks()
        known = [one.id for one in marks.quarantined] + [one.tool for one in marks.breakers]
        if name in known or name in {one.digest for one in marks.quarantined}:
            return
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "see: greenroom quarantine list"
        raise NotQuarantinedError(f"nothing that is quarantined matches {name!r}; {hint}")

    def _decided(self, verdicts: list[Verdict]) -> None:
        for verdict in verdicts:
            fields = {key: value for key, value in msgspec.structs.asdict(verdict).items() if value}
            what = fields.pop("what")
            self._unsaved = self._unsaved or what in {"quarantined", "released"}
            self._report("WARNING", what, **fields, text=_sentence(verdict))

    def _push(self) -> None:
        self._unsaid = False
        self._wake.set()
        marks = self.marks()
        for life in self._lives:
            if life.control is not None:
                life.control.post(marks)

    # --- its task --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Let time pass, tell what can wait, write what changed; until cancelled, then the rest."""
        try:
            while True:
                due = self._state.next_at()
                with trio.CancelScope(deadline=math.inf if due is None else due):
                    await self._wake.wait()
                    await trio.sleep(_GATHER_S)
                self._wake = trio.Event()
                opened = self._state.pass_time(trio.current_time())
                self._decided(opened)
                if opened or self._unsaid:
                    self._push()
                if self._unsaved:
                    self._unsaved = False
                    with trio.CancelScope(shield=True):  # bounded: one small file on a local disk
                        self._saved(await trio.to_thread.run_sync(self._save, self._state.quarantined))
        finally:
            if self._unsaved:
                self._saved(self._save(self._state.quarantined))

    def _load(self) -> list[QuarantinedCall]:
        try:
            with self._path.open("rb") as file:
                return _decode(file.read(_MAX_FILE_BYTES))
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            self._report("ERROR", "quarantine not read", path=str(self._path), reason=str(error))
            return []

    def _saved(self, problem: str) -> None:
        if problem:
            # The present root has the list all the same.
            self._report("ERROR", "quarantine not written", path=str(self._path), reason=problem)

    def _save(self, quarantined: list[QuarantinedCall]) -> str:
        """The whole file, in one step; from any thread. Returns what was in the way."""
        draft = self._path.with_suffix(".new")
        try:
            with draft.open("wb") as file:
                file.write(msgspec.json.encode(quarantined))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError as error:
            return str(error)
        return ""


def blamed(calls: list[Call], stacks: str) -> list[Call]:
    """The calls that may have ended a process: where the stacks of one that hung show whose tool its loop was in, those
    of that tool, else all.

    `stacks` is what faulthandler wrote, innermost frame first: what lies within the code that runs tools is the tool's.
    """
    _, _, loop = stacks.partition("Current thread")
    functions = []
    for line in loop.splitlines()[1:]:
        if _RUNS_TOOLS in line:
            return [call for call in calls if call.tool in functions] or calls
        if not line.startswith("  File "):
            break
        functions.append(line.rpartition(" in ")[2].strip())
    return calls


def _sentence(verdict: Verdict) -> str:
    """One decision for people."""
    ended = f"ended {verdict.deaths} process{'' if verdict.deaths == 1 else 'es'}"
    tool = verdict.tool
    return {
        "quarantined": f"{tool} {ended} with the same arguments and is refused with them from now on: "
        f"greenroom quarantine release {verdict.id}",
        "released": f"{tool} is let in again with the arguments {verdict.id}",
        "breaker open": f"{tool} {ended} and is refused for {verdict.for_s:g} s",
        "breaker half open": f"{tool} is tried again",
        "breaker closed": f"{tool} is let in again",
    }[verdict.what]
