"""Writes docs/python.md, the page of the Python API, from the docstrings and signatures of the library.

.venv/bin/python scripts/api_page.py            # writes the page
.venv/bin/python scripts/api_page.py --print    # prints it
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from persona import errors
from persona.behaviour import Apollo, CommitCallback, states, talking, tuning
from persona.behaviour.building import results as build_results
from persona.behaviour.graph import check
from persona.behaviour.talking import Conversation
from persona.behaviour.verbs import graph, train, tune
from persona.face.bisect import Bisect
from persona.face.graph import Patterns
from persona.face.recipe import WorkingRecipe
from persona.face.refs import Branches, Tags
from persona.face.revision import Revision
from persona.face.settings import Settings
from persona.face.stash import Stashes
from persona.face.vectors import Vectors
from persona.history import query_results, results, score_results, sequence_views, store_results
from persona.history.arguments import spell_out
from persona.history.bisecting import results as bisect_results
from persona.history.sequencing import results as sequence_results
from persona.history.verbs import (
    adapters,
    blame,
    blame_weights,
    export_mergekit,
    identify,
    import_mergekit,
    measure,
    patches,
    rebase_base,
    stash,
    vectors,
)
from persona.live.model import LiveModel
from persona.objects.commit import Person
from persona.repository import Repository

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
WIDTH = 100
BEGIN = """# The Python API

`scripts/api_page.py` writes this page from the docstrings. [commands.md](commands.md) says what each
command does; a method of the same name does the same.

```python
import persona

with persona.open("mybot", threads=4) as repo:  # threads=4 holds for every call
    repo.commit("../ft/asks", name="asks", alpha=0.7, message="ask before answering")
    repo.recipe.set("asks", alpha=0.5)
    print(repo.status(), repo.diff())
    before = repo["HEAD~1"]
    print(before.subject, before.recipe.vectors, before.digest())
    for name, array in before.tensors():
        print(name, array.shape)
    live = repo.live(rev="HEAD")
    live.set("asks", alpha=0.3)
```

If a call does not name an option, the value given to `open` holds, then the setting (such as
`checkout.threads`), then the default. An argument that no call can take is a `UsageError` whose message
begins with its name.

