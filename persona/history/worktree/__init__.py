"""The work tree: tracked text files, weights, the lock, and moves from one commit to another."""
