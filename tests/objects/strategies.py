"""Objects as hypothesis draws them, and JSON that no object should be made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from persona.errors import InvalidInput
from persona.objects import canonical
from persona.objects.base import Base, Shard
from persona.objects.commit import MAX_OFFSET, MAX_SECONDS, MIN_SECONDS, Commit, Person, Tag
from persona.objects.dtypes import DTYPES
from persona.objects.ids import KINDS
from persona.objects.names import check_file_path, check_tensor_name, check_vector_name
from persona.objects.note import NOTE_KINDS, Note
from persona.objects.recipe import JOINS, Recipe, Term, from_binary32
from persona.objects.rules import CHOICES, PRESETS, Rules
from persona.objects.tensors import TensorSpec, check_spec, sort_key
from persona.objects.tree import Tree
from persona.objects.vector import LowRankFactor, Vector


def accepted(check: Callable[[Any], Any]) -> Callable[[Any], bool]:
    """A filter: what `check` takes without `InvalidInput`."""

    def admits(value: Any) -> bool:
        try:
            check(value)
        except InvalidInput:
            return False
        return True

    return admits


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ids = st.binary(min_size=32, max_size=32).filter(any).map(bytes.hex)
digests = ids.map("blake3:".__add__)
integers = st.integers(-canonical.MAX_INTEGER, canonical.MAX_INTEGER)
values = st.recursive(
    st.none() | st.booleans() | integers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)

tensor_names = (
    st.sampled_from(["lm_head.weight", "model.layers.0.mlp.up_proj.weight", "é", "\U0001f600", "￿"]) | texts
).filter(accepted(check_tensor_name))
vector_names = (st.sampled_from(["listening", "a b", "café", "core#voice"]) | texts).filter(
    accepted(check_vector_name)
)
file_paths = (st.sampled_from(["config.json", "graph/a.md"]) | texts).filter(accepted(check_file_path))
shard_names = file_paths.filter(lambda name: "/" not in name)
decimals = st.decimals(allow_nan=False, allow_infinity=False, min_value=-1000, max_value=1000, places=6).map(
    canonical.decimal
)
densities = st.integers(1, 10**6).map(lambda n: canonical.decimal(f"{n}e-6"))


def over_layers(numbers: Any) -> Any:
    """One number, or a list over layers."""
    return numbers | st.lists(numbers, min_size=1, max_size=4).map(tuple)


shapes = st.lists(st.integers(0, 300), max_size=4).map(tuple)


all_dtypes = st.sampled_from(sorted(DTYPES))


def specs(dtypes: Any = all_dtypes, shapes: Any = shapes) -> Any:
    """Possible tensors, in order of names."""
    one = st.builds(TensorSpec, tensor_names, dtypes, shapes).filter(accepted(check_spec))
    several = st.lists(one, max_size=5, unique_by=lambda spec: spec.name)
    return several.map(lambda found: tuple(sorted(found, key=lambda spec: sort_key(spec.name))))


chunk_lengths = st.integers(6, 24).map((1).__lshift__)
files = st.dictionaries(file_paths, ids, max_size=4)


@st.composite
def bases(draw: st.DrawFn) -> Base:
    """Manifests of bases."""
    tensors = draw(specs())
    shards = tuple(
        Shard(name, draw(st.dictionaries(texts, texts, max_size=2)))
        for name in draw(st.lists(shard_names, min_size=1, max_size=3, unique=True))
    )
    held = [spec.name for spec in tensors]
    aliases = draw(st.lists(tensor_names.filter(lambda name: name not in held), max_size=2)) if held else []
    return Base(
        chunk=draw(chunk_lengths),
        digest=draw(digests),
        files=draw(files),
        shards=shards,
        table=draw(ids),
        tensors=tensors,
        shard_of=tuple(draw(st.integers(0, len(shards) - 1)) for _ in tensors),
        tied={alias: draw(st.sampled_from(held)) for alias in aliases},
    )


changed_specs = specs(
    st.sampled_from(["BF16", "F16", "F32"]), st.lists(st.integers(1, 300), max_size=4).map(tuple)
).filter(bool)


binary32s = st.floats(width=32, allow_nan=False, allow_infinity=False).map(from_binary32)
"""Shortest decimals of binary32."""


def _factor(spec: TensorSpec) -> Any:
    blocks = {1, spec.shape[0]} if len(spec.shape) > 2 else {1}
    dtypes = st.sampled_from(["BF16", "F16", "F32"])
    ranks = st.integers(1, 1 << 20)
    return st.builds(LowRankFactor, ranks, binary32s, dtypes, st.sampled_from(sorted(blocks)))


@st.composite
def vectors(draw: st.DrawFn) -> Vector:
    """Manifests of vectors, of all three kinds."""
    kind = draw(st.sampled_from(["delta", "lowrank", "expression"]))
    base = draw(digests)
    if kind == "expression":
        terms = draw(st.dictionaries(ids, binary32s.filter(lambda text: text != "0"), min_size=1, max_size=4))
        return Vector(base, kind, expression=tuple(sorted(terms.items())))
    tensors = draw(changed_specs)
    factors: tuple[LowRankFactor | None, ...] = ()
    if kind == "lowrank":
        factors = tuple(draw(st.none() | _factor(spec)) if spec.shape else None for spec in tensors)
        assume(any(factors))
    return Vector(base, kind, draw(chunk_lengths), tensors, draw(ids), factors)


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    """Presets with some of their axes set."""
    preset = draw(st.sampled_from(sorted(PRESETS)))
    usable = [axis for axis in CHOICES if PRESETS[preset][axis] is not None]
    numbers = {"gamma": densities, "epsilon": densities, "seed": st.integers(0, (1 << 63) - 1)}
    axes: dict[str, object] = {
        axis: draw(st.sampled_from(CHOICES[axis])) for axis in draw(st.sets(st.sampled_from(usable)))
    }
    if PRESETS[preset]["density"] is not None and draw(st.booleans()):
        axes["density"] = draw(densities)
    for axis, values in numbers.items():
        if PRESETS[preset][axis] is not None and draw(st.booleans()):
            axes[axis] = draw(values)
    try:
        return Rules.of(preset, **axes, lambda_=draw(decimals))
    except InvalidInput:
        return Rules.of(preset)


patterns = st.sampled_from(["*", "model.layers.1?.mlp.*", "[!a]*", "lm_head.weight"]) | texts.filter(bool)
filters = st.lists(patterns, max_size=3).map(tuple)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Recipes of up to five terms, several of one vector among them."""
    how = draw(rules())
    own = st.none() if how.trim in ("joint", "none") else st.none() | over_layers(densities)
    if how.trim in ("breadcrumbs", "della"):
        own = st.sampled_from([None, "1"])  # others may not fit gamma or epsilon
    pool = draw(st.lists(ids, min_size=1, max_size=3))
    terms = [
        Term(
            name,
            draw(st.sampled_from(pool)),
            draw(over_layers(st.sampled_from(["1", "-1", "0", "0.5"]) | decimals)),
            draw(own),
            draw(filters),
            draw(filters),
            draw(st.sampled_from(JOINS)),
        )
        for name in draw(st.lists(vector_names, max_size=5, unique=True))
    ]
    return Recipe.of(draw(ids), terms, how)


