"""Branches, tags and reflogs: names of commits, and where those names have been."""

from __future__ import annotations

from persona.errors import Refused, UnknownName
from persona.history.history import HEADS, TAGS, History, signature
from persona.history.results import RefInfo, ReflogEntry, iso_date
from persona.history.revisions import full_ref, resolve
from persona.history.walk import is_ancestor
from persona.objects.commit import Person, Tag
from persona.objects.ids import abbreviate
from persona.objects.names import check_ref_name


def branches(history: History) -> list[RefInfo]:
    """See `Repository.branches`."""
    current = history.head().branch
    return [
        _branch(history, name, id, name == HEADS + current if current else False)
        for name, id in history.store.refs.list(HEADS).items()
    ]


def _branch(history: History, ref: str, id: str, current: bool) -> RefInfo:
    subject = history.commit(id).message.split("\n", 1)[0]
    return RefInfo(ref.removeprefix(HEADS), id, current, False, subject)


def create_branch(history: History, name: str, rev: str, force: bool, person: Person) -> RefInfo:
    """See `Repository.create_branch`."""
    ref = HEADS + check_ref_name(name)
    id = resolve(history, rev)
    old = history.store.refs.read(ref)
    if old is not None and not force:
        raise Refused(f"a branch named {name} exists already at {abbreviate(old)}; -f moves it")
    if old is not None and history.head().branch == name:
        raise Refused(f"{name} is the current branch; `persona reset {rev}` moves it")
    who, when = signature(person)
    why = f"branch: {'Reset to' if old else 'Created from'} {rev}"
    history.store.refs.update(ref, id, expect=old, who=who, when=when, why=why)
    return _branch(history, ref, id, False)


def delete_branch(history: History, name: str, force: bool, person: Person) -> str:
    """See `Repository.delete_branch`."""
    ref, id = _existing(history, HEADS, name, "branch")
    head = history.head()
    if head.branch == name:
        raise Refused(f"{name} is the current branch; switch to another one first")
    if not force and (head.id is None or not is_ancestor(history, id, head.id)):
        raise Refused(
            f"{name} ({abbreviate(id)}) has commits that HEAD does not reach; -D deletes it all the same"
        )
    who, when = signature(person)
    history.store.refs.update(ref, None, expect=id, who=who, when=when, why="branch: deleted")
    return id


def rename_branch(history: History, old: str | None, new: str, force: bool, person: Person) -> None:
    """See `Repository.rename_branch`."""
    current = history.head().branch
    if old is None:
        if current is None:
            raise Refused("HEAD is detached: name the branch to rename")
        old = current
    ref, _ = _existing(history, HEADS, old, "branch")
    target = HEADS + check_ref_name(new)
    if new == old:
        return
    who, when = signature(person)
    held = history.store.refs.read(target)
    if held is not None:
        if not force:
            raise Refused(f"a branch named {new} exists already; -M renames over it")
        if current == new:
            raise Refused(f"{new} is the current branch; switch to another one first")
        history.store.refs.update(target, None, expect=held, who=who, when=when, why="branch: deleted")
    why = f"branch: renamed {old} to {new}"
    history.store.refs.move(ref, target, who=who, when=when, why=why)


def tags(history: History) -> list[RefInfo]:
    """See `Repository.tags`."""
    return [_tag(history, name, id) for name, id in history.store.refs.list(TAGS).items()]


def _tag(history: History, ref: str, id: str) -> RefInfo:
    name = ref.removeprefix(TAGS)
    commit = resolve(history, ref)
    annotated = history.store.objects.kind_of(id) == "tag"
    text = history.tag(id).message if annotated else history.commit(commit).message
    return RefInfo(name, commit, False, annotated, text.split("\n", 1)[0])


def create_tag(
    history: History, name: str, rev: str, message: str | None, force: bool, person: Person
) -> RefInfo:
    """See `Repository.create_tag`."""
    ref = TAGS + check_ref_name(name)
    id = resolve(history, rev)
    old = history.store.refs.read(ref)
    if old is not None and not force:
        raise Refused(f"a tag named {name} exists already; -f moves it")
    if message is not None:
        with history.store.objects.transaction() as tx:
            id = tx.put("tag", Tag(id, "commit", name, person, message.strip() + "\n").encode())
    who, when = signature(person)
    history.store.refs.update(ref, id, expect=old, who=who, when=when, why=f"tag: tagging {rev}")
    return _tag(history, ref, id)


def delete_tag(history: History, name: str, person: Person) -> str:
    """See `Repository.delete_tag`."""
    ref, id = _existing(history, TAGS, name, "tag")
    who, when = signature(person)
    history.store.refs.update(ref, None, expect=id, who=who, when=when, why="tag: deleted")
    return id


def reflog(history: History, name: str) -> list[ReflogEntry]:
    """See `Repository.reflog`."""
    ref = full_ref(history, name, branch_first=True)
    if ref is None:
        raise UnknownName(f"no branch or tag is named {name}; `persona branch` lists the branches")
    shown = ref.removeprefix(HEADS)
    found: list[ReflogEntry] = []
    for number, entry in enumerate(history.store.refs.log(ref)):
        if entry.new is None:
            continue
        who, _, rest = entry.who.rpartition(" <")
        date = iso_date(Person("", "", entry.time, entry.offset))
        selector = f"{shown}@{{{number}}}"
        found.append(ReflogEntry(selector, entry.new, entry.old, who, rest.rstrip(">"), date, entry.why))
    return found


def _existing(history: History, prefix: str, name: str, what: str) -> tuple[str, str]:
    ref = prefix + check_ref_name(name)
    id = history.store.refs.read(ref)
    if id is None:
        raise UnknownName(f"no {what} is named {name}; `persona {what}` lists them")
    return ref, id
