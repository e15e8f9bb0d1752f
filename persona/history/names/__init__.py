"""Revisions: names, dates and ranges to commits, and the walk over their history."""
