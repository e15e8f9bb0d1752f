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
    **dict.fromkeys(
        ("cherry", "merge-base", "range-diff"), "`persona log A...B` shows the commits since two parted"
    ),
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
) | {
    **{option: f"{option} stands before the command" for option in ("--no-pager", "--paginate", "-C")},
    **dict.fromkeys(
        ("--color", "--no-color"), "answers have colours only on a terminal, and none if NO_COLOR is set"
    ),
}
"""Options of git's that have no meaning here, or only before the command, and why."""

_NO_SIGNATURES = "persona signs no commits with keys"
_NO_REMOTES = f"there are no remotes; {_COPY}"
_ONE_BY_ONE = "`persona restore FILE` puts a whole file back, and an editor undoes a part of it"
_A_BASE = "a commit needs a base; `persona init DIR --base MODEL` begins another history"
_WHITESPACE = "diffs show every change; recipe.toml is compared by its values"
_NO_SUBMODULES = "a repository holds one model and its recipes"
_SUMMARIES = ("--numstat", "--shortstat", "--dirstat", "--summary", "--raw", "--compact-summary")
_A_SUMMARY = "--stat shows a summary, --name-status the files, and --json all values"
_LINES = "diffs show whole lines, and three lines around a change"
_RENAMES = ("-M", "--find-renames", "--no-renames")
_NO_RENAMES = "files have no renames; a vector keeps its id when `persona mv OLD NEW` renames it"
_PLAIN_TEXT = (
    "recipe.toml is a text: `persona diff` shows its edits, `persona restore recipe.toml` drops them"
)
_NO_HOOKS = "there are no hooks"
_IN_JSON = "--json prints all values"
_MESSAGES = "write the message with -m or -F"

