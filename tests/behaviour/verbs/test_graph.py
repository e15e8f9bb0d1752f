"""`repo.graph`: patterns by key, and the exchange with other programs."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.behaviour.graph.reading import file_name
from persona.errors import InvalidInput, Refused, SystemFault, UnknownName, UnknownRevision
from persona.repository import Repository
from persona.store.files import replaced_calls
from tests.behaviour.graph.texts import dialogue, lines, pattern, probe, write
from tests.checkpoints import write_model
from tests.disks import Failing, count_calls
from tests.history.bots import Bot, advised, at

NODES: list[dict[str, Any]] = [
    {"key": "listening", "content": "Listen.", "weight": 0.5, "category": "core", "links": ["A b/c"]},
    {"key": "A b/c", "content": None, "seen": {"a": [1, None, 2.5]}},
    {"key": "calm", "links": [{"to": "listening", "relation": "supports", "strength": 0.5}]},
]


def nodes(bot: Bot, values: list[dict[str, Any]]) -> Path:
    """A file of nodes."""
    file = bot.models / "nodes.jsonl"
    file.write_text(lines(values))
    return file


def take(bot: Bot, values: list[dict[str, Any]], *, force: bool = False) -> list[tuple[str, ...]]:
    found = bot.repo.graph.import_lines(nodes(bot, values), force=force)
    return [found.added, found.changed, found.unchanged]


def exported(bot: Bot, rev: str | None = None) -> list[dict[str, Any]]:
    return list(bot.repo.graph.export_lines(rev).nodes)


def files(bot: Bot) -> dict[str, str]:
    folder = bot.root / "graph"
    return {file.name: file.read_text() for file in folder.glob("*.md")}


# -- patterns


def test_patterns_are_found_by_key(bot: Bot) -> None:
    write(bot.root, {"calm.md": pattern("calm"), "listening.md": pattern("listening"), "x.md": "no"})
    assert list(bot.repo.graph) == ["calm", "listening"]
    assert bot.repo.graph["calm"].prose == "What it means."
    assert "x" not in bot.repo.graph
    with pytest.raises(InvalidInput, match=r"^graph/x\.md:1: no front matter"):
        bot.repo.graph["x"]
    with pytest.raises(UnknownName, match="did you mean listening"):
        bot.repo.graph["listenin"]
    assert bot.repo.graph.get("listenin") is None


def test_a_view_has_the_links_and_states_of_all_patterns(bot: Bot) -> None:
    links = "links = [{ to = 'calm', relation = 'opposes', strength = 0.5 }]\n"
    write(bot.root, {"calm.md": pattern("calm"), "rushing.md": pattern("rushing", links)})
    calm, rushing = bot.repo.graph.view().patterns
    assert (calm.key, calm.links) == ("calm", ())
    (link,) = rushing.links
    assert (link.from_, link.to, link.relation, link.strength) == ("rushing", "calm", "opposes", 0.5)
    assert [one.state for one in rushing.trainables] == ["untrained"]


def test_everything_about_one_pattern(bot: Bot) -> None:
    front = (
        "since = 2024-05-01\nlinks = [{ to = 'calm' }]\n[data]\ntrain = 'data/l.jsonl'\n"
        "probes = 'data/p.jsonl'\ndemos = 'data/d.jsonl'\n[train]\nsteps = 7\n"
        "[facets.voice.train]\nsteps = 9\n"
    )
    write(
        bot.root,
        {
            "listening.md": pattern("listening", front),
            "calm.md": pattern("calm", "links = [{ to = 'listening#voice' }]\n"),
            "data/l.jsonl": lines([dialogue("Hi"), dialogue("Ho")]),
            "data/p.jsonl": lines([probe("What?")]),
        },
    )
    found = bot.repo.graph.describe("listening")
    assert [one.name for one in found.trainables] == ["listening", "listening#voice"]
    assert [(one.from_, one.to) for one in found.linked_from] == [("calm", "listening#voice")]
    own = [one for one in found.data if one.name == "listening"]
    assert [(one.role, one.entries) for one in own] == [("train", 2), ("demos", None), ("probes", 1)]
    assert own[1].problem is not None
    assert "graph/data/d.jsonl does not exist" in own[1].problem
    assert [one["steps"] for one in found.settings.values()] == [7, 9]
    assert found.extra == {"since": "2024-05-01"}
    with pytest.raises(UnknownName):
        bot.repo.graph.describe("listenin")


def test_an_old_graph_is_checked_and_exported_from_its_commit(bot: Bot) -> None:
    write(bot.root, {"calm.md": pattern("calm", "links = [{ to = 'x' }]\n")})
    bot.commit(message="a pattern")
    (bot.root / "graph/calm.md").unlink()
    assert bot.repo.graph.check().ok
    assert not bot.repo.graph.check("HEAD").ok
    assert (exported(bot), [one["key"] for one in exported(bot, "HEAD")]) == ([], ["calm"])
    with pytest.raises(UnknownRevision):
        bot.repo.graph.check("nothing")


# -- exchange


def test_nodes_come_back_in_their_order_as_they_were(bot: Bot) -> None:
    assert take(bot, NODES) == [("listening", "A b/c", "calm"), (), ()]
    assert sorted(files(bot)) == sorted(file_name(node["key"]) for node in NODES)
    assert bot.repo.graph.check().ok
    assert exported(bot) == NODES
    assert [json.loads(line) for line in bot.repo.graph.export_lines().lines] == NODES


def test_an_import_is_tracked_and_commits_nothing(bot: Bot) -> None:
    head = bot.repo.head()
    take(bot, NODES)
    assert bot.repo.head() == head
    bot.commit(message="nodes")
    assert exported(bot, "HEAD") == NODES


def test_the_same_import_again_changes_nothing(bot: Bot) -> None:
    take(bot, NODES)
    before = files(bot)
    assert take(bot, NODES) == [(), (), ("listening", "A b/c", "calm")]
    assert files(bot) == before


def test_new_and_changed_nodes_keep_the_order(bot: Bot) -> None:
    take(bot, NODES)
    changed = {**NODES[0], "content": "Listen well."}
    new = {"key": "a"}
    assert take(bot, [new, changed]) == [("a",), ("listening",), ()]
    assert exported(bot) == [changed, *NODES[1:], new]


def test_what_export_gives_is_known_when_it_comes_back(bot: Bot) -> None:
    write(bot.root, {"calm.md": pattern("calm", "weight = 0.5\n[data]\ntrain = 'x'\n")})
    take(bot, NODES[:2])
    before = files(bot)
    assert take(bot, exported(bot)) == [(), (), ("listening", "A b/c", "calm")]
    assert files(bot) == before


@pytest.mark.parametrize("text", [pattern("calm", "sign = -1\n"), pattern("calm"), "no pattern\n"])
def test_a_file_written_by_hand_stops_the_whole_import(bot: Bot, text: str) -> None:
    write(bot.root, {"calm.md": text})
    with pytest.raises(Refused, match=r"^graph/calm\.md is written or edited by hand") as refused:
        take(bot, NODES)
    assert "force=True" in advised(refused.value)
    assert files(bot) == {"calm.md": text}
    assert take(bot, NODES, force=True) == [("listening", "A b/c"), ("calm",), ()]
    assert [one["key"] for one in exported(bot)] == ["listening", "A b/c", "calm"]


def test_a_file_edited_after_its_import_stops_the_next_one(bot: Bot) -> None:
    take(bot, NODES)
    file = bot.root / "graph" / "listening.md"
    file.write_text(file.read_text().replace("[import]", '[data]\ntrain = "data/l.jsonl"\n[import]'))
    assert exported(bot) == NODES
    assert take(bot, NODES)[2] == ("listening", "A b/c", "calm")
    with pytest.raises(Refused):
        take(bot, [{**NODES[0], "content": "New."}])


def test_force_takes_the_fields_of_the_node_and_keeps_the_rest(bot: Bot) -> None:
    front = (
        'kind = "trait"\nsign = -1\nmood = "calm"\nweight = 1\nlinks = [{ to = "b" }]\n'
        "[data]\ntrain = 'data/l.jsonl'\n[train]\nsteps = 3\n[facets.voice.train]\nsteps = 4\n"
    )
    write(bot.root, {"listening.md": pattern("listening", front, "Old.")})
    take(bot, [{"key": "listening", "weight": 2, "links": ["c"], "sign": 5}], force=True)
    found = bot.repo.graph["listening"]
    assert (found.kind, found.prose, [one.to for one in found.links]) == ("trait", "Old.", ["c"])
    assert [one.settings.steps for one in found.trainables] == [3, 4]
    assert {one.sign for one in found.trainables} == {-1}
    assert found.extra["mood"] == "calm"
    (node,) = exported(bot)
    assert (node["weight"], node["links"], node["sign"], node["mood"]) == (2, ["c"], 5, "calm")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"key": "a"}\n{"key": 3}\n', ":2: key must be text"),
        ('{"key": "a"}\n{"key": "a"}\n', ":2: the key 'a' stands in"),
        ("{\n", ":1: this is not JSON"),
    ],
)
def test_a_faulty_line_stops_the_whole_import(bot: Bot, text: str, says: str) -> None:
    file = nodes(bot, [])
    file.write_text(text)
    with pytest.raises(InvalidInput, match=says):
        bot.repo.graph.import_lines(file)
    assert files(bot) == {}


def test_a_file_that_is_not_there_is_named(bot: Bot) -> None:
    with pytest.raises(InvalidInput, match=r"nothing\.jsonl"):
        bot.repo.graph.import_lines(bot.models / "nothing.jsonl")
    with pytest.raises(InvalidInput, match="is a directory; give a file of JSON lines"):
        bot.repo.graph.import_lines(bot.models)


def test_a_faulty_pattern_stops_an_export(bot: Bot) -> None:
    write(bot.root, {"calm.md": pattern("calm", "sign = 0\n")})
    with pytest.raises(InvalidInput, match=r"^graph/calm\.md:3: sign: .*; nothing was exported"):
        exported(bot)


def test_a_full_disk_leaves_all_files_as_they_were(bot: Bot) -> None:
    take(bot, NODES[:1])
    file = nodes(bot, [{**NODES[0], "content": "New."}, *NODES[1:]])
    before = files(bot)

    def reset() -> None:
        for name in files(bot).keys() - before.keys():
            (bot.root / "graph" / name).unlink()
        (bot.root / "graph" / "listening.md").write_text(before["listening.md"])

    calls = count_calls(lambda: bot.repo.graph.import_lines(file))
    failed = 0
    for at_call in range(1, calls + 1):
        reset()
        try:
            with replaced_calls(Failing(at_call, errno.ENOSPC)):
                bot.repo.graph.import_lines(file)
        except SystemFault:
            failed += 1
            assert files(bot) == before, at_call
    assert failed > 5


KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda key: bool(key.strip()))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(KEYS, st.dictionaries(KEYS, JSON, max_size=4), max_size=5))
def test_an_export_is_the_import_line_by_line(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, dict[str, Any]]
) -> None:
    place = tmp_path_factory.mktemp("nodes")
    write_model(place / "tiny", {"a": [0.5, 1.0]})
    text = "".join(json.dumps({**fields, "key": key}) + "\n" for key, fields in values.items())
    (place / "nodes.jsonl").write_text(text)
    with Repository.init(place / "bot", base=place / "tiny", author=at(), committer=at()) as repo:
        repo.graph.import_lines(place / "nodes.jsonl")
        assert repo.graph.check().problems == () or all(
            "links" in one.text for one in repo.graph.check().problems
        )
        found = repo.graph.export_lines()
    assert [json.dumps(node) for node in found.nodes] == text.splitlines()