trees = st.builds(Tree, ids, st.dictionaries(file_paths, st.none() | ids, max_size=4))
words = texts.map(lambda text: "".join(char for char in text if char.isprintable() and char not in "<>"))
people = st.builds(
    Person, words, words, st.integers(MIN_SECONDS, MAX_SECONDS), st.integers(-MAX_OFFSET, MAX_OFFSET)
)
commits = st.builds(Commit, ids, st.lists(ids, max_size=3).map(tuple), people, people, texts)
tags = st.builds(Tag, ids, st.sampled_from(KINDS), texts, people, texts)
notes = st.builds(
    Note,
    ids,
    st.sampled_from(["commit", "vector"]),
    st.sampled_from(NOTE_KINDS),
    st.dictionaries(texts, values, max_size=3),
)

OBJECTS: dict[str, tuple[Callable[[bytes], Any], Any]] = {
    "base": (Base.decode, bases()),
    "vector": (Vector.decode, vectors()),
    "recipe": (Recipe.decode, recipes()),
    "tree": (Tree.decode, trees),
    "commit": (Commit.decode, commits),
    "tag": (Tag.decode, tags),
    "note": (Note.decode, notes),
}
"""kind → (its decoder, a strategy of its objects)."""

# fmt: off
HOSTILE: list[Any] = [
    None, True, False, 0, 1, -1, 63, 1 << 24, canonical.MAX_INTEGER, -canonical.MAX_INTEGER,
    "", "0", "1", "-0", "1e9", "nan", "0" * 64, "f" * 64, "F" * 64, "blake3:" + "f" * 64, "delta", "lowrank",
    "../../x", "/etc/passwd", ".persona/HEAD", "a\\b", "\x00", "x" * 5000, "[", "[z-a]", "ties", "linear",
    [], {}, [[]], [{}], {"": None}, {"name": []}, [["a", "BF16", [1]]], [["a", "BF16", [1 << 40, 1 << 40]]],
]
# fmt: on
hostile = st.sampled_from(HOSTILE)


@st.composite
def mangled(draw: st.DrawFn, objects: Any) -> bytes:
    """Canonical JSON of an object in which one thing somewhere was replaced, dropped, added or doubled."""
    root = {"whole": json.loads(draw(objects).encode())}
    holder: Any = root
    key: Any = "whole"
    for _ in range(draw(st.integers(0, 5))):
        steps = list(holder[key] if isinstance(holder[key], dict) else range(_length(holder[key])))
        if not steps:
            break
        holder, key = holder[key], draw(st.sampled_from(steps))
    how = draw(st.sampled_from(["replace", "drop", "add", "double"]))
    if how == "replace" or holder is root:
        holder[key] = draw(hostile | values)
    elif how == "drop":
        del holder[key]
    else:
        item = holder[key] if how == "double" else draw(hostile | values)
        if isinstance(holder, dict):
            holder[draw(texts)] = item
        else:
            holder.insert(draw(st.integers(0, len(holder))), item)
    return canonical.encode(root["whole"])


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list) else 0
