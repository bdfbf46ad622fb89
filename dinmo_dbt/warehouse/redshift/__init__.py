"""Redshift: the engine that reads it through a cursor on the server, what its types become, what its errors mean."""
