"""Databricks: the engine that reads its Arrow results, what its types become, and what its errors mean."""
