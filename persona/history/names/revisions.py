"""**revision** — any name of a commit, or a range of commits (docs/commands.md).

A name is looked for in git's order: the full ref, a tag, a branch, a remote's branch, the start of an id. For
a destination or a reflog, a branch comes before a tag. If a branch and a tag have the same name, `notes` gets
a note. It also gets one if a reflog does not go back far enough.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from typing import Final

from persona.errors import Blank, Call, InvalidInput, UnknownRevision, quoted
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.names.walk import first_parents, merge_bases, walk
from persona.history.recipes.text import MIN_PREFIX
from persona.history.results import iso_date
from persona.objects.commit import Person
from persona.objects.ids import abbreviate, is_id
from persona.store.ref_files import made_again
from persona.store.reflog import Entry
from persona.store.refs import HEADS, TAGS, NoteList

_SUFFIX: Final = re.compile(r"~(\d{0,9})(?!\d)|\^(\d{0,9})(?![\d{])|\^\{(\w*|/[^}]*)\}", re.ASCII)
_DESCRIBED: Final = re.compile(r".+-\d+-(g[0-9a-f]{4,64})", re.ASCII)
"""A name that `describe` prints. Like git, this reads only the digits of the id."""
_STASH: Final = "stash"
_NO_COMMITS: Final = ("tree", "blob", "tag")
MOVED: Final = re.compile(r"checkout: moving from (\S+) to (\S+)")
"""Why HEAD moved between branches, as its reflog says."""
MAX_STEPS: Final = 10_000_000
_LEFT: Final = {
    "ORIG_HEAD": ("orig_head", ""),
    "MERGE_HEAD": ("sequence", "merge"),
    "CHERRY_PICK_HEAD": ("sequence", "cherry-pick"),
    "REVERT_HEAD": ("sequence", "revert"),
    "REBASE_HEAD": ("sequence", "rebase"),
}
"""Names of commits that a command left: the value of `state/` that holds it, and the verb of a sequence."""


@dataclass(frozen=True)
class Range:
    """Commits to start from, and commits whose history is left out."""

    starts: tuple[str, ...]
    hidden: tuple[str, ...]


def resolve(history: History, text: str, notes: NoteList | None = None) -> str:
    """The commit id that a revision names. Raises `UnknownRevision`."""
    if not text or (text.startswith("-") and text != "-"):
        raise _unknown(text)
    if text.startswith(":/"):
        return _by_message(history, text[2:], _everything(history, text, notes), text)
    if is_id(text):
        return _commit_of(history, text, text)
    name, suffixes = _split(text)
    id = _named(history, name, text, notes)
    for suffix in suffixes:
        id = _step(history, id, suffix, text)
    return id


def resolve_range(history: History, texts: Iterable[str], notes: NoteList | None = None) -> Range:
    """The commits that revisions and ranges (`A..B`, `A...B`, `^A`) select together."""
    starts: list[str] = []
    hidden: list[str] = []
    for text in texts:
        if text.startswith("^"):
            hidden.append(resolve(history, text[1:], notes))
        elif not text.startswith(":/") and "..." in text:
            left, right = (resolve(history, side or "HEAD", notes) for side in text.split("...", 1))
            starts += [left, right]
            hidden += merge_bases(history, left, right)
        elif not text.startswith(":/") and ".." in text:
            left, right = (resolve(history, side or "HEAD", notes) for side in text.split("..", 1))
            starts.append(right)
            hidden.append(left)
        else:
            starts.append(resolve(history, text, notes))
    return Range(tuple(starts), tuple(hidden))


def branch_named(history: History, text: str, notes: NoteList | None = None) -> str | None:
    """The full ref of a branch, if the text is nothing but a branch; else None.

    `main`, `refs/heads/main`, `-` and `@{-1}` name a branch.
    """
    if text == "-" or re.fullmatch(r"@\{-\d{1,6}\}", text):
        count = 1 if text == "-" else int(text[3:-1])
        text = _before(history, count, text)
        return None if is_id(text) else _existing(history, HEADS + text)
    if text.startswith(HEADS):
        return _existing(history, text)
    branch = _existing(history, HEADS + text)
    if branch is not None and _existing(history, TAGS + text) is not None:
        _note_ambiguous(notes, text, "branch", "tag")
    return branch


def full_ref(
    history: History, text: str, notes: NoteList | None = None, *, branch_first: bool = False
) -> str | None:
    """The full name of the ref that a short name means, or None. `HEAD` and `@` are HEAD.

    A tag comes before a branch of its name, unless it is asked for the other way around.
    """
    if text in ("HEAD", "@"):
        return "HEAD"
    if text.startswith("refs/") and (ref := _existing(history, text)) is not None:
        return ref
    if text.startswith(("heads/", "tags/")) and (ref := _existing(history, f"refs/{text}")) is not None:
        return ref
    words = ("branch", "tag") if branch_first else ("tag", "branch")
    found = [
        (word, ref)
        for word in words
        if (ref := _existing(history, (TAGS if word == "tag" else HEADS) + text)) is not None
    ]
    if len(found) == 2:
        _note_ambiguous(notes, text, *words)
    return found[0][1] if found else _existing(history, "refs/remotes/" + text)


def ref_name(history: History, text: str, *, full: bool = False, notes: NoteList | None = None) -> str | None:
    """The branch or tag that a revision is: `main`, or `refs/heads/main` in full. Of HEAD, its branch.

    None for a commit that is named in another way. Raises `UnknownRevision`.
    """
    resolve(history, text, notes)
    ref = full_ref(history, text) or branch_named(history, text)
    if ref == "HEAD":
        kind, value = history.store.refs.head()
        ref = value if kind == "ref" else ref
    if ref is None or full:
        return ref
    short = ref.removeprefix(HEADS).removeprefix(TAGS)
    both = all(_existing(history, prefix + short) for prefix in (HEADS, TAGS))
    return ref.removeprefix("refs/") if both else short


def _existing(history: History, ref: str) -> str | None:
    """The full name of a ref, or None if it does not exist or is not a possible name."""
    try:
        return ref if history.store.refs.read(ref) is not None else None
    except InvalidInput:
        return None


def _note_ambiguous(notes: NoteList | None, name: str, taken: str, other: str) -> None:
    full = {"tag": TAGS, "branch": HEADS}[other] + name
    if notes is not None:
        notes.append(f"{name} is a tag and a branch: the {taken} is taken; {full} is the {other}")


def _split(text: str) -> tuple[str, list[str]]:
    """`main@{1}~2^` as "main@{1}" and ["~2", "^"]."""
    brace = text.find("@{")
    start = text.find("}", brace) + 1 if brace >= 0 else 0
    if start < brace or any(char in "~^" for char in text[: max(brace, 0)]):
        raise _unknown(text)
    start = next((at for at in range(start, len(text)) if text[at] in "~^"), len(text))
    name, rest = text[:start], text[start:]
    suffixes: list[str] = []
    while rest:
        match = _SUFFIX.match(rest)
        if match is None:
            raise _unknown(text)
        suffixes.append(match[0])
        rest = rest[match.end() :]
    return name, suffixes


def _named(history: History, name: str, text: str, notes: NoteList | None) -> str:
    """The commit that a revision without steps names."""
    if name == "-":
        name = "@{-1}"
    if match := re.fullmatch(r"(.*?)@\{(.*)\}", name):
        return _in_reflog(history, match[1], match[2], text, notes)
    if name.endswith("_HEAD") and (id := _left_by_command(history, name)) is not None:
        return _commit_of(history, id, text)
    ref = full_ref(history, name, notes)
    if ref is None and name == _STASH:
        return _stashed(history, 0, text)
    if ref is None and (described := _DESCRIBED.fullmatch(name)):
        name = described[1][1:]
    if ref == "HEAD":
        id = history.store.refs.head_id()
        if id is None:
            raise UnknownRevision(f"{text}: there is no commit yet")
        return id
    if ref is not None:
        held = history.store.refs.read(ref)
        if held is None:  # deleted meanwhile
            raise _unknown(text)
        return _commit_of(history, held, text)
    return _by_id(history, name, text)


def _left_by_command(history: History, name: str) -> str | None:
    """The commit of `ORIG_HEAD`, or of `MERGE_HEAD` and the like while a command waits."""
    state, verb = _LEFT.get(name, ("", ""))
    value = history.store.state(state).read() if state else None
    if name == "ORIG_HEAD":
        return value if is_id(value) else None
    if not isinstance(value, dict) or value.get("verb") != verb or not isinstance(value.get("stop"), dict):
        return None
    id = value["stop"].get("commit")
    return id if is_id(id) else None


def _by_id(history: History, name: str, text: str) -> str:
    found = history.objects_starting(name)
    commits = [id for id, kind in found if kind in ("commit", "tag")]
    if len(commits) == 1:
        return _commit_of(history, commits[0], text)
    if len(commits) > 1:
        listed = "; ".join(_described(history, id, len(name)) for id in commits[:8])
        raise UnknownRevision(f"{name} is ambiguous: {len(commits)} commits begin with it: {listed}")
    if found:
        raise UnknownRevision(f"{text} is not a commit: {abbreviate(found[0][0])} is a {found[0][1]}")
    last = history.last_of_gone(name)
    if last is not None:
        again = made_again(HEADS + name, last)
        hint = None if again is None else (again, " makes it again")
        raise UnknownRevision(f"the branch {name} is gone; it was at {abbreviate(last)}", hint=hint)
    raise _unknown(text)


def _described(history: History, id: str, digits: int) -> str:
    try:
        subject = history.commit(id).subject
    except Exception:  # a tag, or damaged: only the id
        subject = ""
    return f"{id[: max(digits + 4, 8)]} {subject}".rstrip()


def _commit_of(history: History, id: str, text: str) -> str:
    """The commit that an id is or that its tag names."""
    id, kind = history.peeled(id)
    if kind is None:
        history.commit(id)  # raises its error
    elif kind == "tag":
        raise UnknownRevision(f"{text}: too many tags that point to tags")
    elif kind != "commit":
        raise UnknownRevision(f"{text} is not a commit: {abbreviate(id)} is a {kind}")
    return id


def _step(history: History, id: str, suffix: str, text: str) -> str:
    if suffix.startswith("^{/"):
        return _by_message(history, suffix[3:-1], [id], text)
    if suffix.startswith("^{"):
        kind = suffix[2:-1]
        if kind in _NO_COMMITS:
            raise UnknownRevision(
                f"{text}: a revision must be a commit, not a {kind}",
                hint=(Call("cat_file", Blank("ID")), " shows other objects"),
            )
        if kind not in ("", "commit", "object"):
            raise _unknown(text)
        return id
    count = int(suffix[1:] or "1")
    if suffix[0] == "^":
        if count == 0:
            return id
        parents = history.commit(id).parents
        if count > len(parents):
            raise UnknownRevision(f"{text}: {abbreviate(id)} has {_parents(len(parents))}")
        return parents[count - 1]
    line = first_parents(history, id)
    for done in range(min(count, MAX_STEPS)):
        above = next(line, None)
        if above is None:
            raise UnknownRevision(f"{text}: history ends after {done} step{'s' if done != 1 else ''}")
        id = above
    return id


def _parents(count: int) -> str:
    return ("no parent", "one parent")[count] if count < 2 else f"{count} parents"


def _in_reflog(history: History, name: str, what: str, text: str, notes: NoteList | None) -> str:
    if re.fullmatch(r"-\d{1,6}", what):
        if name:
            raise _unknown(text)
        place = _before(history, int(what[1:]), text)
        return resolve(history, _existing(history, HEADS + place) or place, notes)
    ref = full_ref(history, name, notes, branch_first=True) if name else _current(history)
    if ref is None and name == _STASH and re.fullmatch(r"\d{1,9}", what):
        return _stashed(history, int(what), text)
    if ref is None:
        raise _unknown(text)
    entries = history.store.refs.log(ref)
    shown = ref.removeprefix(HEADS)
    if re.fullmatch(r"\d{1,9}", what):
        return _nth(history, entries, int(what), ref, shown, text)
    from persona.history.names.dates import parse_date

    date = parse_date(what, int(time.time()), at_end=True)
    if date is None:
        raise UnknownRevision(
            f"{text}: {quoted(what, 60)} is neither a number nor a date that persona understands"
        )
    if not entries:
        raise UnknownRevision(f"{text}: {shown} has no reflog")
    for entry in entries:
        if entry.time <= date[0] and entry.new is not None:
            return entry.new
    first = entries[-1]
    when = iso_date(Person("", "", first.time, first.offset))
    if notes is not None:
        notes.append(f"the reflog of {shown} only goes back to {when}; {text} is taken as its first entry")
    id = first.old or first.new
    if id is None:
        raise UnknownRevision(f"{text}: {shown} had no commit then")
    return id


def _stashed(history: History, place: int, text: str) -> str:
    """The commit of a stash."""
    from persona.history.stashes import stashes  # most commands name no stash

    found = stashes(history)
    if place >= len(found):
        hint = (Call("stash.list"), " lists them")
        raise UnknownRevision(f"{text}: the stash has {_entries(len(found))}", hint=hint)
    return found[place].id


def _entries(count: int) -> str:
    return f"{count} entr{'y' if count == 1 else 'ies'}"


def _nth(history: History, entries: Sequence[Entry], count: int, ref: str, shown: str, text: str) -> str:
    if count == 0:
        id = history.store.refs.head_id() if ref == "HEAD" else history.store.refs.read(ref)
    elif count < len(entries):
        id = entries[count].new
    else:
        id = entries[-1].old if entries and count == len(entries) else None
    if id is None and count < len(entries):
        raise UnknownRevision(f"{text}: {shown} did not exist then")
    if id is None:
        count = len(entries)
        raise UnknownRevision(f"{text}: the reflog of {shown} has {count} entr{'y' if count == 1 else 'ies'}")
    return id


def _current(history: History) -> str:
    kind, value = history.store.refs.head()
    return value if kind == "ref" else "HEAD"


def _here(history: History) -> tuple[str | None, str | None]:
    head = history.head_or_name()
    return (head.branch, None) if head.branch is not None else (None, head.id)


def _before(history: History, count: int, text: str) -> str:
    """The branch or id that HEAD was at before its last `count` moves between branches."""
    for number, entry in enumerate(history.store.refs.log("HEAD")):
        if match := MOVED.match(entry.why):
            if number == 0 and match[1] in _here(history):
                continue  # the move was interrupted before HEAD left
            count -= 1
            if count <= 0:
                return match[1]
    raise UnknownRevision(f"{text}: the reflog of HEAD has fewer moves between branches")


def _everything(history: History, text: str, notes: NoteList | None) -> list[str]:
    """The commits of every branch, every tag and HEAD."""
    starts = set(history.names(HEADS, notes).values())
    head = history.store.refs.head_id()
    for tag in history.names(TAGS, notes).values():
        starts.add(_commit_of(history, tag, text))
    return sorted(starts | ({head} if head else set()))


def _by_message(history: History, pattern: str, starts: Iterable[str], text: str) -> str:
    """The newest commit from `starts` back whose message has the pattern."""
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise UnknownRevision(f"{text} is not a pattern: {error}") from None
    for id, commit in walk(history, starts):
        if wanted.search(commit.message):
            return id
    raise UnknownRevision(f"{text}: no commit message matches")


def _unknown(text: str) -> UnknownRevision:
    short = f"; an id needs {MIN_PREFIX} digits or more" if re.fullmatch(r"[0-9a-f]{1,3}", text) else ""
    hint = (Call("branches.values"), " lists the branches, and ", Call("log", all=True), " the commits")
    return UnknownRevision(f"unknown revision {quoted(text)}{short}", hint=hint)
