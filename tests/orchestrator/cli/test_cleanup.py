"""gc, pin and unpin as typed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gc_lab import Lab, a_finished_study, key_of

from orchestrator.cli.main import main
from orchestrator.report import describe


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Lab]:
    """On SQLite alone: for what does not depend on the database."""
    made = Lab(f"sqlite:///{tmp_path / 'store.db'}", tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def typed(local: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A command's stdout and stderr together, at this store and storage."""

    def call(*arguments: str, code: int = 0) -> str:
        where = ["--database-url", local.url, *(["--storage", str(local.storage)] if arguments[0] == "gc" else [])]
        monkeypatch.setattr(sys, "argv", ["orchestrator", *arguments, *where])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        assert (end.value.code or 0) == code, out + err
        assert "Traceback" not in err
        return str(out + err)

    return call


def test_the_plan_lists_and_the_command_removes(local: Lab, typed: Callable[..., str]) -> None:
    a_finished_study(local)
    text = typed("gc", "--plan")
    assert "would remove 14 files, 3,200 bytes" in text
    assert "not chosen, best or last, not pinned, and nothing needs it" in text
    assert "kept: weights of 2 best, 1 chosen, 1 last: 4 files, 4,000 bytes" in text
    assert local.weights(key_of(2))
    plan = json.loads(typed("gc", "--plan", "-o", "json"))
    assert (plan["removable_bytes"], plan["removed"]) == (3200, None)
    assert {each["key"] for each in plan["removable"] if each["kind"] == "weights"} == {key_of(2), key_of(4)}
    assert {reason["kind"] for kept in plan["kept"] for reason in kept["reasons"]} == {"chosen", "best", "last"}
    done = json.loads(typed("gc", "-o", "json"))
    assert (done["removed_bytes"], len(done["removed"]), done["refused"]) == (3200, 14, [])
    assert not local.weights(key_of(2))
    assert "removed 0 files, 0 bytes" in typed("gc")


def test_the_plan_writes_nothing(local: Lab, typed: Callable[..., str], tmp_path: Path) -> None:
    """As with `status`, the right to read is enough; the removal itself is recorded."""
    a_finished_study(local)
    local.store.close()

    def contents() -> dict[Path, tuple[bytes, int]]:
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file()}

    before = contents()
    assert tmp_path / "store.db-wal" not in before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.store.database.writing_engine", lambda url, busy: pytest.fail("opened to write"))
        assert "would remove 14 files" in typed("gc", "--plan")
    assert contents() == before
    assert "removed 14 files" in typed("gc")
    assert contents() != before


def test_pin_and_unpin_as_typed(local: Lab, typed: Callable[..., str]) -> None:
    a_finished_study(local)
    assert "trial 020202020202 is pinned" in typed("pin", "grid/all/2", "--why", "figure 3")
    assert "was pinned already" in typed("pin", key_of(2)[:8])
    assert "job study-1 is pinned" in typed("pin", "study")
    assert "pinned: figure 3" in describe.trial(local.store, key_of(2), local.storage).text()
    assert "no longer pinned" in typed("unpin", "study")
    assert "job study-1 is not pinned; pins: 020202020202" in typed("unpin", "study", code=4)
    typed("gc")
    assert local.weights(key_of(2))
    assert "no trial has the name" in typed("pin", "nothing", code=4)


def test_wrong_flags_are_named(local: Lab, typed: Callable[..., str]) -> None:
    assert "'soon' is no age" in typed("gc", "--older-than", "soon", code=2)
    assert "no job has the name 'nothing'" in typed("gc", "--job", "nothing", code=4)
    assert "no trial has written anything" in typed("gc", "--older-than", "1.5h")
