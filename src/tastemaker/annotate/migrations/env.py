"""Alembic runs this: the connection comes from `migrate.upgrade`."""

from alembic import context

from tastemaker.annotate.database import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