`AnyPath` is a text or an `os.PathLike`. A `Signer` is a `Person`, a function that returns one, or None for
the user of the config. A `Progress` is a function: `progress(phase, done, total)`.
"""
OWNERS: dict[str, type] = {
    "repo": Repository,
    "revision": Revision,
    "repo.recipe": WorkingRecipe,
    "repo.vectors": Vectors,
    "repo.graph": Patterns,
    "repo.bisect": Bisect,
    "repo.stash": Stashes,
    "repo.branches": Branches,
    "repo.tags": Tags,
    "repo.config": Settings,
    "live": LiveModel,
    "talk": Conversation,
}
"""The classes of the page, by the name of a value of theirs."""
VALUES: dict[str, type] = {
    "persona.Person": Person,
    "persona.behaviour.CommitCallback": CommitCallback,
    "persona.behaviour.Apollo": Apollo,
}
"""The classes that a caller makes values of, by their full names."""
RESULTS: tuple[ModuleType, ...] = (
    results,
    query_results,
    score_results,
    store_results,
    measure,
    import_mergekit,
    export_mergekit,
    patches,
    adapters,
    identify,
    bisect_results,
    sequence_results,
    sequence_views,
    blame,
    blame_weights,
    vectors,
    stash,
    rebase_base,
    check,
    states,
    graph,
    train,
    talking,
    build_results,
    tuning,
    tune,
)
MAPPING = ("keys", "values", "items", "get")
"""What every mapping has, told once."""


def page() -> str:
    """The page."""
    return "\n".join([BEGIN, *classes(), *result_types(), *error_types()])


def classes() -> Iterator[str]:
    """A section for each class, with its properties and methods."""
    for owner, cls in OWNERS.items():
        yield f"## {cls.__name__}\n"
        yield f"{text_of(cls)}\n"
        if issubclass(cls, WorkingRecipe | Vectors | Patterns | Branches | Tags | Settings):
            yield f"`{owner}` is a mapping: `{owner}[NAME]`, `in`, `len`, iteration, `get`, `items`.\n"
        for name, member in public(cls):
            if isinstance(member, property | cached_property):
                yield f"### {owner}.{name}\n"
                yield f"{text_of(member)}\n"
                continue
            shown = f"persona.{name}" if name in ("open", "init") and cls is Repository else f"{owner}.{name}"
            yield f"### {shown}\n"
            yield f"```python\n{signature_of(shown, member)}\n```\n"
            yield f"{text_of(member)}\n"
    for name, cls in VALUES.items():
        yield f"## {cls.__name__}\n\n{text_of(cls)}\n\n```python\n{signature_of(name, cls)}\n```\n"


def result_types() -> Iterator[str]:
    """A section of what calls answer with."""
    yield "## Results\n"
    yield "Each is a frozen value. A key of the command line's JSON has the name of its field.\n"
    for module in RESULTS:
        for name, cls in vars(module).items():
            shown = isinstance(cls, type) and issubclass(cls, results.Result) and is_dataclass(cls)
            if shown and cls.__module__ == module.__name__:
                yield f"### {name}\n"
                yield f"{text_of(cls)}\n"
                held = [f"{field.name}: {plain(str(field.type))}" for field in fields(cls) if field.repr]
                yield f"```python\n{wrapped(f'{name}(', held, ')')}\n```\n"


def error_types() -> Iterator[str]:
    """A table of the errors."""
    yield "## Errors\n"
    yield "Every error is a `persona.PersonaError`. Its `message` says what was wrong and where, its"
    yield "`hint` what to do next.\n"
    yield "| class | exit code of the command line | means |\n| --- | --- | --- |"
    for name, cls in vars(errors).items():
        if isinstance(cls, type) and issubclass(cls, errors.PersonaError) and cls is not errors.PersonaError:
            depth = len(cls.__mro__) - len(errors.Refused.__mro__)
            first = text_of(cls).split("\n\n")[0].replace("\n", " ")
            yield f"| {'⮡ ' * depth}`{name}` | {cls.exit_code} | {first} |"
    yield ""


def public(cls: type) -> list[tuple[str, Any]]:
    """The public properties and methods of a class in the order of its source, those of its parents first."""
    found: dict[str, Any] = {}
    for parent in reversed(cls.__mro__):
        if parent.__module__.startswith("persona."):
            found |= {name: getattr(cls, name) for name in vars(parent) if not name.startswith("_")}
    spell_out()
    hidden = {"of", "at", "to_json", "kind"}
    if not issubclass(cls, Repository | LiveModel | Revision):
        hidden |= set(MAPPING)
    return [
        (name, member)
        for name, member in found.items()
        if name not in hidden and (isinstance(member, property | cached_property) or callable(member))
    ]


def signature_of(shown: str, member: Callable[..., Any]) -> str:
    """How a method is called, as Python writes it."""
    signature = inspect.signature(member)
    taken = [one for one in signature.parameters.values() if one.name != "self"]
    words: list[str] = []
    for one in taken:
        if one.kind is one.KEYWORD_ONLY and not any(word.startswith("*") for word in words):
            words.append("*")
        stars = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
        usual = "" if one.default is one.empty else f" = {one.default!r}".replace("'", '"')
        words.append(f"{stars}{one.name}: {plain(str(one.annotation))}{usual}")
    result = signature.return_annotation
    ending = ")" if isinstance(result, type) else f") -> {plain(str(result))}"
    return wrapped(f"{shown}(", words, ending)


def plain(text: str) -> str:
    """An annotation without quotes around it and the modules in it."""
    return re.sub(r"\b(?:\w+\.)+(?=[A-Z])", "", text).strip("'")


def wrapped(begin: str, words: list[str], end: str) -> str:
    """A call on one line, or with its arguments on lines of their own."""
    line = begin + ", ".join(words) + end
    if len(line) <= WIDTH:
        return line
    return begin + "".join(f"\n    {word}," for word in words) + "\n" + end


def text_of(value: object) -> str:
    """A docstring."""
    text = inspect.getdoc(value)
    if not text:
        raise SystemExit(f"{value!r} has no docstring")
    return text


if __name__ == "__main__":
    if "--print" in sys.argv:
        print(page())
    else:
        PAGE.write_text(page())
