"""Bisect: its state on disk, its midpoints, and its log. `history/verbs/bisect.py` moves HEAD."""
