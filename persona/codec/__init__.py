"""The elements of a tensor <-> segments, without loss and without I/O.

Nouns
    element    one number of a tensor, seen as an unsigned integer of its width (`elements`)
    chunk      a fixed span of one tensor's elements: what is encoded at a time
    segment    a run of bytes that the store compresses by itself and gives back whole
    form       a 32-bit number that names how elements became segments: codec version, layout, element type
    plane      byte p of every element of a span, as a segment
    z          the change of one element: the zigzag of its distance in ulps (`delta`)
    exponent order   the elements of a base chunk, stably sorted by their exponent field

Invariants
    Decoding what was encoded gives the same bits back, for every bit pattern.
    Segments that cannot have come from the encoder raise `IntegrityError` before anything is read from them.
    Nothing here compresses, reads, writes or knows of ids but `delta.delta_payload`.
"""
