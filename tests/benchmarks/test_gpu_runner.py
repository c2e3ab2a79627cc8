"""What watches the checks of benchmarks/gpu.py: one that hangs, dies or is late costs no other."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CHILD = """
import json, os, signal, sys, time

part, checks, path = sys.argv[sys.argv.index("--child") + 1 :][:3]
lines = open(path, "a", buffering=1)

def say(**what):
    lines.write(json.dumps(what) + "\\n")

def row(name, **figures):
    say(row={"name": name, "state": "passed", "figures": figures})

with open(os.environ["STARTED"], "a") as started:
    started.write(checks + "\\n")
if part == "refused":
    say(refused="no device")
    sys.exit(0)
if part == "unable":
    sys.exit("no module")
say(machine={"cpu": "fake"})
for check in checks.split(","):
    say(begin=check)
    if check == "dies":
        os.kill(os.getpid(), signal.SIGSEGV)
    row(check, number=1.5)
    if check == "hangs":
        time.sleep(1000)
    row(check, number=2.5)
    say(end=check)
    if check == "breaks_the_device":
        sys.exit(3)
"""


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The runner, with a script in the place of gpu.py that needs no torch."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from gpu import runner

    script = tmp_path / "child.py"
    script.write_text(CHILD)
    monkeypatch.setattr(runner, "ENTRY", script)
    monkeypatch.setenv("STARTED", str(tmp_path / "started"))
    yield runner
    for name in [name for name in sys.modules if name.partition(".")[0] == "gpu"]:
        del sys.modules[name]


def run(gpu: ModuleType, share: float, *parts: tuple[str, tuple[tuple[str, float], ...]]) -> Any:
    """Each part with its name and its checks, (name, most seconds)."""
    from gpu.parts import Check, Part

    listed = [Part(name, share, tuple(Check(*check) for check in checks)) for name, checks in parts]
    saved: list[int] = []
    result = gpu.run(listed, share * len(parts), "cpu", True, lambda result: saved.append(len(result.rows)))
    if not result.refused:
        assert len(saved) == len(parts)
    return result


def states(result: Any) -> dict[str, str]:
    return {row.name: str(row.state) for row in result.rows}


def test_a_check_that_hangs_or_dies_costs_no_other(gpu: ModuleType, tmp_path: Path) -> None:
    checks = (("first", 60.0), ("hangs", 1.0), ("second", 60.0), ("dies", 60.0), ("third", 60.0))
    result = run(gpu, 100, ("some", checks), ("other", (("fourth", 60.0),)))
    assert states(result) == {
        "first": "passed", "hangs": "STOPPED", "second": "passed", "dies": "BROKE", "third": "passed",
        "fourth": "passed",
    }  # fmt: skip
    rows = {row.name: row for row in result.rows}
    assert rows["first"].figures == {"number": 2.5}  # the later row of the same name
    assert rows["hangs"].figures == {"number": 1.5}  # what it had found is kept
    assert rows["hangs"].note == "over its 1 s"
    assert rows["dies"].note.startswith("its process ended with SIGSEGV")
    assert [row.part for row in result.rows] == [*["some"] * 5, "other"]
    started = (tmp_path / "started").read_text().splitlines()
    assert started == ["first,hangs,second,dies,third", "second,dies,third", "third", "fourth"]
    assert not result.sound
    assert result.machine == {"cpu": "fake"}


def test_an_unusable_device_costs_a_process_and_no_check(gpu: ModuleType, tmp_path: Path) -> None:
    result = run(gpu, 100, ("some", (("breaks_the_device", 60.0), ("next", 60.0))))
    assert states(result) == {"breaks_the_device": "passed", "next": "passed"}
    assert (tmp_path / "started").read_text().splitlines() == ["breaks_the_device,next", "next"]
    assert result.sound


def test_a_part_that_used_up_its_share_says_so(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "LEAST_S", 1)
    result = run(gpu, 6, ("some", (("first", 60.0), ("hangs", 60.0), ("never", 60.0))))
    assert states(result) == {"first": "passed", "hangs": "STOPPED", "never": "not run"}
    notes = {row.name: row.note for row in result.rows}
    assert notes["hangs"] == notes["never"] == "the 6 s of part some were used up"


def test_checks_in_turn_take_their_time_and_the_last_find_none_left(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpu.parts import Check, Part

    monkeypatch.setattr(gpu, "LEAST_S", 1)
    parts = [Part("some", 60, (Check("first", 30), Check("hangs", 30))), Part("other", 30, (Check("never", 30),))]
    result = gpu.run(parts, 5, "cpu", False, lambda result: None, in_turn=True)
    assert states(result) == {"first": "passed", "hangs": "STOPPED", "never": "not run"}
    assert 4 < result.seconds < 12  # the budget, not what the parts say


def test_checks_are_chosen_in_the_order_in_which_they_are_named(gpu: ModuleType) -> None:
    from gpu.parts import chosen

    wanted = ["speed.profile", "speed.compiled", "dense.pose", "speed.swinv2_b"]
    parts = chosen(wanted)
    assert [f"{part.name}.{check.name}" for part in parts for check in part.checks] == wanted
    assert [part.name for part in parts] == ["speed", "dense", "speed"]
    assert parts[0].share == sum(check.most for check in parts[0].checks)
    assert chosen(["speed.profile", "speed.nothing"]) == ()


def test_a_part_that_cannot_start_is_told_once_and_the_next_one_runs(gpu: ModuleType, tmp_path: Path) -> None:
    result = run(gpu, 100, ("unable", (("first", 60.0), ("second", 60.0))), ("other", (("third", 60.0),)))
    assert states(result) == {"first": "BROKE", "second": "BROKE", "third": "passed"}
    assert "exit code 1 | no module" in result.rows[0].note
    assert len((tmp_path / "started").read_text().splitlines()) == 2


def test_no_device_is_refused_at_once(gpu: ModuleType, tmp_path: Path) -> None:
    result = run(gpu, 100, ("refused", (("first", 60.0),)), ("other", (("second", 60.0),)))
    assert result.refused == "no device"
    assert len((tmp_path / "started").read_text().splitlines()) == 1


def test_rows_become_a_table_and_a_file(gpu: ModuleType, tmp_path: Path) -> None:
    from gpu import record
    from gpu.record import Result, Row, State

    rows = [
        Row("base", State.measured, {"images/s": 1500.0, "plain images/s": 1000.0, "ratio": 1.5}, part="speed"),
        Row("base: more", State.measured, {"images/s": 1800.0, "MFU": float("nan")}, against="base", part="speed"),
        Row("lone", State.failed, {"same bits": False}, aim="same bits", note="why", part="other"),
    ]
    record.compare(rows)
    assert rows[1].figures["ratio"] == 1.8
    result = Result("cpu", False, 300, rows, {"gpu": "NVIDIA H100 80GB HBM3"}, date="2026-01-02")
    assert not result.sound
    table = record.table(result)
    assert "base: more  measured  images/s 1,800, MFU nan, ratio 1.8\n" in table
    assert "lone        FAILED    same bits no, [same bits], why\n" in table
    path = record.default_path(result, tmp_path)
    assert path.relative_to(tmp_path) == Path("benchmarks/results/gpu-2026-01-02-nvidia-h100-80gb-hbm3.json")
    content = json.loads(record.write(result, path, tmp_path).read_text())
    assert content["commit"] is None
    assert content["rows"][1]["figures"] == {"images/s": 1800.0, "MFU": "nan", "ratio": 1.8}
