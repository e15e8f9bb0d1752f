"""Recipes of other programs: read into terms and rules, and written from them."""
