"""The list of commits that an interactive rebase works through, as text in git's form.

A line is an action and a commit: `pick 3f2a91c0 a little less`. Lines that begin with `#` are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Many
from dataclasses import replace
from typing import Final

from persona.errors import Refused, UsageError, quoted
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.recipes.text import MIN_PREFIX
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
    "exec": "exec",
}
_SHORT: Final = {"x" if word == "exec" else word[0]: word for word in _WORDS}
_SQUASHES: Final = ("squash", "fixup")
_APART: Final = ("break", "exec")
"""Actions without a commit."""
_MARKS: Final[dict[str, Action]] = {"fixup! ": "fixup", "squash! ": "squash"}
"""How the subject of a commit begins that is to be put into another one, and the action for it."""
_HELP: Final = """
# Actions:
# p, pick COMMIT = take the commit over
# r, reword COMMIT = take it over, and edit its message
# e, edit COMMIT = take it over, and stop there to amend it
# s, squash COMMIT = put its change into the commit above, and join the messages
# f, fixup COMMIT = the same, without its message
# d, drop COMMIT = leave the commit out
# b, break = stop here; `rebase --continue` goes on
# x, exec COMMAND = run COMMAND in the shell, and stop here if it fails
#
# The lines can be put in another order. A commit whose line is deleted is left out.
# If you delete all lines, nothing is rebased.
"""


def written(history: History, todo: Many[Todo], onto: str) -> str:
    """The text of a list."""
    lines = [_line(history, one) for one in todo]
    number = sum(one.action not in _APART for one in todo)
    count = f"{number} commit{'' if number == 1 else 's'}"
    return "\n".join([*lines, "", f"# Rebase {count} onto {abbreviate(onto)}", _HELP.lstrip("\n")])


def _line(history: History, one: Todo) -> str:
    if one.action in _APART:
        return f"{one.action} {one.message}" if one.message else one.action
    return f"{one.action} {abbreviate(one.commit)} {history.commit(one.commit).subject}"


def read(history: History, text: str, *, begun: bool = False) -> tuple[Todo, ...]:
    """The list that a text means. `UsageError` for a line that means nothing, `Refused` for an empty list.

    `begun`: commits of the rebase are made already, so that the rest of the list may be empty.
    """
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
        if action == "exec":
            found.append(Todo("exec", "", None, _command(line.strip().partition(words[0])[2], number)))
            continue
        if len(words) < 2:
            raise UsageError(f"line {number} of the list: {word} needs a commit")
        commit = resolve(history, words[1])
        if action is None:
            continue
        if action in _SQUASHES and not (begun or any(one.action not in _APART for one in found)):
            raise UsageError(f"line {number} of the list: there is no commit above to {word} into")
        found.append(Todo(action, commit))
    if not found and not begun:
        raise Refused("the list of commits is empty; nothing is rebased")
    return tuple(found)


def _command(text: str, number: int) -> str:
    if not text.strip():
        raise UsageError(f"line {number} of the list: exec needs a command")
    return text.strip()


def with_commands(todo: Many[Todo], commands: Many[str]) -> tuple[Todo, ...]:
    """The list with commands to run after each commit; after what is squashed into it, too."""
    execs = []
    for command in commands:
        if not command.strip() or "\n" in command:
            raise UsageError("a command of a rebase is one line, and not empty")
        execs.append(Todo("exec", "", None, command.strip()))
    found: list[Todo] = []
    for one in todo:
        found += execs if found and one.action not in _SQUASHES else []
        found.append(one)
    return (*found, *execs)


def autosquashed(history: History, todo: Many[Todo]) -> tuple[Todo, ...]:
    """The list with each `fixup!` and `squash!` commit below the commit that it is meant for, as in git.

    That is the first commit above whose subject is the rest of its own, or begins with it, or whose id does.
    """
    groups: dict[str, list[Todo]] = {}
    group_of: dict[str, list[Todo]] = {}
    subjects: dict[str, str] = {}
    for one in todo:
        subject = history.commit(one.commit).subject
        action, rest = _marked(subject)
        target = _meant(subjects, rest) if action is not None else None
        subjects[one.commit] = subject
        if action is None or target is None:
            group = groups[one.commit] = [one]
        else:
            group = group_of[target]
            group.append(replace(one, action=action))
        group_of[one.commit] = group
    return tuple(one for group in groups.values() for one in group)


def _marked(subject: str) -> tuple[Action | None, str]:
    """The action that a subject asks for, and the subject of the commit that is meant."""
    action: Action | None = None
    while mark := next((mark for mark in _MARKS if subject.startswith(mark)), None):
        action = action or _MARKS[mark]
        subject = subject.removeprefix(mark).lstrip()
    return action, subject


def _meant(subjects: Mapping[str, str], text: str) -> str | None:
    """The commit, of those above, that a text means."""
    ways: tuple[Callable[[str, str], bool], ...] = (
        lambda id, subject: subject == text,
        lambda id, subject: len(text) >= MIN_PREFIX and id.startswith(text),
        lambda id, subject: subject.startswith(text),
    )
    found = (id for way in ways for id, subject in subjects.items() if way(id, subject))
    return next(found, None)


def with_messages(
    history: History,
    todo: Many[Todo],
    edit: Callable[[str], str] = lambda text: text,
    *,
    above: str = "",
    known: Many[Todo] = (),
) -> tuple[Todo, ...]:
    """The list with the messages of reworded and squashed commits, which `edit` may change.

    So all messages are known before the first commit is made. `above`: the message of the commit that the
    list begins from. `known`: entries whose messages were edited before.
    """
    found: list[Todo] = []
    said = above
    joined = False
    reworded = {one.commit: one.message for one in known if one.action == "reword" and one.message}
    for number, one in enumerate(todo):
        if one.action in _APART:
            found.append(one)
            continue
        own = history.commit(one.commit).message
        if one.action == "squash":
            said, joined = f"{said.rstrip()}\n\n{_without_mark(own)}", True
        elif one.action != "fixup":
            said, joined = own, False
        if one.action == "reword":
            said = reworded.get(one.commit) or edit(own)
            one = replace(one, message=said)
        following = todo[number + 1].action if number + 1 < len(todo) else None
        if one.action in _SQUASHES and joined and following not in _SQUASHES:
            said = edit(said)
            one = replace(one, message=said)
        found.append(one)
    return tuple(found)


def _without_mark(message: str) -> str:
    """The message of a squashed commit without a subject that only names the commit above, as in git."""
    subject, _, rest = message.partition("\n")
    return rest.lstrip("\n") if _marked(subject)[0] is not None else message
