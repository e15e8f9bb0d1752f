"""Recipe and store -> weights, and checkpoint -> vector.

Nouns
    reference   the specification in plain torch, whole tensors; the kernels equal it bit for bit
    rules       what decides a merge, as numbers
    intake      a checkpoint becomes a base or a vector
    plan        what a checkout has to do for each tensor; no chunk is read
    cut-off     the smallest magnitude that a density keeps, found exactly
    stream      finished bytes, chunk by chunk, in order, from all cores
"""
