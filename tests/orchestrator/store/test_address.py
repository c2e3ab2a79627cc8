"""Addresses of stores that cannot be used: one message that names DATABASE_URL and shows no password."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from orchestrator.errors import BackendUnreachable, OrchestratorError
from orchestrator.store.store import open_store


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@host:abc/db",
        "postgresql://me:secret@host:/db",
        "postgresql://me:secret@host:-1/db",
        "postgresql://me:secret@127.0.0.1:99999999/db",
        "postgresql://me:secret@[::1/db",
        "postgresql://me:secret@::1/db",
        "postgresql://me:secret@127.0.0.1:1/db?bar=1",
        "postgresql://me:secret@127.0.0.1:1/db?connect_timeout=x",
        "postgresql://me:secret@127.0.0.1:1/db?connect_timeout=",
        "postgresql://me:secret@127.0.0.1:1/db?sslmode=secret",
        "postgresql://me:secret@127.0.0.1:1/db?password=secret&port=x",
        "postgresql://me:secret@127.0.0.1:1/d%00b",
        "postgresql://me:secret%00@127.0.0.1:1/db",
        "postgresql://me:sec@secret@host/db",
        "postgresql://me:sec/ret@secret@host/db",
        "postgresql://me:sec@ret/secret@host/db",
        "postgresql://me:secret@host/db?user=secret@host",
        "mysql://me:secret@host/db",
        "postgresql:/me:secret@host/db",
        "sqlite+aiosqlite:///x.db",
        "sqlite:///x.db?bar=1",
        "sqlite:///x.db?timeout=x",
        "sqlite:///x.db?mode=ro&uri=true",
        "sqlite://host/x.db",
        "sqlite:///a%00b.db",
        "sqlite:///a%ffb.db",
        "sqlite:///" + 300 * "a",
        "sqlite:////proc/none/store.db",
        "sqlite:////dev/null/store.db",
        "sqlite:////dev/null",
        "sqlite:////",
    ],
)
def test_an_address_that_cannot_be_used_is_one_message(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for create in (True, False):
        with pytest.raises(OrchestratorError, match=r"DATABASE_URL|store|No jobs") as refused:
            open_store(url, create)
        message = str(refused.value)
        assert "\n" not in message
        assert "secret" not in message
        assert "sec" not in message.replace("seconds", "").replace("section", "")
        assert len(message) < 900
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_at_in_a_password_has_a_remedy() -> None:
    with pytest.raises(BackendUnreachable, match=r"more than one @: write an @ .* as %40"):
        open_store("postgresql://me:p@ss@host/db")


def test_a_new_store_is_private(tmp_path: Path) -> None:
    open_store(f"sqlite:///{tmp_path}/runs/store.db").close()
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "runs", tmp_path / "runs" / "store.db")]
    assert modes == [0o700, 0o600]
