"""The command line. One file per command in `commands/`: parse, one library call, render.

`entry` is what is installed, `main` finds and loads the command, `command` is what every command has in
common, `invocation` is one run of one command, `errors` says what went wrong, `words` answers a word that
is none of persona's, `messages` gets a commit's message, `render`, `diffs` and `graph` turn
results into text, `terminal` lets nothing through that steers a terminal, `progress` is the one progress
bar, `identity` finds out who commits. Only this folder prints, prompts, exits or reads the environment. A
process imports the one command that it runs; numpy, rich, tomlkit and zstandard are never imported by this
folder's modules as they load.
"""
