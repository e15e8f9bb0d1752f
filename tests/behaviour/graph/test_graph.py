"""The graph of a work tree or a commit, and the data of its patterns."""

from __future__ import annotations

import pytest

from persona.behaviour.graph.graph import Graph
from persona.errors import InvalidInput, UnknownName
from tests.behaviour.graph.texts import dialogue, lines, pattern, probe, turn, write
from tests.history.bots import Bot

DATA = '[data]\ntrain = "data/l.jsonl"\nprobes = "data/l.probes.jsonl"\n'


@pytest.fixture
def listening(bot: Bot) -> Bot:
    """A pattern with dialogues and probes."""
    write(
        bot.root,
        {
            "listening.md": pattern("listening", DATA),
            "data/l.jsonl": lines([dialogue("I feel sad.")]),
            "data/l.probes.jsonl": lines([probe("My cat died."), probe("sad", "letter")]),
        },
    )
    return bot


def graph(bot: Bot, rev: str | None = None) -> Graph:
    return Graph.of(bot.repo._history, rev)


def test_the_graph_of_a_commit_is_read_from_the_commit(listening: Bot) -> None:
    listening.commit(message="a pattern")
    (listening.root / "graph/listening.md").unlink()
    (listening.root / "graph/data/l.jsonl").write_text("")
    assert list(graph(listening).patterns) == []
    then = graph(listening, "HEAD")
    assert list(then.patterns) == ["listening"]
    assert len(then.dialogues(then.trainable("listening"))) == 1
    assert list(graph(listening, "HEAD~1").patterns) == []


def test_data_is_found_from_the_folder_of_the_pattern(listening: Bot) -> None:
    found = graph(listening)
    one = found.trainable("listening")
    assert [item.place for item in found.dialogues(one)] == ["graph/data/l.jsonl:1"]
    assert found.dialogues(one, "demos") == ()
    probes = found.probes("listening")
    assert probes is not None
    assert probes.splits == ("seen", "letter")
    assert list(found.data_files(one)) == ["train"]


def test_a_baked_prompt_has_a_text_and_turns(bot: Bot) -> None:
    front = '[data]\nprompt = "data/p.txt"\nturns = "data/t.jsonl"\n'
    files = {
        "a.md": pattern("a", front),
        "data/p.txt": "\n Listen first.\n",
        "data/t.jsonl": lines([turn("Hi")]),
    }
    write(bot.root, files)
    found = graph(bot)
    assert found.prompt(found.trainable("a")) == "Listen first."
    assert len(found.turns(found.trainable("a"))) == 1
    write(bot.root, {"data/p.txt": " \n"})
    with pytest.raises(InvalidInput, match=r"^graph/data/p\.txt:1: the prompt is empty"):
        found.prompt(found.trainable("a"))


def test_a_faulty_file_hides_no_other_one_and_is_named_when_it_is_asked_for(listening: Bot) -> None:
    write(listening.root, {"rushing.md": pattern("rushing", "sign = 3\n")})
    found = graph(listening)
    assert list(found.patterns) == ["listening"]
    assert list(found.problems) == ["graph/rushing.md"]
    with pytest.raises(InvalidInput, match=r"^graph/rushing\.md:3: sign: "):
        found.trainable("rushing")
    with pytest.raises(InvalidInput, match=r"^graph/rushing\.md:3: sign: "):
        found.probes("rushing")


def test_an_unknown_name_is_answered_with_a_near_one(listening: Bot) -> None:
    with pytest.raises(UnknownName, match="did you mean listening"):
        graph(listening).trainable("listenin")
    with pytest.raises(UnknownName, match=r"no pattern or facet is named 'x'\nhint: there are: listening"):
        graph(listening).trainable("x")


def test_an_empty_graph_says_which_file_to_write(bot: Bot) -> None:
    with pytest.raises(UnknownName, match=r"graph/ has none; write graph/listening\.md"):
        graph(bot).pattern("listening")


def test_a_pattern_of_facets_alone_names_them(bot: Bot) -> None:
    write(bot.root, {"core.md": pattern("core", "[facets.calm]\n[facets.warm]\n")})
    with pytest.raises(UnknownName, match="name one of core#calm, core#warm"):
        graph(bot).trainable("core")


def test_a_pattern_without_training_data_cannot_be_trained(bot: Bot) -> None:
    write(bot.root, {"calm.md": pattern("calm")})
    with pytest.raises(InvalidInput, match=r"^graph/calm\.md:1: 'calm' has nothing to train on"):
        graph(bot).trainable("calm")
    assert graph(bot).probes("calm") is None


@pytest.mark.parametrize("path", ["../../secret.jsonl", "/etc/passwd", "../.persona/HEAD", "a\\b", ".."])
def test_data_outside_the_work_tree_is_refused_with_the_line(listening: Bot, path: str) -> None:
    (listening.root.parent / "secret.jsonl").write_text(lines([dialogue("x")]))
    write(listening.root, {"listening.md": pattern("listening", f"[data]\ntrain = '{path}'\n")})
    found = graph(listening)
    with pytest.raises(InvalidInput, match=r"^graph/listening\.md:4: train: .* is no file of the work tree"):
        found.dialogues(found.trainable("listening"))


def test_a_link_that_leads_out_is_not_followed(listening: Bot) -> None:
    secret = listening.root.parent / "secret.jsonl"
    secret.write_text(lines([dialogue("x")]))
    data = listening.root / "graph/data/l.jsonl"
    data.unlink()
    data.symlink_to(secret)
    found = graph(listening)
    with pytest.raises(
        InvalidInput, match=r"listening\.md:4: train: graph/data/l\.jsonl cannot be used: a link"
    ):
        found.dialogues(found.trainable("listening"))


def test_a_missing_file_is_named_with_the_line_of_the_key(listening: Bot) -> None:
    (listening.root / "graph/data/l.probes.jsonl").unlink()
    with pytest.raises(
        InvalidInput, match=r"^graph/listening\.md:5: probes: graph/data/l\.probes\.jsonl does not exist"
    ):
        graph(listening).probes("listening")


def test_only_markdown_files_of_the_folder_itself_are_patterns(listening: Bot) -> None:
    write(listening.root, {"README.md": "# The graph\n", "data/notes.md": "no pattern\n"})
    assert not graph(listening).problems
    assert list(graph(listening).patterns) == ["listening"]


def test_two_files_with_one_key_are_a_problem_of_the_second(bot: Bot) -> None:
    from persona.behaviour.graph.reading import file_name

    write(bot.root, {"a b.md": pattern("a b"), file_name("a b"): pattern("a b", "sign = -1\n")})
    found = graph(bot)
    assert found.patterns["a b"].file == "graph/a b.md"
    ((problem,),) = found.problems.values()
    assert "'a b' is the key of graph/a b.md already" in str(problem)
