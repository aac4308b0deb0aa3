"""Alembic migrations of the service's database; `api.database` runs them at start-up."""
