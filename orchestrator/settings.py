"""The only place that reads the environment: where the store, the tracking server, the data and the cluster are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Addresses and folders of one installation. Precedence: flag, environment, default."""

    folder: Path
    """Everything we write lives here unless an address says otherwise (default: runs/)."""
    database_url: str
    tracking_uri: str
    data_root: Path
    storage: Path
    """Checkpoints and weights; every node must see it under this path."""
    address: str | None
    """Ray cluster; none: a local one is started, or the one we started earlier is used."""


def settings(
    folder: str | Path | None = None,
    database_url: str | None = None,
    tracking_uri: str | None = None,
    data_root: str | Path | None = None,
    storage: str | Path | None = None,
    address: str | None = None,
) -> Settings:
    """Fills what is not given from ORCHESTRATOR_RUNS, DATABASE_URL, MLFLOW_TRACKING_URI, DATA_ROOT,
    ORCHESTRATOR_STORAGE and RAY_ADDRESS, then from defaults under `folder`. Writes nothing."""
    env = os.environ
    home = Path(folder or env.get("ORCHESTRATOR_RUNS") or "runs").absolute()
    return Settings(
        folder=home,
        database_url=database_url or env.get("DATABASE_URL") or f"sqlite:///{home / 'store.db'}",
        tracking_uri=tracking_uri or env.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}",
        data_root=Path(data_root or env.get("DATA_ROOT") or "data").absolute(),
        storage=Path(storage or env.get("ORCHESTRATOR_STORAGE") or home / "storage").absolute(),
        address=address or env.get("RAY_ADDRESS") or None,
    )
