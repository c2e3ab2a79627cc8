"""Stores that earlier versions wrote: brought up to date, they give the results that were recorded with them."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType

import psycopg
import pytest
import sqlalchemy as sa

from orchestrator.records.rows import JobRecord
from orchestrator.settings import settings
from orchestrator.store import tables
from orchestrator.store.store import open_store, open_to_look

FROZEN = Path(__file__).parents[2] / "data" / "stores"
VERSIONS = sorted(path.stem for path in FROZEN.glob("*.json"))


@pytest.fixture(scope="module")
def make() -> Iterator[ModuleType]:
    """The script that made them."""
    sys.path.insert(0, str(FROZEN))
    import make as script

    yield script
    sys.path.remove(str(FROZEN))


@pytest.fixture(params=["sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest, version: str, tmp_path: Path) -> Iterator[str]:
    """Address of a database with the frozen store."""
    if request.param == "sqlite":
        file = tmp_path / "store.db"
        file.write_bytes(gzip.decompress((FROZEN / f"{version}.db.gz").read_bytes()))
        yield f"sqlite:///{file}"
        return
    address: str = request.getfixturevalue("postgres")
    name = f"frozen_{uuid.uuid4().hex}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    url = address.replace("/postgres?", f"/{name}?")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(gzip.decompress((FROZEN / f"{version}.sql.gz").read_bytes()).decode())
    yield url
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_each_version_since_they_are_kept_is_there() -> None:
    assert [revision for revision in tables.REVISIONS if revision >= "0004"] == VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_a_frozen_store_gives_its_results(opened: str, version: str, make: ModuleType, tmp_path: Path) -> None:
    recorded = json.loads((FROZEN / f"{version}.json").read_text(encoding="utf-8"))
    assert recorded["differences"] == []
    with closing(open_to_look(settings(folder=tmp_path, database_url=opened))) as store:
        assert make.results(store, recorded["job"]) == recorded  # as it is, if this version can read it so
    with closing(open_store(opened, create=False)) as store:  # up to date
        assert make.results(store, recorded["job"]) == recorded
        store.jobs.put(JobRecord("new", "new", "p", {}, "", priority=2**40))
        assert store.jobs.get("new").priority == 2**40
    driver = "postgresql+psycopg" if opened.startswith("postgresql") else "sqlite"
    engine = sa.create_engine(sa.make_url(opened).set(drivername=driver))
    with engine.connect() as connection:
        found = connection.exec_driver_sql(f"SELECT version_num FROM {tables.VERSION_TABLE}").scalars().all()
    engine.dispose()
    assert found == [tables.REVISIONS[-1]]


def test_the_files_are_small() -> None:
    for path in FROZEN.glob("*.gz"):
        assert path.stat().st_size < 60_000, path


def test_a_frozen_store_is_not_made_again(make: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(make, "HERE", tmp_path)
    shutil.copy(FROZEN / f"{VERSIONS[-1]}.json", tmp_path)
    with pytest.raises(SystemExit, match="is frozen already"):
        make.main()
