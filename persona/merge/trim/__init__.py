"""Which elements of a vector a term keeps."""
