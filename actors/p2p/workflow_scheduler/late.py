# SPDX-License-Identifier: AGPL-3.0-or-later
"""Steps that are decided when all that they depend on has ended: `when`, `for_each`, `memo`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.p2p.workflow_scheduler.conditions import holds
from actors.p2p.workflow_scheduler.content import memo_key
from actors.p2p.workflow_scheduler.references import ReferenceMissingError, filled
from actors.p2p.workflow_scheduler.steps import WHOLE, Part

if TYPE_CHECKING:
    from actors.p2p.workflow_scheduler.deciding import Deciding


def decide(run: Deciding, place: int) -> None:
    """Skip it, fail it, or make it ready."""
    part, step = Part(place), run.graph.steps[place]
    if not _holds(run, place):
        run.end(part, "step_skipped", reason="its condition does not hold")
    elif step.for_each is not None:
        _expand(run, place)
    else:
        run.append("step_ready", **run.named(part))
        run.sending.offer(part)


def _holds(run: Deciding, place: int) -> bool:
    when, steps, depends = run.graph.steps[place].when, run.state.steps, run.graph.depends[place]
    ended = {run.graph.steps[before].step_id: steps[before].status for before in depends}
    for_failure = {run.graph.steps[before].step_id for before in depends if steps[before].for_failure}
    return holds(when, ended, list(ended), run.lookup, skipped_for_failure=for_failure)


def _expand(run: Deciding, place: int) -> None:
    part = Part(place)
    try:
        items = filled(run.graph.steps[place].for_each, run.lookup)
    except ReferenceMissingError as error:
        run.fail(part, "REFERENCE_MISSING", f"for_each: {error}")
        return
    if not isinstance(items, list):
        run.fail(part, "INVALID_ARGUMENTS", f"for_each wants a list, and this is {_kind(items)}")
        return
    if len(items) > run.rules.max_items:
        run.fail(part, "LIMIT_EXCEEDED", f"for_each has {len(items)} items; at most {run.rules.max_items} are allowed")
        return
    run.append("step_expanded", **run.named(part), items=run.outputs.put(items), count=len(items))
    if not items:
        run.touch((place,))
    for index in range(len(items)):
        run.sending.offer(Part(place, index))


def arguments(run: Deciding, part: Part) -> dict[str, Any]:
    """What the tool is called with. Raises ReferenceMissingError."""
    inputs = run.graph.steps[part.place].inputs
    if part.index == WHOLE:
        made = filled(inputs, run.lookup)
    else:
        link = run.state.steps[part.place].items_link
        assert link is not None
        item = run.outputs.value(link)[part.index]
        made = filled(inputs, run.lookup, item=item, index=part.index)
    assert isinstance(made, dict)
    return made


def key_of(run: Deciding, part: Part, made: dict[str, Any]) -> bytes | None:
    """The name of this work; None when it has none, or the tool is not known (any more)."""
    tool = run.tools.get(run.graph.steps[part.place].action)
    if tool is None:
        return None
    try:
        return memo_key(run.owner, tool, made)
    except ValueError:
        return None


def _kind(value: Any) -> str:  # noqa: ANN401
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    return {dict: "an object", str: "a text"}.get(type(value), "a number")
