"""The differences between two plans."""
