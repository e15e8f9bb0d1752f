"""A plan to bytes: threads, hashes, reuse."""
