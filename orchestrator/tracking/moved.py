"""Mends MLflow's own database after its folder was moved: MLflow records whole paths of artifacts."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.errors import BackendUnreachable
from orchestrator.tracking.server import artifact_root

WAIT_S = 20.0


def mend(uri: str, folder: Path) -> int:
    """Where a SQLite database of MLflow names a folder of artifacts that is not there, and `folder` holds one of the
    same name, it names that from now on, for the experiment and its runs; returns the number of experiments. A database
    in `folder` itself names no other than its own: of a copy, both the copy and the original are there. Other databases
    are left alone. Raises BackendUnreachable."""
    match = re.fullmatch(r"sqlite:///(/?[^?]*)", uri)
    if match is None:
        return 0
    file, root = Path(unquote(match[1])), artifact_root(folder)
    if not file.is_file() or not root.is_dir():
        return 0
    changed = 0
    try:
        with contextlib.closing(sqlite3.connect(file, timeout=WAIT_S)) as database, database:
            for number, before in database.execute(
                "SELECT experiment_id, artifact_location FROM experiments"
            ).fetchall():
                now = _now(str(before or ""), root, file.parent.samefile(folder))
                if now is None:
                    continue
                changed += 1
                database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (now, number))
                database.execute(
                    "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) WHERE experiment_id = ? AND "
                    "substr(artifact_uri, 1, ?) = ?",
                    (now, len(before) + 1, number, len(before) + 1, f"{before}/"),
                )
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):  # not MLflow's yet
            return 0
        raise BackendUnreachable(f"{file} cannot be written ({error})") from error
    return changed


def _now(before: str, root: Path, own: bool) -> str | None:
    """The address of the folder that an experiment's artifacts were moved to; None where nothing was moved. `own`: the
    database lies beside the artifacts, so that both were copied together where the former folder is still there."""
    parts = urlsplit(before)
    if parts.scheme != "file":
        return None
    was = Path(unquote(parts.path))
    here = root / was.name
    if was.parent.name != root.name or not here.is_dir():
        return None
    if was.exists() and (not own or was.samefile(here)):
        return None
    return here.as_uri()
