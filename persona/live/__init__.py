"""A model in memory that recipes are merged into."""
