"""BigQuery: the engine that reads it by Arrow, what its types become, and what its errors mean."""
