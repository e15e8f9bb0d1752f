"""The words that shell completion offers: names of the repository, rules, files.

A command sets one of these functions as `shell_complete` of a parameter. They read only refs, `recipe.toml`
and the config, import nothing slow, and never report an error: outside a repository they offer nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from persona.cli.dashes import FILES
from persona.cli.terminal import printable
from persona.errors import PersonaError
from persona.history.settings import SETTINGS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from persona.behaviour.graph.graph import Graph
    from persona.history.verbs.complete import KnownNames

VARIABLE = "_PERSONA_COMPLETE"
"""The environment variable by which a shell's script asks how to go on."""
PART = "part"
"""Type of an item that is only the beginning of a word: no space follows it."""

Completer = Callable[[click.Context, click.Parameter, str], "list[CompletionItem[str]]"]
Words = Iterable[tuple[str, str]]
"""Words, each with its description for shells that show one."""


def revisions(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Branches, tags and HEAD, also after `A..` or `A...`; files after `--`."""
    if ctx.meta.get(FILES) is not None:
        return files(ctx, parameter, incomplete)
    start, dots, end = incomplete.rpartition("..")
    names = _revisions(_known(ctx))
    return [_item(start + dots + name, about) for name, about in names if name.startswith(end)]


def branch_or_revision(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """For `switch`: a branch; any revision if HEAD is detached or a branch is made."""
    anywhere = ctx.params.get("detach") or ctx.params.get("create")
    return (revisions if anywhere else branches)(ctx, parameter, incomplete)


def branches(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Branches."""
    return _matching(((name, "branch") for name in _known(ctx).branches), incomplete)


def moved_refs(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The refs with a reflog: HEAD and branches."""
    return _matching([("HEAD", ""), *((name, "branch") for name in _known(ctx).branches)], incomplete)


def tags(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Tags."""
    return _matching(((name, "tag") for name in _known(ctx).tags), incomplete)


def tag_or_revision(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """For `tag`: first a tag's name (an existing one to delete or move), then a revision."""
    first = not _given(ctx, parameter) or ctx.params.get("delete")
    return (tags if first else revisions)(ctx, parameter, incomplete)


def branch_or_start(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """For `branch`: first a branch's name, then its start."""
    flags = ("delete", "delete_force", "move", "move_force")
    first = not _given(ctx, parameter) or any(ctx.params.get(flag) for flag in flags)
    return (branches if first else revisions)(ctx, parameter, incomplete)


def base_or_revision(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Of `--onto`: the word base, or a revision."""
    words = [("base", "it was trained from the base"), *_revisions(_known(ctx))]
    return _matching(words, incomplete)


def vectors(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The vectors of `recipe.toml` that the command line does not name yet."""
    return _matching(_vectors(ctx, parameter), incomplete)


def strengths(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The vectors of `recipe.toml` that no `--alpha` names yet, as `NAME=`."""
    said = {str(given).rpartition("=")[0] for given in _given(ctx, parameter)}
    vectors = _known(ctx).vectors.items()
    words = ((f"{name}=", f"α {alpha}") for name, alpha in vectors if name not in said)
    return [_item(item.value, item.help or "", PART) for item in _matching(words, incomplete)]


def all_vectors(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The vectors of `recipe.toml`, and those with only a kept name."""
    return vectors(ctx, parameter, incomplete) + kept_vectors(ctx, parameter, incomplete)


def kept_vectors(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """The vectors that only a name of their own keeps."""
    return _matching(((name, "kept") for name in _known(ctx).kept_vectors), incomplete)


def stashes(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The stashes."""
    return _matching(_known(ctx).stashes.items(), incomplete)


def vector_or_revision(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Of `revert`: a vector to drop, or a commit to undo."""
    return vectors(ctx, parameter, incomplete) + revisions(ctx, parameter, incomplete)


def vector_or_rule(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Of `set`: one vector, or after `--merge` more rules."""
    if ctx.params.get("merge"):
        return rules(ctx, parameter, incomplete)
    return [] if _given(ctx, parameter) else vectors(ctx, parameter, incomplete)


def rules(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """For `set --merge`: the axes that are not set yet, as `axis=`; then the values of each."""
    from persona.objects.rules import AXES, CHOICES, PRESETS

    choices = {"preset": tuple(PRESETS), **CHOICES}
    axis, equals, _ = incomplete.partition("=")
    if equals:
        return _matching(((f"{axis}={word}", "") for word in choices.get(axis, ())), incomplete)
    words = [word for value in ctx.params.values() if isinstance(value, tuple) for word in value]
    said = {str(word).partition("=")[0] for word in words}
    open_axes = [name for name in ("preset", *AXES) if name not in said and name.startswith(axis)]
    return [_item(f"{name}=", "|".join(choices.get(name, ())), PART) for name in open_axes]


def patterns(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The keys of the patterns of the work tree."""
    return _matching(((key, one.kind) for key, one in _graph(ctx).patterns.items()), incomplete)


def trainables(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The patterns and facets that own a vector, without those that the command line names already."""
    given = _given(ctx, parameter)
    names = ((name, one.key) for name, one in _graph(ctx).trainables.items() if name not in given)
    return _matching(names, incomplete)


def settings(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """For `config`: the known keys, and those that are set."""
    known = {key: setting.doc for key, setting in SETTINGS.items()}
    return _matching({**dict.fromkeys(_known(ctx).settings, "set"), **known}.items(), incomplete)


def setting_values(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """For `config KEY`: the values of the key, if it is a choice."""
    setting = SETTINGS.get(str(ctx.params.get("key")))
    return _matching(((word, "") for word in (setting.words if setting else ())), incomplete)


def directories(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Directories, as the shell finds them. After `-C DIR`, those seen from DIR."""
    return paths(ctx, incomplete, "dir")


def examples(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The examples that `init` can begin with."""
    from persona.history.examples import names

    return _matching(((name, "example") for name in names()), incomplete)


def files(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Files and directories, as the shell finds them. After `-C DIR`, those seen from DIR."""
    return paths(ctx, incomplete)


def commands(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """For `help`: the commands, then the commands of a group."""
    group = ctx.find_root().command
    for word in _given(ctx, parameter):
        inner = group.get_command(ctx, word) if isinstance(group, click.Group) else None
        if inner is None:
            return []
        group = inner
    names = group.list_commands(ctx) if isinstance(group, click.Group) else []
    return _matching(((name, "") for name in names), incomplete)


def one_of(*words: str) -> Completer:
    """Always the same words."""
    return lambda ctx, parameter, incomplete: _matching(((word, "") for word in words), incomplete)


def starting_directory(ctx: click.Context) -> Path:
    """The directory of `-C`, as a shell would have expanded it."""
    given = ctx.find_root().params.get("directory") or ()
    return Path().joinpath(*(os.path.expanduser(part) for part in given))


def _graph(ctx: click.Context) -> Graph:
    """The graph of the work tree; an empty one if there is no readable repository."""
    from persona.behaviour.graph.graph import Graph

    with suppress(PersonaError, OSError, ValueError):
        from persona.repository import Repository

        with Repository.open(starting_directory(ctx)) as repo:
            return repo.graph.read()
    return Graph((), lambda path: None)


def _known(ctx: click.Context) -> KnownNames:
    """The names of the repository; none if there is no readable repository."""
    from persona.history.verbs.complete import KnownNames

    with suppress(PersonaError, OSError, ValueError):
        from persona.cli.invocation import Invocation
        from persona.repository import Repository

        call = Invocation(starting_directory(ctx))
        with Repository.open(call.directory, user_config=call.user_config) as repo:
            return repo.known_names()
    return KnownNames((), (), {}, (), (), {})


def _revisions(known: KnownNames) -> Iterator[tuple[str, str]]:
    if known.branches:
        yield "HEAD", "where you are"
    yield from ((name, "branch") for name in known.branches)
    yield from ((name, "tag") for name in known.tags)


def _vectors(ctx: click.Context, parameter: click.Parameter) -> Words:
    said = _given(ctx, parameter)
    return [(name, f"α {alpha}") for name, alpha in _known(ctx).vectors.items() if name not in said]


def _given(ctx: click.Context, parameter: click.Parameter) -> tuple[Any, ...]:
    """The earlier words of a parameter that takes many."""
    value = ctx.params.get(parameter.name or "")
    return value if isinstance(value, tuple) else ()


def _matching(words: Words, incomplete: str) -> list[CompletionItem[str]]:
    # The shell prints words as they are, so names with control characters are left out.
    return [
        _item(word, about)
        for word, about in words
        if word.startswith(incomplete) and printable(word + about) == word + about
    ]


def _item(word: str, about: str = "", kind: str = "plain") -> CompletionItem[str]:
    from click.shell_completion import CompletionItem

    return CompletionItem(word, type=kind, help=about or None)


def paths(ctx: click.Context, incomplete: str, kind: str = "file") -> list[CompletionItem[str]]:
    """See `files` and `directories`."""
    given = ctx.find_root().params.get("directory")
    if not given:
        return [_item(incomplete, kind=kind)]
    folder, name = os.path.split(incomplete)
    found: list[CompletionItem[str]] = []
    with suppress(OSError, ValueError):
        for entry in sorted(os.scandir(starting_directory(ctx) / folder), key=lambda entry: entry.name):
            hidden = entry.name.startswith(".") and not name.startswith(".")
            if entry.name.startswith(name) and not hidden and (kind == "file" or entry.is_dir()):
                path = os.path.join(folder, entry.name)
                found.append(_item(path + "/", kind=PART) if entry.is_dir() else _item(path))
    return found
