"""`recipe.toml`: reading, editing, checking, comparing and merging."""
