"""Alembic's entry: migrations run on the connection `open_store` hands over, inside its transaction."""

from alembic import context

from edgeops.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
