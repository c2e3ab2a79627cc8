"""Fixtures of the tests of the report: made-up studies in real stores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from recorded_study import Plot, Study

from orchestrator.report.build import build
from orchestrator.report.model import Report
from orchestrator.store.store import Store, open_store

PAPER = {"RAND": {"digits": 80.0, "faces": 70.0}, "SUP": {"digits": 96.0, "faces": 99.0, "Average": 97.0}}
"""The average of RAND is not stated, so it is computed: 75.0."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Nothing is recorded in it."""
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.close()


def made(folder: Path, plot: Plot) -> tuple[Store, Report]:
    opened = open_store(f"sqlite:///{folder / 'store.db'}")
    return opened, build(opened, Study(opened, plot).run())


@pytest.fixture(scope="session")
def whole_study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Report]]:
    opened, report = made(tmp_path_factory.mktemp("whole"), Plot(reference=PAPER))
    yield opened, report
    opened.close()


@pytest.fixture(scope="session")
def hurt_study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Report]]:
    failed, diverged, running = ("faces/RAND",), ("digits/RAND",), {"faces/SUP": "running"}
    opened, report = made(
        tmp_path_factory.mktemp("hurt"),
        Plot(failed_grid=failed, diverged_grid=diverged, final_state=running, dirty=True),
    )
    yield opened, report
    opened.close()


@pytest.fixture
def whole(whole_study: tuple[Store, Report]) -> Report:
    """Nothing went wrong."""
    return whole_study[1]


@pytest.fixture
def hurt(hurt_study: tuple[Store, Report]) -> Report:
    """One group failed in its grid, one had diverging trials, one is still running its last seed."""
    return hurt_study[1]
