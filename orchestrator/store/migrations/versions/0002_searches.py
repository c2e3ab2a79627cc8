"""Adds searches (their events, trials they stopped), pictures, pins, and weights taken from other jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_STATES = "state IN ('pending', 'running', 'done', 'diverged', 'failed', 'cancelled', 'stopped')"


def upgrade() -> None:
    _more_states()
    op.create_table(
        "search_events",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("grp", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("body_json", sa.Text(), nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_search_events_job_id")),
        sa.PrimaryKeyConstraint("job_id", "stage", "grp", "number", name=op.f("pk_search_events")),
    )
    op.create_table(
        "pictures",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name=op.f("fk_pictures_trial_id")),
        sa.PrimaryKeyConstraint("trial_id", "epoch", "path", name=op.f("pk_pictures")),
    )
    op.create_table(
        "pins",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_pins")),
    )
    op.create_table(
        "origins",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("asked", sa.String(), nullable=False),
        sa.Column("written", sa.String(), nullable=False),
        sa.Column("from_job", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("grp", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("candidates", sa.Integer(), nullable=False),
        sa.Column("decided", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_origins_job_id")),
        sa.ForeignKeyConstraint(["from_job"], ["jobs.id"], name=op.f("fk_origins_from_job")),
        sa.PrimaryKeyConstraint("job_id", "asked", name=op.f("pk_origins")),
    )
    op.create_index("ix_origins_written", "origins", ["written"], unique=False)


def _more_states() -> None:
    """Allows the state `stopped`.

    SQLite cannot change a constraint, so there this edits the statement that made the table, as its manual describes
    for constraints that no stored row can break (https://sqlite.org/lang_altertable).
    """
    if op.get_bind().dialect.name != "sqlite":
        op.drop_constraint("ck_trials_state", "trials")
        op.create_check_constraint(op.f("ck_trials_state"), "trials", _STATES)
        return
    connection = op.get_bind()
    version = connection.scalar(sa.text("PRAGMA schema_version"))
    connection.execute(sa.text("PRAGMA writable_schema = ON"))
    connection.execute(
        sa.text(
            "UPDATE sqlite_master SET sql = replace(sql, '''cancelled'')', '''cancelled'', ''stopped'')') "
            "WHERE type = 'table' AND name = 'trials'"
        )
    )
    connection.execute(sa.text(f"PRAGMA schema_version = {int(version) + 1}"))
    connection.execute(sa.text("PRAGMA writable_schema = OFF"))
