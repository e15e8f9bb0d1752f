"""The change from a base to the weights of a plan, as low-rank factors: exact, or by singular values."""
