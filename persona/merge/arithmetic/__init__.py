"""One chunk merged: on the CPU, on a GPU, and the casts between dtypes."""
