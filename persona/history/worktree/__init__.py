"""The files beside `.persona`: which are tracked, which changed, and every change to them."""
