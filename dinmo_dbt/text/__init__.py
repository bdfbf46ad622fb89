"""Texts of others, and times, as people and programs read them. Pure."""
