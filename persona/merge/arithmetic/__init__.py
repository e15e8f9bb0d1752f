"""One chunk merged: the CPU loops, the Triton kernel, casts between element types."""
