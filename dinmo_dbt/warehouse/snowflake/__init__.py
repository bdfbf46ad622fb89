"""Snowflake: the engine that reads its Arrow chunks, what its types become, and what its errors mean."""