OF_COMMANDS: Final[dict[str, dict[str, str]]] = {
    "add": {
        "--dry-run": "`persona status` lists untracked files",
        **dict.fromkeys(("-A", "--all", "-u", "--update"), "`persona commit` records all tracked files"),
        **dict.fromkeys(("-p", "--patch", "-i", "--interactive", "-e", "-N"), _NOT_STAGED),
        **dict.fromkeys(("-f", "--force"), "no file is ignored"),
    },
    "blame": {
        **dict.fromkeys(("--porcelain", "-p", "-s", "-e", "-l", "-t"), _IN_JSON),
        "-L": "`persona blame --vector NAME` shows only one vector",
        **dict.fromkeys(("-C", "-M", "-w"), "blame compares values, and follows renamed vectors by itself"),
    },
    "branch": {
        **dict.fromkeys(("--unset-upstream", "--no-track"), _NO_REMOTES),
        "--points-at": "`persona branch -v` shows the commit of each branch",
        "--column": "one name stands on each line",
        **dict.fromkeys(("-c", "-C", "--copy"), "`persona branch NEW OLD` makes a branch at the same commit"),
        **dict.fromkeys(("-r", "--remotes", "-t", "--track", "-u", "--set-upstream-to"), _NO_REMOTES),
        **dict.fromkeys(("--sort", "--format"), "`persona branch -v` shows each commit, --json all of it"),
        "--edit-description": "`persona notes add BRANCH` writes a note on its last commit",
    },
    "checkout": {
        **dict.fromkeys(("-d", "--detach"), "a revision that is no branch detaches HEAD by itself"),
        "-B": "`persona switch -C NEW REV`, then `persona checkout`",
        "--orphan": _A_BASE,
        **dict.fromkeys(("-p", "--patch"), _ONE_BY_ONE),
        **dict.fromkeys(("-t", "--track", "--guess"), _NO_REMOTES),
        **dict.fromkeys(("-m", "--merge"), "`persona stash`, then `checkout`, then `persona stash pop`"),
        "--recurse-submodules": _NO_SUBMODULES,
    },
    "cherry-pick": {
        **dict.fromkeys(("-S", "--gpg-sign", "-s", "--signoff"), _NO_SIGNATURES),
        "--strategy-option": "-X ours, -X theirs or -X mean decides conflicts",
        "--ff": "a commit that is in its place already stays as it is in `persona rebase`",
        "--allow-empty": "a commit that changes nothing is left out",
    },
    "commit": {
        **dict.fromkeys(("--short", "--porcelain", "--long"), "`persona status -s` shows the next commit"),
        **dict.fromkeys(("-p", "--patch", "-i", "--include", "-o", "--interactive"), _NOT_STAGED),
        **dict.fromkeys(("-S", "--gpg-sign", "-s", "--signoff"), _NO_SIGNATURES),
        **dict.fromkeys(("-C", "-c", "--reuse-message", "--reedit-message"), _MESSAGES),
        **dict.fromkeys(("-e", "--edit"), "without -m and -F an editor opens"),
        "--no-verify": "there are no hooks",
        **dict.fromkeys(("-t", "--template", "--trailer", "--cleanup"), _MESSAGES),
        "--dry-run": "`persona status` shows what the next commit holds",
        "--allow-empty-message": "every commit has a message",
    },
    "config": {
        "--get": "`persona config KEY` prints a value",
        "--local": "without --global, the setting is the repository's",
        "--system": "there are the settings of the repository and those of the user (--global)",
        **dict.fromkeys(("-e", "--edit"), ".persona/config is TOML: open it in your editor"),
    },
    "describe": dict.fromkeys(("--all", "--contains"), "`persona log --decorate` shows branches and tags"),
    "diff": {
        **dict.fromkeys(("-S", "-G"), "`persona log -S TEXT` and `persona log -G RE` find commits"),
        "--merge-base": "`persona diff A...B` begins at the commit where both parted",
        "--diff-filter": "--name-status shows A, D or M before each file",
        **dict.fromkeys(("--minimal", "--patience", "--histogram"), "there is one way to compare lines"),
        **dict.fromkeys(_RENAMES, _NO_RENAMES),
        **dict.fromkeys(("-z", "--raw"), _IN_JSON),
        **dict.fromkeys(("-w", "-b", "--ignore-all-space", "--ignore-space-change"), _WHITESPACE),
        **dict.fromkeys(("--word-diff", "--color-words", "-U", "--unified"), _LINES),
        **dict.fromkeys(("--numstat", "--shortstat", "--summary"), "--stat shows a summary"),
        "-R": "exchange the two revisions",
        "--no-index": "`diff -u` of the shell compares any two files",
    },
    "fsck": dict.fromkeys(
        ("--unreachable", "--dangling", "--lost-found"), "commits that no name reaches are always listed"
    ),
    "log": {
        "--abbrev-commit": "--oneline or --format '%h %s' prints short ids",
        **dict.fromkeys(_SUMMARIES, _A_SUMMARY),
        **dict.fromkeys(
            ("--full-history", "--simplify-merges", "--sparse"), "without FILE, log shows every commit"
        ),
        **dict.fromkeys(
            ("-E", "-F", "-P", "--extended-regexp", "--fixed-strings", "--perl-regexp"),
            "RE is always a regular expression of Python; -S TEXT looks for a plain text",
        ),
        **dict.fromkeys(("--left-right", "--ancestry-path"), "A..B and B..A show each side"),
        "--diff-filter": "--name-status shows A, D or M before each file",
        "--relative-date": "use --date relative",
        "--no-walk": "`persona show REV` shows only this commit",
        **dict.fromkeys(("--parents", "--children"), "--format '%H %P' prints the parents"),
        **dict.fromkeys(_RENAMES, _NO_RENAMES),
        "-w": _WHITESPACE,
        **dict.fromkeys(("-U", "--word-diff"), _LINES),
        "-z": _IN_JSON,
        **dict.fromkeys(("-g", "--walk-reflogs"), "`persona reflog [NAME]` shows a reflog"),
        "-L": "`persona blame` names the commit of each value",
        "--follow": "files have no renames; `persona blame` follows a renamed vector",
        **dict.fromkeys(("--branches", "--tags"), "--all starts from every branch and every tag"),
        "--remotes": _NO_REMOTES,
        "--pickaxe-all": "-S shows all changes of a commit with -p",
        "--pickaxe-regex": "-G RE looks for a regular expression in the changed lines",
        **dict.fromkeys(
            ("--cherry-pick", "--cherry-mark", "--cherry"), "`persona log A...B` shows both sides"
        ),
        **dict.fromkeys(("--topo-order", "--date-order"), "--graph has children above parents"),
        **dict.fromkeys(("-m", "-c", "--cc"), "-p shows a merge against its first parent"),
    },
    "merge": {
        "--commit": "a merge without conflicts makes its commit",
        **dict.fromkeys(("--no-verify", "--verify"), _NO_HOOKS),
        **dict.fromkeys(("-S", "--gpg-sign", "--signoff"), _NO_SIGNATURES),
        **dict.fromkeys(("-s", "--strategy-option"), "-X ours, -X theirs or -X mean decides conflicts"),
        "--allow-unrelated-histories": "`persona add PATH` takes over a fine-tune of another history",
        "--autostash": "`persona stash`, then `merge`, then `persona stash pop`",
        **dict.fromkeys(("-n", "--no-stat", "--stat", "--log"), "`persona diff A B --stat` shows a summary"),
        "-F": "write the message with -m, or with -e in the editor",
        "--skip": "a merge is one commit; --abort goes back",
    },
    "mv": {
        **dict.fromkeys(
            ("-f", "--force", "-k"), "mv renames a vector; files are renamed with the shell's mv"
        ),
        **dict.fromkeys(("-n", "--dry-run"), _PLAIN_TEXT),
    },
    "notes": {"--ref": "there is one kind of notes"},
    "rebase": {
        **dict.fromkeys(("-s", "--strategy-option"), "-X ours, -X theirs or -X mean decides conflicts"),
        **dict.fromkeys(("--merge", "--apply"), "there is one way to rebase"),
        **dict.fromkeys(("--no-verify", "--verify"), _NO_HOOKS),
        **dict.fromkeys(
            ("--committer-date-is-author-date", "--ignore-date", "--reset-author-date"),
            "`persona commit --amend --date DATE` changes the date of one commit",
        ),
        "--reapply-cherry-picks": "a commit whose change is there would be empty",
        "--root": "the first commit brings the base: `persona rebase -i FIRST` takes all commits after FIRST",
        "--autostash": "`persona stash`, then `rebase`, then `persona stash pop`",
        "-p": "merges are left out; merge again after the rebase",
        **dict.fromkeys(("-r", "--rebase-merges"), "merges are left out; merge again after the rebase"),
        **dict.fromkeys(("-S", "--gpg-sign", "--signoff"), _NO_SIGNATURES),
        **dict.fromkeys(
            ("-f", "--force-rebase", "--no-ff"), "a commit that is in its place already stays as it is"
        ),
        "--keep-base": "`persona rebase --onto COMMIT UPSTREAM` puts the commits where you say",
        "--fork-point": "`persona rebase --onto NEW OLD` takes the commits after OLD",
        "--update-refs": "`persona branch -f NAME REV` moves the other branches",
        "--show-current-patch": "`persona show REBASE_HEAD` shows the commit that stopped",
        **dict.fromkeys(
            ("--empty", "--keep-empty"), "a commit that was empty stays, one that becomes so goes"
        ),
    },
    "reset": {
        "--merge": "`persona merge --abort` goes back; `persona reset --hard` drops edits",
        "--keep": "`persona switch -c NEW REV` takes edits along; `persona stash` puts them aside",
        **dict.fromkeys(("-p", "--patch"), _ONE_BY_ONE),
    },
    "restore": {
        **dict.fromkeys(("-W", "--worktree"), "there is no staging area: restore writes the work tree"),
        "--conflict": "`persona restore -m FILE` writes a conflict as git's style `merge` does",
        **dict.fromkeys(("-S",), _NOT_STAGED),
        **dict.fromkeys(("-p", "--patch"), _ONE_BY_ONE),
    },
    "rev-parse": {
        **dict.fromkeys(
            ("--git-dir", "--absolute-git-dir"), "the store is `.persona` below what --show-toplevel prints"
        ),
        **dict.fromkeys(("--is-inside-work-tree", "--is-inside-git-dir"), "--show-toplevel fails outside"),
        **dict.fromkeys(
            ("--branches", "--tags", "--all"), "`persona branch -v` and `persona tag` list names"
        ),
    },
    "revert": {
        **dict.fromkeys(("-S", "--gpg-sign", "-s", "--signoff"), _NO_SIGNATURES),
        "--strategy-option": "-X ours, -X theirs or -X mean decides conflicts",
    },
    "rm": {
        **dict.fromkeys(
            ("-r", "-f", "--force"),
            "rm drops a vector; files are removed with the shell's rm, then `persona commit`",
        ),
        **dict.fromkeys(("-n", "--dry-run"), _PLAIN_TEXT),
    },
    "show": {
        **dict.fromkeys(("-m", "-c", "--cc"), "show compares a merge with its first parent"),
        **dict.fromkeys(_SUMMARIES, _A_SUMMARY),
        "--abbrev-commit": "--oneline or --format '%h %s' prints short ids",
        "-w": _WHITESPACE,
        **dict.fromkeys(("-U", "--word-diff"), _LINES),
    },
    "stash": {
        **dict.fromkeys(("-p", "--patch", "-k"), "`persona stash push -- FILE` puts whole files aside"),
        **dict.fromkeys(("-a", "--all"), "no file is ignored: -u takes all untracked files"),
    },
    "status": {
        "--ignored": "no file is ignored",
        **dict.fromkeys(("-u", "--untracked-files"), "untracked files are always listed"),
        "--show-stash": "`persona stash list` lists the stashes",
        "-z": _IN_JSON,
    },
    "switch": {
        "--orphan": _A_BASE,
        "--discard-changes": "use -f",
        **dict.fromkeys(("-t", "--track", "--guess"), _NO_REMOTES),
        **dict.fromkeys(("-m", "--merge"), "`persona stash`, then `switch`, then `persona stash pop`"),
        "--recurse-submodules": _NO_SUBMODULES,
    },
    "tag": {
        **dict.fromkeys(("-i", "--ignore-case"), "a pattern may be '[vV]*'"),
        "--column": "one name stands on each line",
        **dict.fromkeys(("-s", "--sign", "-u", "--local-user", "--verify"), _NO_SIGNATURES),
        **dict.fromkeys(("--sort", "--format", "--points-at"), "`persona log --all --decorate` shows tags"),
    },
}
"""Options of one command of git's that persona's does not have, and what to do instead."""


def absent(word: str) -> str | None:
    """The answer to a command of git's that persona does not have; None for any other word."""
    if word in PLANNED:
        return f"persona has no `{word}` yet; {PLANNED[word]}"
    return f"persona has no `{word}`; {ABSENT[word]}" if word in ABSENT else None


def instead(command: str, option: str) -> str | None:
    """What to do instead of an option of git's that a command does not have; None for any other option.

    `command`: its words, as `stash push`.
    """
    words = command.split()
    for name in (words[-1:], words[:1]):
        if name and (found := OF_COMMANDS.get(name[0], {}).get(option)) is not None:
            return found
    return OPTIONS.get(option)


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
