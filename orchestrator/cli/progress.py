"""The only place that shows a job while it runs: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from orchestrator.engine.driver import Driver
from orchestrator.plan.state import Progress
from orchestrator.records.states import TrialState
from orchestrator.report.formatting import clock

REDRAW_S = 0.5

LINE_S = 15.0

MESSAGES = logging.getLogger("orchestrator")
"""Where drivers log what their user should know."""


class _Handler(logging.Handler):
    """Prints messages above the live table."""

    def __init__(self, live: Live) -> None:
        super().__init__(logging.INFO)
        self._live = live

    def emit(self, record: logging.LogRecord) -> None:
        self._live.say(record.getMessage())


class Live:
    """Data sets across, initial weights down: done, running and failed trials, the best value so far, time left.

    Use as a context manager; call it with the drive as often as you like. `quiet` shows nothing but messages.
    """

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._quiet = quiet
        self._screen: Any = None
        self._drawn = 0.0
        self._last = ""
        self._handler = _Handler(self)

    def __enter__(self) -> Live:
        MESSAGES.setLevel(logging.INFO)
        MESSAGES.addHandler(self._handler)
        if self._console.is_terminal and not self._quiet:
            from rich.live import Live as Screen

            self._screen = Screen(console=self._console, auto_refresh=False, transient=True)
            self._screen.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        MESSAGES.removeHandler(self._handler)
        if self._screen is not None:
            self._screen.stop()
            self._screen = None

    def say(self, line: str) -> None:
        """A line that stays."""
        if self._screen is not None:
            self._console.print(line, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def __call__(self, drive: Driver) -> None:
        now = time.monotonic()
        if self._quiet or now - self._drawn < (REDRAW_S if self._screen is not None else LINE_S):
            return
        self._drawn = now
        progress = drive.planner.progress()
        if self._screen is not None:
            self._screen.update(self._table(drive, progress), refresh=True)
            return
        line = summary(drive, progress)
        if line != self._last:
            self._last = line
            self.say(line)

    def _table(self, drive: Driver, progress: list[Progress]) -> Any:
        from rich.table import Table

        report = drive.job.report
        rows, columns, cells = matrix(progress, report.rows, report.columns)
        table = Table(title=summary(drive, progress), title_justify="left", caption=_now(drive), caption_justify="left")
        table.add_column("")
        for column in columns:
            table.add_column(column)
        for row in rows:
            table.add_row(row, *(_cell(cells.get((row, column), [])) for column in columns))
        return table


def matrix(
    progress: list[Progress], rows: str, columns: str
) -> tuple[list[str], list[str], dict[tuple[str, str], list[Progress]]]:
    """Groups by their value of the two paths; a stage whose groups lack one (pretrain) has a row of its own."""
    cells: dict[tuple[str, str], list[Progress]] = {}
    for part in progress:
        row = str(part.group_values.get(rows, part.stage))
        column = str(part.group_values.get(columns, part.group if part.group != "all" else ""))
        cells.setdefault((row, column), []).append(part)
    return list(dict.fromkeys(r for r, _ in cells)), list(dict.fromkeys(c for _, c in cells)), cells


def _cell(parts: list[Progress]) -> str:
    if not parts:
        return ""
    states = _states(parts)
    done = states[TrialState.done] + states[TrialState.diverged] + states[TrialState.stopped]
    text = f"{done}/{sum(max(p.expected, sum(p.states.values())) for p in parts)}"
    if states[TrialState.running]:
        text += f" · {states[TrialState.running]} running"
    failed = states[TrialState.failed] + states[TrialState.cancelled]
    if failed:
        text += f" · {failed} failed"
    best = [part.best for part in parts if part.best is not None and math.isfinite(part.best)]
    if best:
        text += f" · {parts_best(parts):.4g}"
    return text


def parts_best(parts: list[Progress]) -> float:
    """The latest stage's best value: validation while the choice is open, test once the final trial is done."""
    return next(p.best for p in reversed(parts) if p.best is not None and math.isfinite(p.best))


def _states(parts: list[Progress]) -> Mapping[TrialState, int]:
    return {state: sum(part.states.get(state, 0) for part in parts) for state in TrialState}


def summary(drive: Driver, progress: list[Progress]) -> str:
    """One line: how far the job is, and about how long it will take."""
    states = _states(progress)
    total = sum(max(part.expected, sum(part.states.values())) for part in progress)
    done = states[TrialState.done] + states[TrialState.diverged] + states[TrialState.stopped]
    parts = [f"{drive.job_id}: {done} of about {total} trials done", f"{len(drive.backend.running())} running"]
    failed = states[TrialState.failed] + states[TrialState.cancelled]
    if failed:
        parts.append(f"{failed} failed")
    if states[TrialState.stopped]:
        parts.append(f"{states[TrialState.stopped]} stopped early")
    if states[TrialState.diverged]:
        parts.append(f"{states[TrialState.diverged]} diverged")
    left = seconds_left(drive, progress)
    if left is not None:
        parts.append(f"about {clock(left)} left")
    if drive.no_room and not drive.backend.running():
        parts.append("the next trial finds no room on the cluster: `ray status` and the dashboard say who holds it")
    if drive.stopping:
        parts.append(f"{drive.stopping}: waiting for checkpoints")
    return " · ".join(parts)


def seconds_left(drive: Driver, progress: list[Progress]) -> float | None:
    """Work that is left over the slots in use, corrected by how long trials took against their estimates so far."""
    if drive.tally.finished < 2 or not drive.tally.estimated_s:
        return None
    work = sum(part.seconds_left for part in progress)
    return work * drive.tally.took_s / drive.tally.estimated_s / max(1, len(drive.backend.running()))


def _now(drive: Driver) -> str:
    names = [drive.name(worker.key) for worker in drive.backend.running()]
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return "\n".join(names[:6]) + more
