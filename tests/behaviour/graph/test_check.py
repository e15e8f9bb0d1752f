"""What `graph check` names, with the file and the line."""

from __future__ import annotations

import pytest

from persona.behaviour.graph.check import GraphCheck, check
from persona.behaviour.graph.graph import Graph
from tests.behaviour.graph.texts import dialogue, lines, pattern, probe, turn, write
from tests.history.bots import Bot

DATA = '[data]\ntrain = "data/l.jsonl"\nprobes = "data/l.probes.jsonl"\n'
PROBES = [probe(f"Question {n}", "letter" if n % 2 else "seen") for n in range(12)]


def checked(bot: Bot, files: dict[str, str] | None = None) -> GraphCheck:
    write(bot.root, files or {})
    return check(Graph.of(bot.repo._history))


def problems(bot: Bot, files: dict[str, str] | None = None) -> list[str]:
    return [str(one) for one in checked(bot, files).problems]


def warnings(bot: Bot, files: dict[str, str] | None = None) -> list[str]:
    found = checked(bot, files)
    assert not found.problems
    return [str(one) for one in found.warnings]


@pytest.fixture
def sound(bot: Bot) -> Bot:
    """A pattern that nothing is wrong with."""
    files = {
        "listening.md": pattern("listening", DATA),
        "data/l.jsonl": lines([dialogue("I feel sad."), dialogue("I am late.")]),
        "data/l.probes.jsonl": lines(PROBES),
    }
    write(bot.root, files)
    return bot


def test_a_sound_graph_has_neither_problems_nor_warnings(sound: Bot) -> None:
    found = checked(sound)
    assert (found.patterns, found.problems, found.warnings, found.unverified) == (1, (), (), ())
    assert found.ok


def test_an_empty_graph_is_sound(bot: Bot) -> None:
    assert checked(bot) == GraphCheck(0, (), (), ())


def test_dangling_links_are_named_with_a_near_key(sound: Bot) -> None:
    links = "links = [\n  { to = 'listenin' },\n  { to = 'x' },\n  { to = 'listening' },\n]\n"
    assert problems(sound, {"rushing.md": pattern("rushing", links)}) == [
        "graph/rushing.md:4: links: no pattern has the key 'listenin'; did you mean listening?",
        "graph/rushing.md:5: links: no pattern has the key 'x'",
    ]


def test_a_link_may_lead_to_a_facet_and_to_a_pattern_whose_file_is_faulty(sound: Bot) -> None:
    links = "links = [{ to = 'core#calm' }, { to = 'broken' }]\n"
    files = {
        "core.md": pattern("core", "[facets.calm]\n"),
        "broken.md": pattern("broken", "sign = 0\n"),
        "rushing.md": pattern("rushing", links),
    }
    assert [one.split(":")[0] for one in problems(sound, files)] == ["graph/broken.md"]


def test_a_link_to_itself_is_a_problem_and_a_double_one_a_warning(sound: Bot) -> None:
    own = pattern("rushing", "links = [{ to = 'rushing' }]\n")
    assert problems(sound, {"rushing.md": own}) == ["graph/rushing.md:3: links: 'rushing' links to itself"]
    twice = pattern("rushing", "links = [\n{ to = 'listening' },\n{ to = 'listening' }]\n")
    (found,) = warnings(sound, {"rushing.md": twice})
    assert found.startswith("graph/rushing.md:5: links: the link 'related' to 'listening' stands in line 4")


def test_missing_and_leaving_data_files_are_all_named(sound: Bot) -> None:
    front = '[data]\ntrain = "data/none.jsonl"\nprobes = "../../p.jsonl"\n'
    found = problems(sound, {"rushing.md": pattern("rushing", front)})
    assert found[0] == "graph/rushing.md:4: train: graph/data/none.jsonl does not exist"
    assert found[1].startswith("graph/rushing.md:5: probes: '../../p.jsonl' is no file of the work tree")


