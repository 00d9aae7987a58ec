"""Alembic's entry: runs on the connection that upgrade.py hands over."""

from __future__ import annotations

from alembic import context

from gradwatch_server.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
