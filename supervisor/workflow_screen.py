# SPDX-License-Identifier: AGPL-3.0-or-later
"""A workflow while it runs: a live view on a terminal, one line per change elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from actors.workflow_messages import STEP_ENDED, StepView, WorkflowView
from supervisor.task_text import one_line, printable, to_json
from supervisor.workflow_text import change_text, changes, ended_of, note_of, share_of, state_of, step_row

_STYLES: Final = {
    "completed": "green",
    "running": "bold cyan",
    "ready": "cyan",
    "failed": "bold red",
    "skipped": "dim",
    "cancelled": "yellow",
    "cancelling": "yellow",
    "paused": "yellow",
    "pending": "dim",
}
_AROUND: Final = 6
"""Lines of the screen that are not steps."""
_PER_S: Final = 4

Show = Callable[[WorkflowView], None]


@contextmanager
def live(console: Console) -> Generator[Show, None, None]:
    """Shows the latest view, until the block ends. Durations of what runs go on."""
    latest: WorkflowView | None = None

    def picture() -> RenderableType:
        return Text("") if latest is None else screen(latest, console.size.height - _AROUND)

    def show(view: WorkflowView) -> None:
        nonlocal latest
        latest = view

    with Live(get_renderable=picture, console=console, refresh_per_second=_PER_S):
        yield show


def lines(*, as_json: bool) -> Show:
    """Prints what changed from one view to the next."""
    before: WorkflowView | None = None

    def show(view: WorkflowView) -> None:
        nonlocal before
        for change in changes(before, view):
            click.echo(to_json(change) if as_json else change_text(change))
        before = view

    return show


def screen(view: WorkflowView, most_steps: int) -> RenderableType:
    """The workflow with at most so many of its steps."""
    state = state_of(view)
    head = Text.assemble(
        (printable(view.workflow_id), "bold"), f"  {printable(one_line(view.name))}  ", (state, _STYLES.get(state, ""))
    )
    bar = Table.grid(padding=(0, 1))
    total = sum(view.counts.values())
    bar.add_row(_bar(view, total), f"{share_of(view)} steps")
    shown = visible(view.steps, max(1, most_steps))
    steps = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("step", "action", "status", "attempts", "took", "worker", ""):
        steps.add_column(title, no_wrap=True, overflow="ellipsis")
    for step in shown:
        row = [Text(printable(cell)) for cell in step_row(step)]
        row[2].stylize(_STYLES.get(step.status, ""))
        steps.add_row(*row)
    parts: list[RenderableType] = [head, bar, steps]
    if len(shown) < len(view.steps):
        parts.append(Text(f"... and {len(view.steps) - len(shown)} more steps", style="dim"))
    if note := note_of(view):
        parts.append(Text(printable(note), style=_STYLES.get(state, "")))
    return Group(*parts)


def _bar(view: WorkflowView, total: int) -> ProgressBar:
    style = "red" if view.counts.get("failed") else "green"
    done = ended_of(view)
    return ProgressBar(total=max(1, total), completed=done, width=40, complete_style=style, finished_style=style)


def visible(steps: list[StepView], most: int) -> list[StepView]:
    """The steps that there is room for, in their order: first those where something happens or has gone wrong, then
    those that are next, then the rest."""
    if len(steps) <= most:
        return steps
    ranked = sorted(range(len(steps)), key=lambda at: (_rank(steps[at]), at if not _over(steps[at]) else -at))
    return [steps[at] for at in sorted(ranked[:most])]


def _rank(step: StepView) -> int:
    order = ("running", "failed", "ready", "cancelled", "pending")
    return order.index(step.status) if step.status in order else len(order)


def _over(step: StepView) -> bool:
    return step.status in STEP_ENDED
