"""Which recipe: revisions, the work tree, commits, checkout, and every other verb.

Every module does one job on a `history.History`. `merge/` knows what a recipe means, `store/` keeps the
bytes.
"""
