"""Effect, spill and damage of the weights of a recipe, measured against its base.

`neutral.txt` is the text that damage is measured on. It was written for this project, and the project's
license, Apache-2.0, covers it. Its people and places are invented.
"""
