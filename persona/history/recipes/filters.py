"""**filter** — the globs that limit a term to some tensors: one glob of `only` matches, none of `except`.

A glob that matches no tensor is a mistake that no result would show, and so is a list over layers if the base
has no layers. So both are refused when a recipe is taken in, and when weights are computed from an edited
recipe. They are accepted if HEAD already has them, so that a user can go back to a history with such a
filter, and go on from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from persona.objects import globs
from persona.objects.base import Base
from persona.objects.recipe import Recipe, Term

_REGEX: Final = re.compile(r"\\|[\^$|+()]|^\.\*")
_REGEX_PARTS: Final = re.compile(r"(?:\\[dwDWS]|\.|\[[^\]]*\])[+*]|\\d|\\(?=[.\-_])")
_BRACES: Final = re.compile(r"\{([^{}]*)\}")


def tensor_names(base: Base) -> list[str]:
    """The names of the tensors that a vector can change."""
    return [spec.name for spec in base.tensors if spec.merged]


def problems(
    recipe: Recipe, base: Callable[[], Base], before: Recipe | None
) -> Iterator[tuple[Term, str, str]]:
    """Each filter or list over layers that is a mistake: its term, its key, and a sentence.

    `base`: gives the base as the recipe's vectors grow it. `before`: a recipe whose filters and lists are
    accepted as they are.
    """
    accepted = before.terms if before is not None and before.base == recipe.base else ()
    known = {(term.only, term.except_) for term in accepted}
    in_layers = any(term.in_layers for term in accepted)
    names: list[str] = []
    for term in recipe.terms:
        if term.in_layers and not in_layers and (found := without_layers(term, base())) is not None:
            yield (term, *found)
        if (term.only, term.except_) in known or not (term.only or term.except_):
            continue
        names = names or tensor_names(base())
        found = problem(term, names)
        if found is not None:
            yield (term, *found)


def without_layers(term: Term, base: Base) -> tuple[str, str] | None:
    """The fault of a list over layers, its key and a sentence; None if the base has layers."""
    from persona.objects.layers import places

    if places(spec.name for spec in base.tensors):
        return None
    example = base.tensors[0].name if base.tensors else "nothing"
    key = "alpha" if isinstance(term.alpha, tuple) else "density"
    return key, f"a list is spread over layers, and the base has none; its names look like {example}"


def problem(term: Term, names: Sequence[str]) -> tuple[str, str] | None:
    """The fault of a term's filter: its key ("only" or "except") and a sentence; None without one."""
    for key, patterns in (("only", term.only), ("except", term.except_)):
        for pattern in patterns:
            if said := globs.fault(pattern):
                return key, f"'{pattern:.80}' {said}"
            if not _matched(pattern, names):
                return key, f"'{pattern:.80}' {_nothing(pattern, names)}"
    if not any(term.admits(name) for name in names):
        key = "except" if term.except_ else "only"
        return key, f"leaves none of {len(names)} tensors for the vector to reach"
    return None


def twice(recipe: Recipe, base: Base, names: Iterable[str]) -> Iterator[str]:
    """A sentence for each named term whose vector another term has too, if both reach one tensor."""
    done: set[str] = set()
    for name in names:
        term = recipe.by_name[name]
        for other in recipe.terms:
            if other.vector != term.vector or other.name in (name, *done):
                continue
            if any(term.admits(tensor) and other.admits(tensor) for tensor in tensor_names(base)):
                yield f"{name} and {other.name} are the same vector, so the recipe applies it twice"
        done.add(name)


def _nothing(pattern: str, names: Sequence[str]) -> str:
    example = next((name for name in names if ".mlp." in name), names[0] if names else "nothing")
    hint = _hint(pattern, names)
    return f"matches none of {len(names)} tensors; names look like {example}" + (f". {hint}" if hint else "")


def _hint(pattern: str, names: Sequence[str]) -> str:
    """A guess at the glob that was meant."""
    if pattern.startswith("!"):
        return f"A filter has no negation; `except` takes tensors out: {pattern[1:]!r}"
    if _REGEX.search(pattern):
        anchored = pattern.removeprefix("^").removesuffix("$")
        parts = [part for part in _from_regex(anchored).split("|") if part]
        fitting = _fitting([anchored, *(way for part in parts for way in (part, *_longer(part)))], names)
        said = "This looks like a regular expression; a filter is a glob: * any run, ? one character"
        return f"{said}. Perhaps {fitting!r}" if fitting else said
    if braces := _BRACES.search(pattern):
        words = braces[1].split(",")
        ways = [pattern[: braces.start()] + word + pattern[braces.end() :] for word in words]
        return f"Braces are not expanded; give a glob for each: {_listed(ways)}"
    if ("," in pattern or " " in pattern) and pattern.strip(", "):
        return f"Give a glob for each: {_listed([way for way in re.split(r'[, ]+', pattern) if way])}"
    fitting = _fitting(_longer(pattern), names)
    return f"A glob matches whole names; perhaps {fitting!r}" if fitting else ""


def _longer(pattern: str) -> Iterator[str]:
    """The globs that an unfinished one may have been meant to be, the closest first."""
    if "." not in pattern and "*" not in pattern:
        yield f"*{pattern}*"
    yield f"model.{pattern}"
    yield f"{pattern}.*"
    yield f"*.{pattern}"
    yield f"model.{pattern}.*"
    yield f"*.{pattern}.*"
    yield f"*{pattern}*"


def _from_regex(pattern: str) -> str:
    """A regular expression as a glob, alternatives still joined by |; empty if it is not a simple one."""
    text = re.sub(r"\((?:\?:)?([^()|]*)\)", r"\1", pattern)
    glob = _REGEX_PARTS.sub(lambda part: {r"\d": "[0-9]", "\\": ""}.get(part[0], "*"), text)
    return "" if re.search(r"[\\()^$+]", glob) else glob


def _fitting(ways: Iterable[str], names: Sequence[str]) -> str | None:
    return next((way for way in ways if _matched(way, names)), None)


def _matched(pattern: str, names: Sequence[str]) -> bool:
    return any(map(globs.matcher(pattern), names))


def _listed(ways: Sequence[str]) -> str:
    return ", ".join(repr(way) for way in ways[:8]) + (", …" if len(ways) > 8 else "")
