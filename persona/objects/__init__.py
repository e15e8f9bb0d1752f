"""Objects: bytes <-> values. Pure: no I/O, no numba, no torch.

The nouns, each in its own module: id, weights digest, canonical encoding, names, tensor spec and chunk span,
table, base, vector, rules, recipe and term, tree, commit and tag, note.
"""
