"""The file of a pattern: what it may hold, and what is said about what it may not."""

from __future__ import annotations

from dataclasses import fields
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.behaviour.graph import reading
from persona.behaviour.graph.pattern import METHODS, OPTIMIZERS, Link, Pattern, TrainSettings
from persona.behaviour.graph.reading import file_name, pattern_of
from persona.behaviour.options import TrainOptions
from persona.errors import InvalidInput
from tests.behaviour.graph.texts import pattern, read_pattern

WHOLE = """\
+++
key = "listening"
kind = "trait"
sign = -1
links = [
    { to = "rushing", relation = "opposes", strength = 0.8 },  # a comment with [brackets]
    { to = "voice" },
]
weight = 0.5
[data]
train = "data/listening.jsonl"
probes = "data/listening.probes.jsonl"
[train]
method = "lora"
modules = ["model.layers.1?.*"]
steps = 20
lr = 2e-5
[facets.voice]
sign = 1
[facets.voice.data]
prompt = "data/voice.txt"
turns = "data/turns.jsonl"
[facets.voice.train]
steps = 30
[mood]
words = ["calm"]
+++
What listening means.

+++ is no fence here.
"""


def read(text: str, file: str = "graph/listening.md") -> Pattern:
    return read_pattern(file, text.encode())


def problems(text: str, file: str = "graph/listening.md") -> list[str]:
    found, faults = pattern_of(file, text.encode())
    assert (found is None) == bool(faults)
    return [str(fault) for fault in faults]


def test_a_whole_file_is_read() -> None:
    found = read(WHOLE)
    assert (found.key, found.kind, found.file) == ("listening", "trait", "graph/listening.md")
    assert found.links == (Link("rushing", "opposes", 0.8, 6), Link("voice", "related", 1.0, 7))
    assert found.prose == "What listening means.\n\n+++ is no fence here."
    assert found.extra == {"weight": 0.5, "mood": {"words": ["calm"]}}
    own, voice = found.trainables
    assert (own.name, own.facet, own.sign) == ("listening", None, -1)
    assert own.settings == TrainSettings(method="lora", modules=("model.layers.1?.*",), steps=20, lr=2e-5)
    assert (voice.name, voice.facet, voice.sign) == ("listening#voice", "voice", 1)
    assert voice.settings == TrainSettings(method="lora", modules=("model.layers.1?.*",), steps=30, lr=2e-5)


def test_a_facet_takes_the_data_of_its_pattern_but_trains_in_its_own_way() -> None:
    _, voice = read(WHOLE).trainables
    assert voice.data.train is None
    assert voice.data.prompt == "data/voice.txt"
    assert voice.data.probes == "data/listening.probes.jsonl"


def test_a_pattern_without_data_owns_only_the_vectors_of_its_facets() -> None:
    text = pattern("core", '[facets.calm.data]\ntrain = "data/c.jsonl"\n[facets.warm]\n')
    assert [one.name for one in read(text, "graph/core.md").trainables] == ["core#calm", "core#warm"]
    assert [one.name for one in read(pattern("core"), "graph/core.md").trainables] == ["core"]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_a_byte_order_mark_do_not_matter(ends: str, mark: str) -> None:
    found = read_pattern("graph/listening.md", (mark + WHOLE.replace("\n", ends)).encode())
    assert found.links == read(WHOLE).links
    assert found.trainables == read(WHOLE).trainables


