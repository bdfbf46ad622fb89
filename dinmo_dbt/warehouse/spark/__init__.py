"""Spark: the engine that reads a session in this process by Arrow, what its types become, and what its errors mean."""
