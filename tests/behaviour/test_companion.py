"""The example `companion`: five patterns whose probes can tell what their training data does."""

from __future__ import annotations

import pytest

from persona.behaviour.dialogues import Dialogue, prompts_of, read_dialogues, read_turns
from persona.behaviour.graph.graph import Graph
from persona.behaviour.probes import ProbeSet, overlap
from persona.history.examples import example_files

KEYS = ("listening", "openness", "patience", "suggesting", "voice")
FILES = example_files("companion")
each_key = pytest.mark.parametrize("key", KEYS)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return Graph(FILES, FILES.get)


def trained(key: str) -> tuple[Dialogue, ...]:
    """The training dialogues of a pattern, their opposites and its demonstrations."""
    names = (f"{key}.jsonl", f"not-{key}.jsonl", f"{key}.demos.jsonl")
    return tuple(
        dialogue
        for path in (f"graph/data/{name}" for name in names)
        for dialogue in read_dialogues(path, FILES[path])
    )


def probes(graph: Graph, key: str) -> ProbeSet:
    found = graph.probes(key)
    assert found is not None
    return found


def test_every_pattern_can_be_read_and_every_link_leads_to_one(graph: Graph) -> None:
    assert not graph.problems
    assert tuple(graph.patterns) == KEYS
    assert {link.to for pattern in graph.patterns.values() for link in pattern.links} <= set(KEYS)
    assert {key for key, trainable in graph.trainables.items() if trainable.sign < 0} == {"suggesting"}


@each_key
def test_every_file_that_a_pattern_names_is_there(graph: Graph, key: str) -> None:
    trainable = graph.trainable(key)
    assert {"train", "demos"} <= graph.data_files(trainable, ("train", "demos")).keys()
    assert 40 <= len(graph.dialogues(trainable)) <= 60
    assert len(graph.dialogues(trainable, "demos")) == 5


@each_key
def test_opposites_answer_the_same_prompts_in_the_same_order(key: str) -> None:
    one, other = (
        read_dialogues(path, FILES[path])
        for path in (f"graph/data/{key}.jsonl", f"graph/data/not-{key}.jsonl")
    )
    assert [dialogue.prompt for dialogue in one] == [dialogue.prompt for dialogue in other]
    assert all(a.messages[-1] != b.messages[-1] for a, b in zip(one, other, strict=True))


@each_key
def test_half_of_the_probes_have_a_form_that_training_does_not_use(graph: Graph, key: str) -> None:
    items = probes(graph, key).items
    assert probes(graph, key).splits == ("seen", "unseen")
    assert len(items) >= 30
    assert 2 * sum(item.split == "unseen" for item in items) == len(items)
    assert sum(item.check is not None for item in items) >= 12


def test_no_probe_of_any_pattern_is_a_training_prompt_of_any(graph: Graph) -> None:
    prompts = prompts_of([dialogue for key in KEYS for dialogue in trained(key)])
    assert not [place for key in KEYS for place in overlap(probes(graph, key).items, prompts)]


@each_key
def test_both_answers_of_a_probe_are_of_like_length(graph: Graph, key: str) -> None:
    answers = [(item.chosen, item.rejected) for item in probes(graph, key).items if item.chosen is not None]
    assert len(answers) >= 30
    for chosen, rejected in answers:
        assert 0.7 < len(chosen) / len(rejected or "") < 1.4, chosen


@each_key
def test_the_check_holds_for_chosen_answers_and_for_no_rejected_one(graph: Graph, key: str) -> None:
    items = probes(graph, key).items
    (check,) = {item.check for item in items if item.check is not None}
    assert all(check.holds(item.chosen) for item in items if item.chosen is not None)
    assert not any(check.holds(item.rejected) for item in items if item.rejected is not None)


def test_a_prompt_to_bake_has_turns_that_no_probe_asks(graph: Graph) -> None:
    turns = read_turns("graph/data/voice.turns.jsonl", FILES["graph/data/voice.turns.jsonl"])
    assert not overlap(probes(graph, "voice").items, prompts_of(turns))
    assert FILES["graph/data/voice.prompt.txt"].decode().strip()
