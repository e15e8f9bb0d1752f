"""Branches, tags and reflogs: names of commits, and the places where these names have been."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from persona.errors import Call, InvalidInput, Keyword, Refused, UnknownName, UsageError
from persona.history.act_results import Deleted, Renamed
from persona.history.history import History, reason
from persona.history.names.revisions import full_ref, resolve
from persona.history.names.walk import is_ancestor
from persona.history.query_results import Annotation, RefInfo, ReflogEntry
from persona.history.results import iso_date
from persona.objects.commit import Person, Tag
from persona.objects.ids import abbreviate, is_id
from persona.objects.names import check_ref_name
from persona.store.refs import HEADS, TAGS, Change


def branches(history: History) -> list[RefInfo]:
    """The branches, by name."""
    current = history.head_or_name().branch
    return [
        _branch(history, name, id, name == HEADS + current if current else False)
        for name, id in history.names(HEADS, history.notes).items()
    ]


def _branch(history: History, ref: str, id: str, current: bool) -> RefInfo:
    return RefInfo(ref.removeprefix(HEADS), id, current, False, history.commit(id).subject)


def create_branch(history: History, name: str, rev: str | None = None, *, force: bool = False) -> RefInfo:
    """Makes a branch at `rev`, by default at HEAD; `force` moves one that exists.

    Raises `Refused` for a branch that exists, and for the current one in any case.
    """
    ref = HEADS + check_ref_name(name)
    current = history.head_or_name().branch
    start = rev or current or "HEAD"
    id = resolve(history, rev or "HEAD", history.notes)
    old = history.store.refs.read(ref)
    if old is not None and not force:
        raise Refused(
            f"a branch named {name} exists already at {abbreviate(old)}",
            hint=(Keyword(force=True), " moves it"),
        )
    if old is not None and current == name:
        raise Refused(f"{name} is the current branch", hint=(Call("reset", rev or "HEAD"), " moves it"))
    why = reason(history.committer(), f"branch: {'Reset to' if old else 'Created from'} {start}")
    history.store.refs.update_all([Change(ref, id, old, why)], under_head=False)
    return _branch(history, ref, id, False)


def delete_branches(history: History, *names: str, force: bool = False) -> Deleted:
    """Deletes branches, all or none; returns the commits that they named.

    Raises `Refused` for the current branch, and for one that HEAD does not reach unless `force`.
    """
    found = _existing(history, HEADS, names, "branch")
    head = history.head_or_name()
    for name, id in found.items():
        if head.branch == name:
            raise Refused(f"{name} is the current branch; switch to another one first")
        if not force and (head.id is None or not is_ancestor(history, id, head.id)):
            raise Refused(
                f"{name} ({abbreviate(id)}) has commits that HEAD does not reach",
                hint=(Call("branches.delete", name, force=True), " deletes it anyway"),
            )
    return _delete(history, HEADS, found, "branch: deleted")


def rename_branch(history: History, old: str | None, new: str, *, force: bool = False) -> Renamed:
    """Renames a branch, its reflog with it; returns the old name. `old` None: the current branch.

    `force` renames over a branch that exists, `Refused` otherwise.
    """
    current = history.head_or_name().branch
    if old is None:
        if current is None:
            raise Refused("HEAD is detached: name the branch to rename")
        old = current
    _existing(history, HEADS, [old], "branch")
    target = HEADS + check_ref_name(new)
    if new == old:
        return Renamed(old, new)
    if history.store.refs.read(target) is not None:
        if not force:
            raise Refused(
                f"a branch named {new} exists already", hint=(Keyword(force=True), " renames over it")
            )
        if current == new:
            raise Refused(f"{new} is the current branch; switch to another one first")
    why = reason(history.committer(), f"Branch: renamed {HEADS}{old} to {target}")
    history.store.refs.move(HEADS + old, target, why, over=force)
    return Renamed(old, new)


def tags(history: History) -> list[RefInfo]:
    """The tags, by name."""
    return [_tag(history, name, id) for name, id in history.names(TAGS, history.notes).items()]


def _tag(history: History, ref: str, id: str) -> RefInfo:
    name = ref.removeprefix(TAGS)
    commit = resolve(history, ref)
    annotated = history.store.objects.kind_of(id) == "tag"
    said = history.tag(id).subject if annotated else history.commit(commit).subject
    return RefInfo(name, commit, False, annotated, said)


def annotation(history: History, rev: str) -> Annotation | None:
    """The annotated tag that a name, or the id of a tag, stands for; None for any other revision."""
    ref = full_ref(history, rev) if not is_id(rev) else None
    if ref is not None:
        found = [history.store.refs.read(ref)] if ref.startswith(TAGS) else []
    else:
        found = [id for id, kind in history.objects_starting(rev) if kind == "tag"]
    if len(found) != 1 or found[0] is None or history.store.objects.kind_of(found[0]) != "tag":
        return None
    tag = history.tag(found[0])
    return Annotation(tag.name, found[0], tag.tagger, tag.message)


def create_tag(
    history: History, name: str, rev: str = "HEAD", *, message: str | None = None, force: bool = False
) -> RefInfo:
    """Makes a tag at `rev`. With a `message` it is annotated: it has a tagger and a time.

    If the tag exists, `force` moves it; otherwise this raises `Refused`.
    """
    ref = TAGS + check_ref_name(name)
    id = resolve(history, rev, history.notes)
    old = history.store.refs.read(ref)
    if old is not None and not force:
        raise Refused(f"a tag named {name} exists already", hint=(Keyword(force=True), " moves it"))
    person = history.committer()
    if message is not None:
        if not message.strip():
            raise UsageError(
                "the message of the tag is empty", hint=("say what it stands for with ", Keyword("message"))
            )
        with history.store.transaction() as tx:
            id = tx.put("tag", Tag(id, "commit", name, person, message.strip() + "\n").encode())
    history.store.refs.update(ref, id, reason(person, f"tag: tagging {rev}"), expect=old)
    return _tag(history, ref, id)


def delete_tags(history: History, *names: str) -> Deleted:
    """Deletes tags, all or none; returns the ids that they named."""
    found = _existing(history, TAGS, names, "tag")
    return _delete(history, TAGS, found, "tag: deleted")


def reflog(history: History, ref: str = "HEAD") -> list[ReflogEntry]:
    """The moves of HEAD, a branch or a tag, newest first."""
    full = full_ref(history, ref, history.notes, branch_first=True) or _moved_once(history, ref)
    if full is None:
        hint = (Call("branches.values"), " lists the branches")
        raise UnknownName(f"no branch or tag is named {ref}", hint=hint)
    shown = full.removeprefix(HEADS)
    found: list[ReflogEntry] = []
    for number, entry in enumerate(history.store.refs.log(full)):
        if entry.new is None:
            continue
        who, _, rest = entry.who.rpartition(" <")
        date = iso_date(Person("", "", entry.time, entry.offset))
        selector = f"{shown}@{{{number}}}"
        found.append(ReflogEntry(selector, entry.new, entry.old, who, rest.rstrip(">"), date, entry.why))
    return found


def _moved_once(history: History, name: str) -> str | None:
    """The branch or tag of a name that is gone and has left a reflog."""
    with suppress(InvalidInput):
        for prefix in (HEADS, TAGS):
            if history.store.refs.log(prefix + name):
                return prefix + name
    return None


def _existing(history: History, prefix: str, names: Sequence[str], what: str) -> dict[str, str]:
    """The ids of refs by their short names; raises `UnknownName` if one is missing."""
    if not names:
        raise UsageError(f"name at least one {what} to delete")
    found = {name: history.store.refs.read(prefix + check_ref_name(name)) for name in names}
    missing = [name for name, id in found.items() if id is None]
    if missing:
        hint = (Call("branches.values" if what == "branch" else "tags.values"), " lists them")
        raise UnknownName(f"no {what} is named {' or '.join(missing)}", hint=hint)
    return {name: id for name, id in found.items() if id is not None}


def _delete(history: History, prefix: str, found: Mapping[str, str], why: str) -> Deleted:
    """Removes refs if they still hold these ids: all or none."""
    reasoned = reason(history.committer(), why)
    history.store.refs.update_all([Change(prefix + name, None, id, reasoned) for name, id in found.items()])
    return Deleted(found)
