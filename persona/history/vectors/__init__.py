"""Vectors of a repository: looked up, imported, counted, trimmed."""
