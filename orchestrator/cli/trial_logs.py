"""Prints the logs of trials, those of several with a prefix on each line."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.cli.options import echo


class Log:
    """A trial's log, read from where the last look ended. The file is opened for each look: a job may have more trials
    than a process may have open files."""

    def __init__(self, path: Path, prefix: str) -> None:
        self._path, self._prefix = path, prefix
        self._read = 0
        self._rest = ""
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def news(self, last: bool) -> str:
        """What was written since the last look, in whole lines; `last`: an unfinished one too. Nothing while there is
        no file."""
        try:
            with open(self._path, "rb") as log:
                log.seek(self._read)
                content = log.read()
        except (FileNotFoundError, NotADirectoryError):
            return ""
        self._read += len(content)
        # progress bars, which return to the beginning of their line, become lines of their own
        text = self._rest + self._decode(content).replace("\r\n", "\n").replace("\r", "\n")
        whole, end, self._rest = text.rpartition("\n")
        if last:
            whole, end, self._rest = text.removesuffix("\n"), "\n" if text else "", ""
        if not end:
            return ""
        return "\n".join(f"{self._prefix}{line}" for line in whole.split("\n"))


def print_logs(logs: Sequence[Log], running: Callable[[], bool] | None, pause_s: float) -> None:
    """Prints each log; with `running`, again and again what is new, until that is false."""
    while True:
        last = running is None or not running()  # asked before the files are read, so that nothing is left out
        for log in logs:
            if text := log.news(last):
                echo(text)
        if last:
            return
        time.sleep(pause_s)
