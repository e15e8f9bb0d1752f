"""Bytes on disk: records of opaque segments. The store knows no tensor and no history.

Invariants, also after a power cut at any point: every object that a ref names is complete and readable; a ref
holds its old or its new value; an object under its id is never rewritten in place, and a damaged one never
counts as stored; stored bytes are verified before anything is decompressed; no symbolic link, FIFO or device
in the store is followed.
"""
