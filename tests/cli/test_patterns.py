"""`persona graph`: what its commands print, draw and exit with."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import pytest

from persona.behaviour.states import TrainableState
from persona.behaviour.verbs.graph import LinkView, PatternView
from persona.cli import graph_drawing
from persona.cli.patterns import roots
from tests.behaviour.graph.texts import dialogue, lines, pattern, probe, write
from tests.cli.command_line import CommandLine

LINKS = """\
links = [
    { to = "rushing", relation = "opposes", strength = 0.8 },
    { to = "voice#calm", relation = "supports" },
    { to = "nobody" },
]
"""


@pytest.fixture
def bot(grown: CommandLine) -> CommandLine:
    """A repository with the vector `listening`, and four patterns."""
    front = f'kind = "core"\n{LINKS}[data]\ntrain = "data/l.jsonl"\nprobes = "data/p.jsonl"\n'
    files = {
        "listening.md": pattern("listening", front, "Hear first.\n\nThen answer."),
        "rushing.md": pattern("rushing", "links = [{ to = 'listening', relation = 'opposes' }]\n"),
        "voice.md": pattern("voice", "[facets.calm]\n[facets.warm]\n"),
        "alone.md": pattern("alone"),
        "data/l.jsonl": lines([dialogue("Hi")]),
        "data/p.jsonl": lines([probe("hi")]),
    }
    write(grown.directory, files)
    return grown


# -- check and status


def test_check_names_file_and_line_and_exits_with_one(bot: CommandLine) -> None:
    result = bot("graph", "check")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "graph/data/p.jsonl:1: error: the prompt of probe '1' is a training prompt: it stands in"
        " graph/data/l.jsonl:1",
        "graph/listening.md:7: error: links: no pattern has the key 'nobody'",
        "graph/data/p.jsonl:1: warning: 1 probe; with fewer than 10, intervals are too wide to decide"
        " anything",
        "graph/data/p.jsonl:1: warning: 0 of 1 probes are in a surface form that the training data does"
        ' not use (a "split" other than "seen"); half of them should be',
        "4 patterns, 2 problems, 2 warnings",
    ]
    assert json.loads(bot("--json", "graph", "check").stdout)["problems"][1] == {
        "file": "graph/listening.md",
        "line": 7,
        "text": "links: no pattern has the key 'nobody'",
    }


def test_warnings_alone_exit_with_zero(persona: CommandLine) -> None:
    files = {
        "a.md": pattern("a", '[data]\ntrain = "data/l.jsonl"\n'),
        "data/l.jsonl": lines([dialogue("Hi")]),
    }
    write(persona.directory, {**files, "b.md": pattern("b", "sgin = 1\n")})
    assert persona.ok("graph", "check").splitlines() == [
        "graph/b.md:3: warning: sgin: persona does not read this key; did you mean sign?",
        "unverified, because they have no probes: a",
        "2 patterns, no problem, 1 warning",
    ]


def test_check_takes_a_revision(bot: CommandLine) -> None:
    bot.ok("commit", "-m", "patterns")
    write(bot.directory, {"listening.md": pattern("listening")})
    assert bot("graph", "check").exit_code == 0
    assert bot("graph", "check", "HEAD").exit_code == 1
    assert bot.ok("graph", "check", "HEAD~1") == "0 patterns, no problem\n"


def test_status_has_a_line_for_each_vector(bot: CommandLine) -> None:
    bot.ok("add", "../suggesting")
    id = bot.json("graph", "status")["trainables"][1]["vector"]
    assert bot.ok("graph", "status").splitlines() == [
        "alone       untrained                    no data to train on",
        f"listening   trained    α 0.50  {id[:8]}  not measured, imported",
        "rushing     untrained                    no data to train on",
        "voice#calm  untrained                    no data to train on",
        "voice#warm  untrained                    no data to train on",
        "vectors without a pattern: suggesting",
        "4 untrained, 1 trained",
    ]


def test_an_empty_graph_says_so(persona: CommandLine) -> None:
    for command in ("status", "show"):
        assert persona.ok("graph", command) == "graph/ has no pattern\n"
    assert persona.ok("graph", "export") == ""
    assert persona.json("graph", "export") == []


def test_status_of_the_graph_imports_nothing_heavy(bot: CommandLine) -> None:
    code = (
        "import sys\nfrom persona.cli.main import cli\n"
        "from tests.cli.command_line import CommandLine\nfrom pathlib import Path\n"
        "print(CommandLine(Path(sys.argv[1])).ok('graph', sys.argv[2]) != '')\n"
        "print(sorted({'torch', 'numpy', 'transformers', 'matplotlib', 'numba'} & set(sys.modules)))\n"
    )
    for command in ("status", "show"):
        words = [sys.executable, "-c", code, str(bot.directory), command]
        out = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        assert out == "True\n[]\n"


@pytest.mark.parametrize("command", ["log", "status", "diff"])
def test_everyday_commands_load_no_module_of_behaviour(bot: CommandLine, command: str) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.cli.command_line import CommandLine\n"
        "CommandLine(Path(sys.argv[1])).ok(sys.argv[2])\n"
        "print([name for name in sys.modules if name.startswith('persona.behaviour')])\n"
    )
    words = [sys.executable, "-c", code, str(bot.directory), command]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == (
        "['persona.behaviour', 'persona.behaviour.verbs']\n"  # the packages, which load modules when asked
    )


# -- the tree


def test_show_is_a_tree_of_links(bot: CommandLine) -> None:
    id = bot.json("graph", "status")["trainables"][1]["vector"][:8]
    assert bot.ok("graph", "show").splitlines() == [
        "alone  untrained",
        f"listening  core  trained  α 0.50  {id}",
        "├─ opposes 0.8 → rushing  untrained",
        "│  └─ opposes → listening (above)",
        "├─ supports → (#calm) voice",
        "│  ├─ #calm  untrained",
        "│  └─ #warm  untrained",
        "└─ related → nobody (no such pattern)",
    ]


def test_show_of_one_pattern_has_everything(bot: CommandLine) -> None:
    id = bot.json("graph", "status")["trainables"][1]["vector"][:8]
    assert bot.ok("graph", "show", "listening").splitlines() == [
        "pattern listening",
        "Kind:      core",
        "File:      graph/listening.md",
        f"Vector:    trained  α 0.50  {id}  not measured, imported",
        "Link:      opposes 0.8 → rushing",
        "Link:      supports → voice#calm",
        "Link:      related → nobody",
        "Linked:    rushing opposes → listening",
        "Data:      train graph/data/l.jsonl, 1 dialogue",
        "Data:      probes graph/data/p.jsonl, 1 probe",
        "Training:  method full, optimizer apollo, steps 60",
        "",
        "    Hear first.",
        "",
        "    Then answer.",
    ]
    assert "did you mean listening?" in bot.refused(3, "graph", "show", "listenin")


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ({"a": ["b"], "b": ["a"]}, ["a"]),
        ({"a": ["b"], "b": ["c"], "c": ["b"]}, ["a"]),
        ({"b": ["c"], "c": ["b"], "d": ["c"]}, ["d"]),
        ({"a": ["b"], "b": ["a"], "c": ["d", "a"], "d": ["c"]}, ["c"]),
        ({"a": ["a"], "b": ["x"]}, ["a", "b"]),
        ({}, []),
    ],
)
def test_a_cycle_has_one_root_unless_another_pattern_leads_to_it(
    after: Mapping[str, Sequence[str]], expected: list[str]
) -> None:
    assert roots(after) == expected


def test_a_long_key_does_not_push_the_others_away(persona: CommandLine) -> None:
    (persona.directory.parent / "nodes.jsonl").write_text(f'{{"key": "{"x" * 5000}"}}\n{{"key": "a"}}\n')
    persona.ok("graph", "import", "../nodes.jsonl")
    for command in ("status", "show"):
        assert max(map(len, persona.ok("graph", command).splitlines())) < 130


def test_a_long_chain_of_links_is_shown(persona: CommandLine) -> None:
    chain = {f"p{n}.md": pattern(f"p{n}", f"links = [{{ to = 'p{n + 1}' }}]\n") for n in range(1200)}
    write(persona.directory, {**chain, "p1200.md": pattern("p1200")})
    assert len(persona.ok("graph", "show").splitlines()) == 1201


def test_a_pattern_stands_where_it_is_nearest_to_a_root(persona: CommandLine) -> None:
    links = {"a": ("b", "d"), "b": ("c",), "c": ("d",), "d": ("b",)}
    texts = {
        f"{key}.md": pattern(key, f"links = [{', '.join(f'{{ to = {to!r} }}' for to in targets)}]\n")
        for key, targets in links.items()
    }
    write(persona.directory, texts)
    assert [line.partition(" → ")[::2] for line in persona.ok("graph", "show").splitlines()] == [
        ("a  untrained", ""),
        ("├─ related", "b  untrained"),
        ("│  └─ related", "c  untrained"),
        ("│     └─ related", "d (below)"),
        ("└─ related", "d  untrained"),
        ("   └─ related", "b (above)"),
    ]


# -- exchange


def test_import_and_export_are_the_same_lines(persona: CommandLine) -> None:
    text = (
        '{"key": "listening", "content": "Hören \\u001b[31m\\u2028", "weight": null, "links": ["A b"]}\n'
        '{"key": "A b", "meta": {"z": 1, "a": [1.5, true]}}\n'
    )
    (persona.directory.parent / "nodes.jsonl").write_text(text)
    assert persona.ok("graph", "import", "../nodes.jsonl") == "2 added in graph/\n"
    assert persona.ok("graph", "import", "../nodes.jsonl") == "2 unchanged in graph/\n"
    assert persona.ok("-q", "graph", "import", "../nodes.jsonl") == ""
    wanted = [json.loads(line) for line in text.splitlines()]
    out = persona.ok("graph", "export")
    assert [json.loads(line) for line in out.split("\n")[:-1]] == wanted
    assert "Hören" in out
    assert "\x1b" not in out
    assert persona.json("graph", "export") == wanted
    assert persona.ok("graph", "export", "-o", "../out.jsonl") == "2 in ../out.jsonl\n"
    written = (persona.directory.parent / "out.jsonl").read_text().split("\n")[:-1]
    assert [json.loads(line) for line in written] == wanted
    answer = persona.json("graph", "import", "../nodes.jsonl")
    assert answer == {"added": [], "changed": [], "unchanged": ["listening", "A b"]}


def test_an_edited_file_stops_an_import_until_it_is_forced(bot: CommandLine) -> None:
    (bot.directory.parent / "nodes.jsonl").write_text('{"key": "alone", "content": "New."}\n')
    said = bot.refused(1, "graph", "import", "../nodes.jsonl")
    assert "graph/alone.md is written or edited by hand, so nothing was imported" in said
    assert "hint: -f takes the nodes into edited files too" in said
    assert bot.ok("graph", "import", "-f", "../nodes.jsonl") == "1 changed in graph/\n"


# -- pictures


def state(name: str, state: str = "trained", alpha: float | None = 0.5) -> TrainableState:
    key, _, facet = name.partition("#")
    return TrainableState(
        name=name,
        key=key,
        facet=facet or None,
        kind="pattern",
        file=f"graph/{key}.md",
        state=state,
        changed=(),
        vector=None,
        alpha=alpha,
        has_data=True,
        has_probes=True,
        trained_here=True,
        effect=None,
        damage=None,
    )


def view(key: str, *links: tuple[str, str], facets: Sequence[str] = ()) -> PatternView:
    own = [state(f"{key}#{facet}") for facet in facets] or [state(key)]
    arrows = tuple(LinkView(key, to, relation, 0.5) for to, relation in links)
    return PatternView(key, "pattern", f"graph/{key}.md", arrows, tuple(own))


def many(count: int) -> list[PatternView]:
    """Patterns in a net with cycles, some without a link."""
    names = [f"pattern-{n}" for n in range(count)]
    return [
        view(
            name,
            *(
                (names[(7 * n + step) % count], "opposes" if step == 3 else "supports")
                for step in (1, 3)
                if n % 5
            ),
            facets=["voice", "calm"] if n % 9 == 4 else (),
        )
        for n, name in enumerate(names)
    ]


@pytest.mark.parametrize("count", [1, 5, 40, 200])
def test_boxes_lie_beside_each_other_whatever_their_number(count: int) -> None:
    boxes = list(graph_drawing.layout(many(count)).values())
    assert len(boxes) == count
    assert all(box.x > 0 and box.y > 0.5 for box in boxes)
    for one, other in combinations(boxes, 2):
        apart = one.is_left_of(other) or other.is_left_of(one)
        assert apart or one.y > other.y + other.height or other.y > one.y + one.height


def test_a_pattern_stands_right_of_the_one_that_links_to_it() -> None:
    boxes = graph_drawing.layout([view("c"), view("b", ("c", "x")), view("a", ("b", "x"), ("c#d", "x"))])
    assert boxes["a"].is_left_of(boxes["b"])
    assert boxes["a"].is_left_of(boxes["c"])


def test_a_box_has_the_key_and_each_vector_with_its_alpha_and_colour() -> None:
    facets = PatternView(
        "voice", "core", "f", (), (state("voice#calm", "stale"), state("voice#x", "failing", None))
    )
    boxes = graph_drawing.layout([view("listening"), facets])
    assert boxes["listening"].lines == ("listening", "trained  α 0.50")
    assert boxes["voice"].lines == ("voice", "#calm  stale  α 0.50", "#x  failing")
    fills = boxes["voice"].fills
    assert fills[1:] == (graph_drawing.FILLS["stale"], graph_drawing.FILLS["failing"])
    assert len({*boxes["listening"].fills}) == 1


def test_equal_links_of_two_patterns_are_one_arrow_with_two_heads() -> None:
    pair = [
        view("a", ("b", "opposes"), ("a", "x")),
        view("b", ("a", "opposes"), ("a", "supports"), ("c", "x")),
    ]
    links = [link for one in pair for link in one.links]
    arrows = graph_drawing._arrows(links, graph_drawing.layout(pair))
    assert [(one.edge.relation, one.mutual) for one in arrows] == [("opposes", True), ("supports", False)]


def test_the_picture_is_the_same_file_each_time() -> None:
    for form in ("png", "svg"):
        assert graph_drawing.picture(form, many(8)) == graph_drawing.picture(form, many(8))


def test_show_draws_a_png_or_an_svg(bot: CommandLine) -> None:
    text = bot.ok("graph", "show", "-o", "../graph.svg")
    assert text == bot.ok("graph", "show", "-o", "../graph.png")
    place = bot.directory.parent
    assert (place / "graph.png").read_bytes().startswith(b"\x89PNG")
    wide, high = struct.unpack(">II", (place / "graph.png").read_bytes()[16:24])
    assert min(wide, high) > 300
    words = texts(place / "graph.svg")
    assert {"listening", "trained  α 0.50", "#calm  untrained", "opposes 0.8", "opposing link"} <= words
    assert "nobody" not in words


def test_show_of_one_pattern_draws_it_with_its_neighbours(bot: CommandLine) -> None:
    bot.ok("graph", "show", "voice", "-o", "../graph.svg")
    words = texts(bot.directory.parent / "graph.svg")
    assert {"voice", "listening"} <= words
    assert not {"alone", "rushing"} & words


def texts(place: Any) -> set[str]:
    return {str(item.text).strip() for item in ElementTree.parse(place).iter() if item.tag.endswith("text")}


@pytest.mark.parametrize(("name", "code"), [("x.pdf", 2), ("no/x.svg", 4)])
def test_a_picture_that_cannot_be_written_is_refused(bot: CommandLine, name: str, code: int) -> None:
    assert bot.refused(code, "graph", "show", "-o", f"../{name}").startswith("-o ")
    (bot.directory.parent / "d.svg").mkdir()
    assert "this is a directory" in bot.refused(4, "graph", "show", "-o", "../d.svg")
