"""What `merge`, `cherry-pick`, `revert` and `rebase` share: changes of commits, made again somewhere else."""
