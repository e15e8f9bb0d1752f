"""The values that an open repository gives out: revisions, and collections of what has a name."""
