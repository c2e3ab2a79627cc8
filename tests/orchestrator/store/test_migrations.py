"""Migrations that change rows: what they change, and what they leave."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from orchestrator.store import database as database_module
from orchestrator.store.store import open_store


def upgraded(engine: sa.Engine, revision: str) -> None:
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(database_module.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def test_figures_of_an_analysis_lose_their_direction(database_url: str) -> None:
    """Their rows say neither, those of other figures are as they were, and trials find their set by its name."""
    url = sa.make_url(database_url)
    if url.get_backend_name() == "sqlite":
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    else:
        url = url.set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url)
    upgraded(engine, "0006")
    insert = sa.text("INSERT INTO metrics VALUES (:of, :position, :name, :name, :better, '', 1.0, 3, '')")
    sets = {"a": {"attention_distance": "higher", "cka_biased_min": "higher", "loss": "lower"},
            "b": {"top1": "higher", "cka_mean": "lower"}}  # fmt: skip
    rows = [
        {"of": of, "position": n, "name": name, "better": better}
        for of, metrics in sets.items()
        for n, (name, better) in enumerate(metrics.items())
    ]
    with pytest.raises(sa.exc.IntegrityError, match="ck_metrics_better"), engine.begin() as connection:
        connection.execute(insert, {**rows[0], "better": "neither"})
    with engine.begin() as connection:
        connection.execute(insert, rows)
    open_store(database_url).close()
    with engine.connect() as connection:
        found = connection.execute(sa.text("SELECT metric_set, name, better FROM metrics ORDER BY 1, position")).all()
    assert found == [
        ("a", "attention_distance", "neither"), ("a", "cka_biased_min", "neither"), ("a", "loss", "lower"),
        ("b", "top1", "higher"), ("b", "cka_mean", "lower"),
    ]  # fmt: skip
    with pytest.raises(sa.exc.IntegrityError, match="ck_metrics_better"), engine.begin() as connection:
        connection.execute(insert, {**rows[0], "of": "c", "better": "both"})
    engine.dispose()
