"""Postgres: the engine that reads it by COPY, what values arrive as, and our own tables in it."""
