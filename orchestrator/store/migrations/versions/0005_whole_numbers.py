"""Whole numbers that a spec may choose, or that count steps, get 64 bits. SQLite's INTEGER has them already."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"

_COLUMNS = {
    "jobs": ("priority",),
    "trials": ("seed", "epochs", "epoch", "step", "token"),
    "attempts": ("token",),
    "reports": ("epoch", "step"),
    "drivers": ("priority",),
    "tracked": ("reports_through",),
    "pictures": ("epoch",),
}


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        return
    for table, columns in _COLUMNS.items():
        # One statement a table: each rewrites its rows.
        changes = ", ".join(f"ALTER COLUMN {column} TYPE BIGINT" for column in columns)
        op.execute(f"ALTER TABLE {table} {changes}")
