"""A checkpoint becomes a base or a vector: matched with the base, checked, encoded."""
