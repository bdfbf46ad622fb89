"""Scripted and seeded faults: what goes wrong, at which call, and by which draw."""
