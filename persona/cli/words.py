"""Answers to unknown commands: git's commands by name, typing errors by the command that was meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_COPY = "a repository is a directory: copy it, for example with cp -a or rsync"
_NOTHING = "nothing needs cleaning up; `persona count-objects` shows what is stored"

PLANNED: Final[dict[str, str]] = {
    "clone": _COPY,
    "fetch": _COPY,
    "gc": _NOTHING,
    "maintenance": _NOTHING,
    "pull": _COPY,
    "push": _COPY,
    "remote": _COPY,
}
"""git's commands that persona will have, and what to use until then."""

ABSENT: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("am", "apply", "format-patch"), "`persona diff` shows changes; edit recipe.toml by hand"
    ),
    "annotate": "use `persona blame`",
    "archive": "`persona checkout REV -o DIR` writes a model directory",
    **dict.fromkeys(("bundle", "ls-remote", "send-email", "request-pull"), _COPY),
    **dict.fromkeys(("cherry", "merge-base", "range-diff"), "`persona log A...B` shows where two parted"),
    "init-db": "use `persona init`",
    "version": "use `persona --version`",
    "clean": "remove files that are not tracked with rm",
    **dict.fromkeys(("diff-files", "diff-index", "diff-tree", "difftool"), "use `persona diff`"),
    **dict.fromkeys(("for-each-ref", "show-ref", "show-branch", "name-rev"), "use `persona branch -v`"),
    "grep": "`persona log -p` shows what each commit changed",
    **dict.fromkeys(
        ("ls-files", "ls-tree"),
        "`persona cat-file -p HEAD` prints the tree id, and `persona cat-file -p TREE` lists its files",
    ),
    "mergetool": "edit recipe.toml, then `persona merge --continue`",
    **dict.fromkeys(("pack-refs", "prune", "repack"), _NOTHING),
    **dict.fromkeys(("rev-list", "shortlog"), "use `persona log --oneline`"),
    "stage": "there is no staging area: `persona commit` records the files as they stand",
    **dict.fromkeys(
        ("submodule", "subtree", "sparse-checkout"), "a repository holds one model and its recipes"
    ),
    **dict.fromkeys(("symbolic-ref", "update-ref"), "use `persona switch`, `branch -f` or `reset`"),
    "whatchanged": "use `persona log -p`",
    "worktree": "`persona checkout REV -o DIR` writes a model directory",
    **dict.fromkeys(
        (
            "backfill bugreport check-attr check-ignore check-mailmap check-ref-format checkout-index "
            "citool column commit-graph commit-tree credential credential-cache credential-store "
            "cvsexportcommit cvsimport cvsserver daemon diagnose diff-pairs fast-export fast-import "
            "fetch-pack filter-branch filter-repo fmt-merge-msg for-each-repo fsck-objects "
            "get-tar-commit-id gitk gitweb gui hash-object history hook http-backend http-fetch http-push "
            "imap-send index-pack instaweb interpret-trailers last-modified lfs mailinfo mailsplit "
            "merge-file merge-index merge-octopus merge-one-file merge-ours merge-recursive "
            "merge-recursive-ours merge-recursive-theirs merge-resolve merge-subtree merge-tree mktag "
            "mktree multi-pack-index p4 pack-objects pack-redundant patch-id pickaxe prune-packed "
            "quiltimport read-tree receive-pack refs remote-ext remote-fd remote-ftp remote-ftps "
            "remote-http remote-https replace replay repo rerere scalar send-pack shell show-index "
            "stripspace svn unpack-file unpack-objects update-index update-server-info upload-archive "
            "upload-pack var verify-commit verify-pack verify-tag write-tree"
        ).split(),
        "`persona help` lists the commands",
    ),
}
"""Other commands of git, and what to use instead."""


_NOT_STAGED = (
    "there is no staging area: `persona commit` records recipe.toml and the tracked files as they stand"
)
OPTIONS: Final[dict[str, str]] = dict.fromkeys(
    ("--cached", "--staged", "--keep-index", "--index"), _NOT_STAGED
) | {option: f"{option} stands before the command" for option in ("--no-pager", "--paginate", "-C")}
"""Options of git's that have no meaning here, or only before the command, and why."""


def absent(word: str) -> str | None:
    """The answer to a command of git's that persona does not have; None for any other word."""
    if word in PLANNED:
        return f"persona has no `{word}` yet; {PLANNED[word]}"
    return f"persona has no `{word}`; {ABSENT[word]}" if word in ABSENT else None


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The one of `words` that `word` is a slip of: one edit away, or two if it has six letters or more."""
    plain = word.lstrip("-")
    near = [(_distance(plain, other.lstrip("-")), other) for other in words]
    distance, found = min(near, default=(len(word), ""))
    return found if distance <= max(1, min(2, len(plain) // 3)) < len(plain) else None


def _distance(one: str, other: str) -> int:
    """Letters added, left out, replaced, or exchanged with a neighbour between two words."""
    if abs(len(one) - len(other)) > 2:
        return max(len(one), len(other))
    above: list[int] = []
    row = list(range(len(other) + 1))
    for i, left in enumerate(one):
        above, last, row = row, above, [i + 1]
        for j, right in enumerate(other):
            best = min(above[j] + (left != right), above[j + 1] + 1, row[j] + 1)
            if i and j and left == other[j - 1] and right == one[i - 1]:
                best = min(best, last[j - 1] + 1)
            row.append(best)
    return row[-1]
