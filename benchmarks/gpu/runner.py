"""Runs the checks of each part in child processes and watches their time; a check that ends badly costs no other."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gpu.parts import Check, Part
from gpu.record import Result, Row, State, compare

ENTRY = Path(__file__).resolve().parents[1] / "gpu.py"
LEAST_S = 5.0
"""A check is not begun with less than this left, of a budget as in parts.py."""
POLL_S = 0.1


def run(
    parts: Sequence[Part], budget: float, device: str, small: bool, save: Callable[[Result], object],
    in_turn: bool = False,
) -> Result:  # fmt: skip
    """Runs the parts one after another. Time that a part does not need goes to those after it.

    `save` is called after each part, lest what was found is lost with this process. `in_turn`: each check may take the
    time in parts.py, whatever the budget is, and the last ones find nothing left of it.
    """
    result, began, shares = Result(device, small, budget), time.monotonic(), 0.0
    whole = sum(part.share for part in parts)
    scale = 1.0 if in_turn and not small else budget / whole
    for part in parts:
        shares = whole if in_turn else shares + part.share
        with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
            _PartRun(part, scale, began + budget * shares / whole, Path(folder), result).all_checks()
        if result.refused:
            break
        compare(result.rows)
        result.seconds = time.monotonic() - began
        save(result)
    return result


class _PartRun:
    """The checks of one part, in as many child processes as it takes."""

    def __init__(self, part: Part, scale: float, deadline: float, folder: Path, result: Result) -> None:
        """`deadline`: by time.monotonic; `scale`: of the times in parts.py."""
        self._part, self._scale, self._deadline, self._folder, self._result = part, scale, deadline, folder, result
        self._waiting = list(part.checks)
        self._rows: dict[tuple[str, str], Row] = {}

    def all_checks(self) -> None:
        while self._waiting and not self._result.refused:
            if self._left() < LEAST_S * self._scale:
                for check in self._waiting:
                    self._add(Row(check.name, State.not_run, note=f"{self._share()} were used up"), check.name)
                break
            self._one_child()
        self._result.rows += self._rows.values()

    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _share(self) -> str:
        return f"the {self._part.share * self._scale:.0f} s of part {self._part.name}"

    def _one_child(self) -> None:
        """Starts a child process with all checks that wait, and takes what it has to say until it ends or must."""
        file, log = self._folder / "rows", self._folder / "log"
        file.write_text("")
        waited = len(self._waiting)
        names = ",".join(check.name for check in self._waiting)
        command = [
            sys.executable,
            str(ENTRY),
            "--device",
            self._result.device,
            "--child",
            self._part.name,
            names,
            str(file),
        ]
        command += ["--small"] * self._result.small
        environment = {**os.environ, "ORCHESTRATOR_CACHE": "off", "PYTHONUNBUFFERED": "1"}
        with log.open("w") as output, file.open() as lines:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
            try:
                current = self._follow(process, _lines(lines), time.monotonic())
            finally:
                _kill(process)
        if current is None and (process.returncode == 0 or len(self._waiting) < waited or self._left() < 0):
            return  # the next process, if there is time for one, takes what this one left
        ended = f"its process ended with {_how(process.returncode)}" + _tail(log)
        if current is None:  # not even one was begun: another process would end alike
            for check in self._waiting:
                self._add(Row(check.name, State.broke, note=ended), check.name)
            self._waiting.clear()
        elif current in self._waiting:
            self._ended(current, Row(current.name, State.broke, note=ended))

    def _follow(
        self, process: subprocess.Popen[bytes], lines: Iterator[dict[str, Any]], started: float
    ) -> Check | None:
        """Until the child ends, or is too late; the check that was under way then and did not end."""
        current: Check | None = None
        began = started
        while True:
            alive = process.poll() is None
            for line in lines:
                if "refused" in line:
                    self._result.refused = line["refused"]
                elif "machine" in line:
                    self._result.machine = line["machine"]
                elif "begin" in line:
                    current, began = self._check(line["begin"]), time.monotonic()
                elif "row" in line and current:
                    self._add(Row.from_plain(line["row"]), current.name)
                elif "end" in line:
                    check = self._check(line["end"])
                    self._waiting.remove(check)
                    self._tell(check)
                    current = None
                if line is _NOTHING:
                    break
            if not alive:
                return current
            if current and time.monotonic() - began > current.most * self._scale:
                self._ended(
                    current, Row(current.name, State.stopped, note=f"over its {current.most * self._scale:.0f} s")
                )
                return current
            if self._left() < 0:
                if current:
                    self._ended(current, Row(current.name, State.stopped, note=f"{self._share()} were used up"))
                return current
            time.sleep(POLL_S)

    def _check(self, name: str) -> Check:
        return next(check for check in self._part.checks if check.name == name)

    def _ended(self, check: Check, row: Row) -> None:
        """Takes a check off the list; rows that it gave before are kept, and say that it did not end."""
        self._waiting.remove(check)
        before = [each for (name, _), each in self._rows.items() if name == check.name]
        if before:
            before[-1].state, before[-1].note = row.state, "; ".join(filter(None, [before[-1].note, row.note]))
        else:
            self._add(row, check.name)
        self._tell(check)

    def _tell(self, check: Check) -> None:
        """Progress, for whoever waits."""
        for row in (row for row in self._rows.values() if row.check == check.name):
            print(f"{self._part.name}: {row.name}: {row.state} {row.note}", file=sys.stderr, flush=True)

    def _add(self, row: Row, check: str) -> None:
        """A row takes the place of an earlier one of its name."""
        row.part, row.check = self._part.name, check
        self._rows[check, row.name] = row


_NOTHING: dict[str, Any] = {}


def _lines(file: Any) -> Iterator[dict[str, Any]]:
    """The lines that were written since, then `_NOTHING`, and so on without end."""
    rest = ""
    while True:
        rest += file.read()
        *whole, rest = rest.split("\n")
        yield from (json.loads(line) for line in whole)
        yield _NOTHING


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends the child and all processes that it started, whatever they wait for."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _tail(log: Path) -> str:
    """The last lines that a process printed."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "".join(f" | {line[:200]}" for line in lines[-3:])
