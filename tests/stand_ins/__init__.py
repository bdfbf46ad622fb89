"""Whole runs against servers that stand in for warehouses that nobody can run at home: docs/warehouses.md."""
