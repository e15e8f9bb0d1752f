"""Values <-> canonical bytes. Pure: no I/O, no numba, no torch.

Each kind of object has its own module.
"""
