"""A pattern into a vector: the optimizer, the losses, and runs that can be cut short and resumed."""
