"""The list of commits that an interactive rebase works through, as text in git's form.

A line is an action and a commit: `pick 3f2a91c0 a little less`. Lines that begin with `#` are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import replace
from typing import Final

from persona.errors import Refused, UsageError, quoted
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.sequencing.state import Action, Todo
from persona.objects.ids import abbreviate

_WORDS: Final[dict[str, Action | None]] = {
    "pick": "pick",
    "reword": "reword",
    "edit": "edit",
    "squash": "squash",
    "fixup": "fixup",
    "drop": None,
    "break": "break",
}
_SHORT: Final = {word[0]: word for word in _WORDS}
_HELP: Final = """
# Actions:
# p, pick COMMIT = take the commit over
# r, reword COMMIT = take it over, and edit its message
# e, edit COMMIT = take it over, and stop there to amend it
# s, squash COMMIT = put its change into the commit above, and join the messages
# f, fixup COMMIT = the same, without its message
# d, drop COMMIT = leave the commit out
# b, break = stop here; `rebase --continue` goes on
#
# The lines can be put in another order. A commit whose line is deleted is left out.
# If you delete all lines, nothing is rebased.
"""


def written(history: History, todo: Many[Todo], onto: str) -> str:
    """The text of a list."""
    lines = [f"{one.action} {abbreviate(one.commit)} {history.commit(one.commit).subject}" for one in todo]
    count = f"{len(todo)} commit{'' if len(todo) == 1 else 's'}"
    return "\n".join([*lines, "", f"# Rebase {count} onto {abbreviate(onto)}", _HELP.lstrip("\n")])


def read(history: History, text: str) -> tuple[Todo, ...]:
    """The list that a text means. `UsageError` for a line that means nothing, `Refused` for an empty list."""
    found: list[Todo] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split(maxsplit=2)
        if not words or words[0].startswith("#"):
            continue
        word = _SHORT.get(words[0], words[0])
        if word not in _WORDS:
            raise UsageError(
                f"line {number} of the list: {quoted(words[0], 40)} is no action; the actions are"
                f" {', '.join(_WORDS)}"
            )
        action = _WORDS[word]
        if action == "break":
            found.append(Todo("break", ""))
            continue
        if len(words) < 2:
            raise UsageError(f"line {number} of the list: {word} needs a commit")
        commit = resolve(history, words[1])
        if action is None:
            continue
        if action in ("squash", "fixup") and not any(one.action != "break" for one in found):
            raise UsageError(f"line {number} of the list: there is no commit above to {word} into")
        found.append(Todo(action, commit))
    if not found:
        raise Refused("the list of commits is empty; nothing is rebased")
    return tuple(found)


def with_messages(
    history: History, todo: Many[Todo], edit: Callable[[str], str] = lambda text: text
) -> tuple[Todo, ...]:
    """The list with the messages of reworded and squashed commits, which `edit` may change.

    So all messages are known before the first commit is made.
    """
    found: list[Todo] = []
    said = ""
    joined = False
    for number, one in enumerate(todo):
        if one.action == "break":
            found.append(one)
            continue
        own = history.commit(one.commit).message
        if one.action == "squash":
            said, joined = f"{said.rstrip()}\n\n{own}", True
        elif one.action != "fixup":
            said, joined = own, False
        if one.action == "reword":
            said = edit(own)
            one = replace(one, message=said)
        following = todo[number + 1].action if number + 1 < len(todo) else None
        if one.action in ("squash", "fixup") and joined and following not in ("squash", "fixup"):
            said = edit(said)
            one = replace(one, message=said)
        found.append(one)
    return tuple(found)
