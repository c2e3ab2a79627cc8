"""Alembic's environment: runs the migrations on the store's own connection, inside its transaction."""

from __future__ import annotations

from alembic import context

from orchestrator.store.tables import VERSION_TABLE, complete

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=complete(),
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite alters a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
