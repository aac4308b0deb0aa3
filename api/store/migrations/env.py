"""Alembic's entry point: runs the migrations on the connection that `api.store.database` hands over."""

from alembic import context

from api.store.models import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters tables by copying them
)
with context.begin_transaction():
    context.run_migrations()
