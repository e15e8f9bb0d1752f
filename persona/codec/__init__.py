"""The elements of a tensor <-> segments, without loss and without I/O.

**element** — one number of a tensor, as an unsigned integer of its width.
**segment** — a run of bytes that the store compresses separately and gives back whole.
**form** — a 32-bit number that says how elements became segments: codec version, layout, element type.
**plane** — one byte of every element of a run, as a segment.

Invariants: decoding gives the encoded bits back, for every bit pattern. Segments that cannot have come from
the encoder raise `IntegrityError` before anything is read from them. Nothing here compresses, reads or
writes, and only `delta.delta_payload` knows of ids.
"""
