"""The version of persona."""

__version__ = "0.1.0"
