"""Vectors by name, and what is known about them."""
