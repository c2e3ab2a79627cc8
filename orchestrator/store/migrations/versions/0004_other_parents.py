"""Trials whose weights a trial needs beside those that its backbone starts from. No earlier trial has any."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "other_parents",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("parent", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name=op.f("fk_other_parents_trial_id")),
        sa.PrimaryKeyConstraint("trial_id", "parent", name=op.f("pk_other_parents")),
    )
    op.create_index("ix_other_parents_parent", "other_parents", ["parent"], unique=False)
