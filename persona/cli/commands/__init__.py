"""One module per command, named like it, with `_` for `-`. Each holds `command`; `main` loads one."""