def test_every_faulty_line_of_a_data_file_is_named(sound: Bot) -> None:
    text = "{\n" + lines([dialogue("Hi")]) + lines([turn("Hi")]) + '{"messages": 3}\n'
    found = problems(sound, {"data/l.jsonl": text})
    assert [line.split(": ")[0] for line in found] == [f"graph/data/l.jsonl:{n}" for n in (1, 3, 4)]
    assert "not JSON" in found[0]
    assert "the last message must be the assistant's" in found[1]


def test_every_faulty_probe_is_named(sound: Bot) -> None:
    faulty = {**turn("x"), "chosen": "a"}
    found = problems(sound, {"data/l.probes.jsonl": lines([*PROBES, faulty, {"id": "q"}])})
    assert [line.split(": ")[0] for line in found] == [f"graph/data/l.probes.jsonl:{n}" for n in (13, 14)]


@pytest.mark.parametrize("text", ["", "\n\n", "   \n"])
def test_empty_data_files_are_problems(sound: Bot, text: str) -> None:
    front = (
        '[data]\ntrain = "data/l.jsonl"\nopposite = "data/o.jsonl"\ndemos = "data/d.jsonl"\n'
        'probes = "data/p.jsonl"\n[facets.b.data]\nprompt = "data/b.txt"\nturns = "data/t.jsonl"\n'
    )
    names = ("o.jsonl", "d.jsonl", "p.jsonl", "b.txt", "t.jsonl")
    files = {"listening.md": pattern("listening", front), **{f"data/{name}": text for name in names}}
    found = problems(sound, files)
    assert {line.split(":")[0].removeprefix("graph/data/") for line in found} == set(names)
    assert len(found) == len(names)


def test_a_prompt_in_train_and_probes_is_named_with_both_places(sound: Bot) -> None:
    found = problems(sound, {"data/l.jsonl": lines([dialogue("Hello"), dialogue(" question  3 ")])})
    assert found == [
        "graph/data/l.probes.jsonl:4: the prompt of probe '4' is a training prompt:"
        " it stands in graph/data/l.jsonl:2"
    ]


@pytest.mark.parametrize("role", ["train", "opposite", "demos", "turns"])
def test_the_probes_of_a_pattern_may_not_be_training_prompts_of_another(sound: Bot, role: str) -> None:
    asked = lines([turn("Question 3")] if role == "turns" else [dialogue("Question 3")])
    other = {
        "train": '[data]\ntrain = "data/x.jsonl"\n',
        "opposite": '[data]\ntrain = "data/y.jsonl"\nopposite = "data/x.jsonl"\n',
        "demos": '[data]\ntrain = "data/l.jsonl"\ndemos = "data/x.jsonl"\n',
        "turns": '[data]\nprompt = "data/x.txt"\nturns = "data/x.jsonl"\n',
    }[role]
    files = {"rushing.md": pattern("rushing", other), "data/x.jsonl": asked, "data/x.txt": "Rush."}
    files |= {"data/y.jsonl": lines([dialogue("Question 3", "No.")])}
    (found,) = problems(sound, files)
    assert found.startswith("graph/data/l.probes.jsonl:4: the prompt of probe '4' is a training prompt")
    assert found.endswith(f"it stands in graph/data/{'y' if role == 'opposite' else 'x'}.jsonl:1")


def test_the_first_turn_of_a_long_dialogue_is_a_training_prompt(sound: Bot) -> None:
    long = dialogue("Question 3")
    messages = [*long["messages"], *dialogue("And then?")["messages"]]  # type: ignore[misc]
    (found,) = problems(sound, {"data/l.jsonl": lines([{"messages": messages}])})
    assert "it stands in graph/data/l.jsonl:1" in found


def test_probes_that_tell_little_are_warned_about(sound: Bot) -> None:
    few = [probe(f"Question {n}") for n in range(4)]
    few[2]["chosen"] = "word " * 40
    found = warnings(sound, {"data/l.probes.jsonl": lines(few)})
    assert [line.split(": ")[0] for line in found] == [f"graph/data/l.probes.jsonl:{n}" for n in (1, 1, 3)]
    assert found[0].endswith("4 probes; with fewer than 10, intervals are too wide to decide anything")
    assert "0 of 4 probes are in a surface form that the training data does not use" in found[1]
    assert "differ more than 2 times in length (line 3)" in found[2]


