"""The graph: patterns, one a file, the links between them, and the vectors that they own."""
