"""The key of file names after `--`, in a module of its own for all that read them."""

FILES = "persona.files"
"""Key of click's `ctx.meta`: the words after `--`, or None without `--`."""
