"""Reading in a process of its own: a crash, a full memory and an endless loop there become one line here."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from orchestrator.assets.child_process import in_child
from orchestrator.errors import BackendUnreachable, BadInput, Conflict
from tasks.errors import DataError


def fails(error: BaseException) -> None:
    raise error


def test_a_value_comes_back_and_nothing_else_changes(tmp_path: Path) -> None:
    seen: list[int] = []
    result = in_child(lambda: [seen.append(1), {"a": [1.5, None, "\udcff"]}], tmp_path)
    assert result == [None, {"a": [1.5, None, "\udcff"]}]
    assert seen == []


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE])
def test_a_crash_is_one_line(tmp_path: Path, number: signal.Signals) -> None:
    with pytest.raises(BadInput, match=f"x.pth: reading it crashed .{number.name}.: it is damaged, or made to break"):
        in_child(lambda: os.kill(os.getpid(), number), tmp_path / "x.pth")


def test_a_process_that_somebody_ends_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"was ended .SIGKILL., perhaps for want of memory"):
        in_child(lambda: os.kill(os.getpid(), signal.SIGKILL), tmp_path / "x.pth")


def test_memory_has_a_limit_that_follows_the_file(tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    file.write_bytes(b"0" * 100)
    with pytest.raises(BadInput, match=r"x.pth: reading it takes more than 0.2 GiB of memory"):
        in_child(lambda: len(bytearray(300 * 2**20)), file, memory=200 * 2**20)
    assert in_child(lambda: len(bytearray(100 * 2**20)), file, memory=200 * 2**20) == 100 * 2**20
    with pytest.raises(BadInput, match=r"more than 2.0 GiB of memory"):
        in_child(lambda: len(bytearray(3 * 2**30)), file)
    with file.open("r+b") as large:
        large.truncate(2**30)  # a file with a hole: no bytes on the disk
    assert in_child(lambda: len(bytearray(3 * 2**30)), file) == 3 * 2**30


def test_processor_time_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.assets.child_process.LEAST_SECONDS", 1)

    def endless() -> None:
        while True:
            pass

    with pytest.raises(BadInput, match=r"took more than 1 s of processor time"):
        in_child(endless, tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (DataError("no weights"), BadInput, "^no weights$"),
        (BadInput("no file"), BadInput, "^no file$"),
        (Conflict("other weights"), Conflict, "^other weights$"),
        (BackendUnreachable("disk is full"), BackendUnreachable, "^disk is full$"),
        (RecursionError(), BadInput, "nested too deeply"),
        (TypeError("no\nsuch"), BadInput, "x.pth cannot be read, for an unforeseen reason: TypeError: no$"),
    ],
)
def test_an_error_keeps_its_kind(tmp_path: Path, error: Exception, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        in_child(lambda: fails(error), tmp_path / "x.pth")
