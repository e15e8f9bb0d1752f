"""A plan to bytes: threads, hashes, and the places that the bytes go to."""
