"""The command line. One file per command in `commands/`: parse, one library call, render.

`entry` is the installed script, `main` finds and loads the command, `command` holds what all commands share,
`invocation` is one run of one command, `errors` reports failures, `words` answers unknown commands,
`messages` gets a commit's message, `render`, `diffs` and `graph` turn results into text, `terminal` stops
control characters, `progress` is the one progress bar, and `identity` finds the author. Only this folder
prints, prompts, exits or reads the environment. A process imports only the command that it runs. The modules
of this folder never import numpy, rich, tomlkit and zstandard when they load.
"""
