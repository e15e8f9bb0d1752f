"""The rows of a merge: a vector's differences, whatever its kind."""
