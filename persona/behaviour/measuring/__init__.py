"""Effect, spill and damage of the weights of a recipe, measured against its base."""
