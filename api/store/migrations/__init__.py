"""Alembic migrations of the service's database; `api.store.database` runs them at start-up."""
