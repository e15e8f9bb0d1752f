"""One module per command, named as the command with `_` for `-`. Each holds `command`; `main` loads the one
that runs."""
