"""A model in memory whose weights follow a recipe, in place."""
