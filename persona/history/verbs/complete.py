"""The names that shell completion offers: branches, tags, vectors, settings.

Shell completion asks at every Tab. So the names come only from refs, `recipe.toml` and the config, and no
object is read. A part that cannot be read is empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from persona.errors import PersonaError
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.recipes.text import decode, load
from persona.history.results import Result
from persona.history.worktree import text_files
from persona.store.refs import HEADS, TAGS, VECTORS

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class KnownNames(Result):
    """Names, each kind in order.

    `vectors` maps the names in `recipe.toml` to their alpha as it is written.
    """

    branches: tuple[str, ...]
    tags: tuple[str, ...]
    vectors: dict[str, str]
    kept_vectors: tuple[str, ...]
    settings: tuple[str, ...]
    stashes: dict[str, str]
    """The selector of each stash and its message."""


def known_names(history: History) -> KnownNames:
    """The names of branches, tags, vectors and settings, cheaply, for shell completion."""
    return KnownNames(
        branches=_below(history, HEADS),
        tags=_below(history, TAGS),
        vectors=_or(lambda: _of_recipe(history), {}),
        kept_vectors=_or(lambda: _kept_alone(history), ()),
        settings=_or(lambda: tuple(history.config.values()), ()),
        stashes=_or(lambda: _stashes(history), {}),
    )


def _below(history: History, prefix: str) -> tuple[str, ...]:
    return _or(lambda: tuple(sorted(ref.removeprefix(prefix) for ref in history.store.refs.list(prefix))), ())


def _of_recipe(history: History) -> dict[str, str]:
    return {name: _alpha(term.get("alpha", 1)) for name, term in _terms(history).items()}


def _stashes(history: History) -> dict[str, str]:
    from persona.history.stashes import stashes

    return {
        f"stash@{{{place}}}": history.commit(one.id).subject for place, one in enumerate(stashes(history))
    }


def _alpha(written: Any) -> str:
    return f"[{', '.join(map(str, written))}]" if isinstance(written, list) else str(written)


def _kept_alone(history: History) -> tuple[str, ...]:
    """The kept names of vectors that `recipe.toml` does not name, as `vector ls` lists them."""
    kept = history.store.refs.list(VECTORS)
    terms: dict[str, dict[str, Any]] = _or(lambda: _terms(history), {})
    ids = tuple(str(term["id"]) for term in terms.values() if term.get("id"))
    return tuple(sorted(ref.removeprefix(VECTORS) for ref, id in kept.items() if not id.startswith(ids)))


def _terms(history: History) -> dict[str, dict[str, Any]]:
    """The tables below `[vectors]`, as they are written."""
    vectors = load(decode(text_files.read_recipe_text(history.root))).get("vectors", {})
    return {name: term for name, term in vectors.items() if isinstance(term, dict)}


def _or(read: Callable[[], T], otherwise: T) -> T:
    try:
        return read()
    except (PersonaError, AttributeError):
        return otherwise
