"""Fixtures of the tests of the mirror."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from mirrored_job import World


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; to make one takes seconds."""
    from orchestrator.tracking.server import check_reachable, prepare_process

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    prepare_process()
    check_reachable(f"sqlite:///{file}")
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the file alone is copied
    connection.close()
    return file


@pytest.fixture
def new_world(tmp_path: Path, migrated: Path) -> Callable[[], World]:
    def make() -> World:
        folder = tmp_path / f"w{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        shutil.copy(migrated, folder / "mlflow.db")
        return World(folder, f"sqlite:///{folder / 'mlflow.db'}")

    return make


@pytest.fixture
def world(new_world: Callable[[], World]) -> World:
    return new_world()
