"""The text of a recipe and its values: read, edited, compared, merged. Knows no repository."""
