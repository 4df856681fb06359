# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is looked at when the events of a workflow are checked, and what was found."""

from __future__ import annotations

from typing import Final, NamedTuple

from actors.p2p.cids import cid_text
from actors.p2p.workflow_scheduler.events import Event
from actors.p2p.workflow_scheduler.payloads import Fact, StepFact
from actors.workflow_report import Code, Finding

MAX_FINDINGS: Final = 100
"""That are kept; the others are counted."""


class Said(NamedTuple):
    """An event and what it says."""

    event: Event
    fact: Fact

    @property
    def cid(self) -> bytes:
        """Of the event."""
        return self.event.cid


class Part(NamedTuple):
    """A step, or one item of it."""

    step: str
    item: int | None = None

    def __str__(self) -> str:
        return self.step if self.item is None else f"{self.step}[{self.item}]"


def part_of(fact: StepFact) -> Part:
    """What it speaks of."""
    return Part(fact.step, fact.index)


class Findings:
    """Collects them."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.total = 0

    def add(self, code: Code, message: str, cid: bytes = b"", part: Part | None = None) -> None:
        """Something is wrong; `cid` is the event's or the block's."""
        self.total += 1
        if len(self.kept) < MAX_FINDINGS:
            step = "" if part is None else str(part)
            self.kept.append(Finding(code=code, message=message, event=cid_text(cid) if cid else "", step=step))
