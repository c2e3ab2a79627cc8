"""Shows a job while it runs: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Any

from orchestrator.engine.driver import Driver
from orchestrator.plan.state import Progress
from orchestrator.printable import printable
from orchestrator.report.figures import UNKNOWN, scaled
from orchestrator.report.formatting import duration
from orchestrator.report.matrix import ENDED, LOST, Part, arrange, cell_text, count, total

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
    """The job's table: trials of each cell that ended, run or failed, the best values so far, and the time left.

    A context manager; call it with the driver as often as you like. `quiet` shows nothing but messages.
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
            self._screen.update("planning the job, and reading its data sets ...", refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        MESSAGES.removeHandler(self._handler)
        if self._screen is not None:
            self._screen.stop()
            self._screen = None

    def say(self, line: str) -> None:
        """Prints a line that stays above the live table."""
        line = printable(line, lines=True)
        if self._screen is not None:
            self._console.print(line, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def __call__(self, driver: Driver) -> None:
        now = time.monotonic()
        if self._quiet or now - self._drawn < (REDRAW_S if self._screen is not None else LINE_S):
            return
        self._drawn = now
        progress = driver.planner.progress()
        if self._screen is not None:
            self._screen.update(self._table(driver, progress), refresh=True)
            return
        line = summary(driver, progress)
        if line != self._last:
            self._last = line
            self.say(line)

    def _table(self, driver: Driver, progress: list[Progress]) -> Any:
        from rich.table import Table
        from rich.text import Text

        def plain(text: str) -> Text:  # names are not markup
            return Text(printable(text, lines=True))

        report = driver.job.report
        last = report.stage or driver.job.stages[-1].name
        rows, columns, cells = arrange(parts(progress, report.rows, report.columns))
        table = Table(title=plain(summary(driver, progress)), title_justify="left", caption=plain(_running(driver)),
                      caption_justify="left")  # fmt: skip
        table.add_column("")
        for column in columns:
            table.add_column(plain(column))
        for row in rows:
            table.add_row(plain(row), *(plain(cell_text(cells.get((row, column), ()), last)) for column in columns))
        return table


def parts(progress: list[Progress], rows: str, columns: str) -> list[Part]:
    """Groups by their value of the two paths; a stage whose groups lack one (pretrain) has a row of its own."""
    return [
        Part(
            row=str(group.group_values.get(rows, group.stage)),
            column=str(group.group_values.get(columns, group.group if group.group != "all" else "")),
            stage=group.stage,
            states={str(state): number for state, number in group.states.items()},
            best=scaled(group.best, group.metric) if group.metric else None,
            figure=group.metric or UNKNOWN,
            expected=group.expected,
        )
        for group in progress
    ]


def summary(driver: Driver, progress: list[Progress]) -> str:
    """One line: how many trials ended, run and failed, and about how long the job will take."""
    groups = parts(progress, "", "")
    running = len(driver.backend.running())
    line = [f"{driver.job_id}: {count(groups, ENDED)} of about {total(groups)} trials ended", f"{running} running"]
    for number, what in (
        (count(groups, LOST), "failed"),
        (count(groups, ["stopped"]), "stopped early"),
        (count(groups, ["diverged"]), "diverged"),
    ):
        line += [f"{number} {what}"] if number else []
    left = driver.seconds_left()
    if left is not None:
        line.append(f"about {duration(left)} left")
    if driver.no_room and not running:
        line.append("the next trial finds no room on the cluster: `ray status` and the dashboard show what occupies it")
    if driver.stopping:
        line.append(f"{driver.stopping}: waiting for checkpoints")
    return " · ".join(line)


def _running(driver: Driver) -> str:
    names = [driver.name(worker.key) for worker in driver.backend.running()]
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return "\n".join(names[:6]) + more
