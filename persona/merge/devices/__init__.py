"""The memory and the queues of a GPU, and where a merge runs."""