@pytest.mark.parametrize(
    ("front", "line", "says"),
    [
        ("kind = 'mood'\n", 3, "kind: 'mood' is not one of pattern, trait, core"),
        ("sign = 2\n", 3, "sign: must be 1"),
        ("sign = true\n", 3, "sign: must be 1"),
        ("sign = -1.0\n", 3, "sign: must be 1"),
        ("links = 'rushing'\n", 3, "links: must be a list"),
        ("links = [\n  'rushing',\n]\n", 4, "link 1: must be a table"),
        ("links = [\n  { to = 'a' },\n  { to = 'b', kind = 'c' },\n]\n", 5, "link 2: kind: unknown key"),
        ("links = [\n  { to = 'a' },\n  { relation = 'b' },\n]\n", 5, "link 2: to: the key of the other"),
        ("[[links]]\nto = 'a'\n\n[[links]]\nto = 'b'\nstrength = 1.5\n", 6, "link 2: strength: must be a"),
        ("links = [{ to = 'a', strength = nan }]\n", 3, "link 1: strength: must be a number from 0 to 1"),
        ("[data]\ntrian = 'a.jsonl'\n", 4, "data.trian: unknown key; the keys are train, prompt"),
        ("[data]\ntrain = 3\n", 4, "data.train: must be text"),
        ("[data]\ntrain = ''\n", 4, "data.train: must be text"),
        ("data = 3\n", 3, "data: must be a table"),
        ("[data]\nopposite = 'a.jsonl'\n", 4, "data.opposite: answers the prompts of train"),
        ("[data]\nturns = 'a.jsonl'\n", 4, "data.turns: are the turns that a prompt"),
        ("[data]\nprompt = 'a.txt'\n", 4, "data.prompt: is baked over the turns"),
        ("[data]\ntrain = 'a'\nprompt = 'b'\nturns = 'c'\n", 5, "data.prompt: train and prompt are two ways"),
        ("[train]\nstep = 3\n", 4, "train.step: unknown key; the keys are method"),
        ("[train]\nsteps = 0\n", 4, "train.steps: must be a whole number from 1"),
        ("[train]\nsteps = 3.0\n", 4, "train.steps: must be a whole number"),
        ("[train]\nsteps = true\n", 4, "train.steps: must be a whole number"),
        ("[train]\nlr = 0.0\n", 4, "train.lr: must be a number above 0"),
        ("[train]\nlr = inf\n", 4, "train.lr: must be a number above 0"),
        ("[train]\nlr = '2e-5'\n", 4, "train.lr: must be a number above 0"),
        ("[train]\nwarmup = 1.5\n", 4, "train.warmup: must be a number from 0 to 1"),
        ("[train]\nmethod = 'qlora'\n", 4, "train.method: 'qlora' is not one of full, lora"),
        ("[train]\noptimizer = 'adam'\n", 4, "train.optimizer: 'adam' is not one of apollo"),
        ("[train]\nschedule = 3\n", 4, "train.schedule: 3 is not one of linear"),
        ("[train]\nembeddings = 1\n", 4, "train.embeddings: must be true or false"),
        ("[train]\nmodules = 'a'\n", 4, "train.modules: must be a list of globs"),
        ("[train]\nmodules = ['a[']\n", 4, "train.modules: the glob 'a[' has a '['"),
        ("[facets.voice.train]\nseed = -1\n", 4, "facets.voice.train.seed: must be a whole number from 0"),
        ("[facets.voice]\nsign = 0\n", 4, "facets.voice.sign: must be 1"),
        ("[facets]\nvoice = 3\n", 4, "facets.voice: must be a table"),
        ('[facets."a/b"]\n', 3, "cannot name a vector"),
        ('[facets."a#b"]\n', 3, "cannot name a vector"),
        ("kind = \n", 3, "not valid TOML: Invalid value"),
        ("a = 1\na = 2\n", 4, "not valid TOML: Cannot overwrite a value"),
    ],
)
def test_each_fault_is_named_with_its_line_and_key(front: str, line: int, says: str) -> None:
    (found,) = problems(pattern("listening", front))
    assert found.startswith(f"graph/listening.md:{line}: "), found
    assert says in found


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "no front matter"),
        ("# Listening\n", 1, "no front matter"),
        ("+++\nkey = 'a'\n", 1, "has no end"),
        ("+++\nkind = 'core'\n+++\n", 2, "no key; write key ="),
        ("+++\nkey = 3\n+++\n", 2, "key: must be text"),
        ("+++\n\nkey = 'hearing'\n+++\n", 3, "key: 'hearing' is not the file's name"),
    ],
)
def test_a_file_needs_front_matter_with_the_key_that_it_is_named_by(text: str, line: int, says: str) -> None:
    (found,) = problems(text)
    assert found.startswith(f"graph/listening.md:{line}: ")
    assert says in found


def test_a_file_that_is_not_text_is_named_with_the_line() -> None:
    with pytest.raises(InvalidInput, match=r"^graph/a\.md:2: this is not UTF-8 text$"):
        read_pattern("graph/a.md", b"+++\n\xff\n+++\n")


def test_all_problems_of_a_file_are_collected_in_order_and_the_error_counts_them() -> None:
    text = pattern("hearing", "sign = 3\n[train]\nsteps = 0\nlr = -1\n")
    found = problems(text)
    assert [line.split(": ")[1] for line in found] == ["key", "sign", "train.steps", "train.lr"]
    with pytest.raises(InvalidInput, match=r"listening\.md:2: key: .*\(and 3 more problems in this file\)"):
        read(text)


def test_every_setting_of_training_has_a_check() -> None:
    assert list(reading.TRAIN) == [field.name for field in fields(TrainSettings)]


def test_the_checks_take_the_defaults() -> None:
    for field in fields(TrainSettings):
        if field.default is not None:
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            assert reading.TRAIN[field.name](default) == field.default


def test_train_takes_the_words_that_the_front_matter_takes() -> None:
    options = get_type_hints(TrainOptions, include_extras=True)
    words = {name: options[name].__metadata__[0].words for name in ("method", "optimizer")}
    assert words == {"method": METHODS, "optimizer": OPTIMIZERS}


@given(st.text(min_size=1).filter(lambda key: key.isprintable() and bool(key.strip())))
def test_the_file_of_any_key_has_a_name_that_is_safe_everywhere(key: str) -> None:
    name = file_name(key)
    assert name.encode().decode("ascii") == name.casefold()
    assert not set(name) & set('/\\:*?"<>| \0')
    assert not name.startswith((".", "-"))
    assert len(name) <= 110


@given(st.sets(st.text(min_size=1), min_size=2))
def test_different_keys_have_different_files(keys: set[str]) -> None:
    assert len({file_name(key) for key in keys}) == len(keys)


def test_a_plain_key_is_the_name_of_its_file() -> None:
    assert file_name("pattern-listening") == "pattern-listening.md"
    assert file_name("v1.2_calm") == "v1.2_calm.md"
