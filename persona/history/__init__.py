"""History: which recipe. Repository, revisions, walks, work tree, commits, checkout, revert, refs, fsck.

`repository.Repository` is the face; every other module does one of its jobs on a `history.History`. What a
recipe *means* is `merge/`'s affair, and bytes on disk are `store/`'s.
"""
