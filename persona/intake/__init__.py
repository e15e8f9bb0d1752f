"""Checkpoint -> base or vector."""
