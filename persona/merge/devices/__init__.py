"""A GPU's memory and queues, and the choice between CPU and GPU."""