def test_a_quarter_of_the_probes_in_another_form_is_enough(sound: Bot) -> None:
    items = [probe(f"Question {n}", "letter" if n < 3 else "seen") for n in range(12)]
    assert warnings(sound, {"data/l.probes.jsonl": lines(items)}) == []
    items[0]["split"] = "seen"
    assert len(warnings(sound, {"data/l.probes.jsonl": lines(items)})) == 1


@pytest.mark.parametrize(
    ("opposite", "place", "says"),
    [
        (["I am late.", "I feel sad."], "o.jsonl:1", "the prompt differs from graph/data/l.jsonl:1"),
        (["I feel sad."], "l.jsonl:2", "has no other side: train has 2 dialogues and opposite 1"),
        (["I feel sad.", "I am late.", "Hi"], "o.jsonl:3", "train has 2 dialogues and opposite 3"),
    ],
)
def test_a_contrastive_pair_has_the_same_prompts(
    sound: Bot, opposite: list[str], place: str, says: str
) -> None:
    front = '[data]\ntrain = "data/l.jsonl"\nopposite = "data/o.jsonl"\nprobes = "data/l.probes.jsonl"\n'
    other = lines([dialogue(asked, "Hurry!") for asked in opposite])
    (found,) = problems(sound, {"listening.md": pattern("listening", front), "data/o.jsonl": other})
    assert found.startswith(f"graph/data/{place}: ")
    assert says in found


def test_trained_patterns_without_probes_are_unverified(sound: Bot) -> None:
    files = {
        "a.md": pattern("a", '[data]\ntrain = "data/l.jsonl"\n'),
        "b.md": pattern("b"),
    }
    found = checked(sound, files)
    assert found.ok
    assert found.unverified == ("a",)


def test_keys_that_look_like_known_ones_are_warned_about(sound: Bot) -> None:
    front = "sgin = -1\nmood = 3\n[facets.voice]\ntrian = 3\n"
    found = warnings(sound, {"a.md": pattern("a", front)})
    assert found == [
        "graph/a.md:3: sgin: persona does not read this key; did you mean sign?",
        "graph/a.md:6: facets.voice.trian: persona does not read this key; did you mean train?",
    ]


def test_facets_that_train_one_vector_are_warned_about(sound: Bot) -> None:
    front = DATA + "[facets.a]\nsign = -1\n[facets.b.train]\nseed = 2\n"
    (found,) = warnings(sound, {"listening.md": pattern("listening", front)})
    assert found.startswith("graph/listening.md:6: listening#a has the data and settings of listening")


def test_data_that_no_commit_will_hold_is_warned_about(sound: Bot) -> None:
    (sound.root / "data").mkdir()
    (sound.root / "data" / "x.jsonl").write_text(lines([dialogue("Hello")]))
    files = {"a.md": pattern("a", '[data]\ntrain = "../data/x.jsonl"\n')}
    (found,) = warnings(sound, files)
    assert found.startswith("graph/a.md:4: train: data/x.jsonl is not tracked")
    sound.repo.add(sound.root / "data" / "x.jsonl")
    assert warnings(sound) == []


def test_a_pattern_file_that_no_commit_can_hold_is_a_problem(sound: Bot) -> None:
    (sound.root / "graph" / "a.md").symlink_to("/etc/hostname")
    assert problems(sound) == [
        "graph/a.md:1: no commit can hold this: a link that leads out of the work tree"
    ]


def test_problems_come_by_file_and_line(sound: Bot) -> None:
    files = {"b.md": pattern("b", "sign = 3\nkind = 2\n"), "a.md": pattern("a", "links = [{ to = 'x' }]\n")}
    assert [line.split(": ")[0] for line in problems(sound, files)] == [
        "graph/a.md:3",
        "graph/b.md:3",
        "graph/b.md:4",
    ]
