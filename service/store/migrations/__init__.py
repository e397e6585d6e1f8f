"""Alembic migrations of our tables (version table `regsearch_version`); Optuna keeps its own."""
