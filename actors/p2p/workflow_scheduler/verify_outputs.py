# SPDX-License-Identifier: AGPL-3.0-or-later
"""Are the outputs in an export what the events say: JSON, lists of so many items, lists of their items' outputs?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from actors.p2p.cids import RAW
from actors.p2p.workflow_scheduler.findings import Findings, Said, part_of
from actors.p2p.workflow_scheduler.payloads import StepCompleted, StepExpanded

_ABSENT: Final = object()
"""Not in the file, or no JSON."""


def check_outputs(said: list[Said], blocks: Mapping[bytes, bytes], findings: Findings) -> None:
    """Those that are in the file; which ones are not is found by others."""
    items: dict[str, dict[int, bytes]] = defaultdict(dict)
    with_items: set[str] = set()
    seen: set[bytes] = set()
    for one in said:
        fact = one.fact
        if isinstance(fact, StepExpanded):
            with_items.add(fact.step)
            _check(one, fact, fact.items, blocks, findings)
            value = _value(fact.items, blocks)
            if value is not _ABSENT and (not isinstance(value, list) or len(value) != fact.count):
                findings.add("OUTPUT", f"its items are no list of {fact.count}", one.cid, part_of(fact))
        elif isinstance(fact, StepCompleted):
            if fact.result not in seen:
                seen.add(fact.result)
                _check(one, fact, fact.result, blocks, findings)
            if fact.index is not None:
                items[fact.step].setdefault(fact.index, fact.result)
            elif fact.step in with_items:
                with_items.remove(fact.step)
                _check_list(one, fact, items[fact.step], blocks, findings)


def _check(
    one: Said, fact: StepExpanded | StepCompleted, link: bytes, blocks: Mapping[bytes, bytes], findings: Findings
) -> None:
    if not link.startswith(RAW):
        findings.add("OUTPUT", "its link is not one to an output", one.cid, part_of(fact))
    elif link in blocks and _value(link, blocks) is _ABSENT:
        findings.add("OUTPUT", "its output is not JSON", one.cid, part_of(fact))


def _check_list(
    one: Said, fact: StepCompleted, items: dict[int, bytes], blocks: Mapping[bytes, bytes], findings: Findings
) -> None:
    made = _value(fact.result, blocks)
    parts = [_value(items[index], blocks) for index in sorted(items)]
    if made is not _ABSENT and not any(part is _ABSENT for part in parts) and made != parts:
        findings.add("OUTPUT", "its output is not the list of its items' outputs", one.cid, part_of(fact))


def _value(link: bytes, blocks: Mapping[bytes, bytes]) -> Any:  # noqa: ANN401 - JSON
    block = blocks.get(link)
    if block is None:
        return _ABSENT
    try:
        return msgspec.json.decode(block)
    except (msgspec.DecodeError, RecursionError):
        return _ABSENT
