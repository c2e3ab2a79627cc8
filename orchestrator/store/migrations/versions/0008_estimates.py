"""When each job that runs will end, as its driver estimates it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "estimates",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("seconds_left", sa.Double(), nullable=False),
        sa.Column("written", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_estimates_job_id")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_estimates")),
    )
