"""How far the vector of each pattern is, and what makes it stale."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from persona.behaviour.graph.graph import Graph
from persona.behaviour.states import TrainableState
from persona.behaviour.training import provenance, settings
from persona.behaviour.training.provenance import Provenance
from persona.history.scores import Damage, Effect, Interval, Scores, keep_scores
from tests.behaviour.bots import BRIEF_DATA, PIRATE_DATA, ChatBot
from tests.behaviour.graph.texts import dialogue, lines, pattern, probe, write
from tests.history.bots import Bot

FRONT = '[data]\ntrain = "data/l.jsonl"\nprobes = "data/p.jsonl"\n[train]\nsteps = 20\n'
PROBES = [probe("How are you?"), probe("And now?", "letter")]


@pytest.fixture
def bot(bot: Bot) -> Bot:
    """A repository with a pattern that has data and probes."""
    files = {
        "listening.md": pattern("listening", FRONT),
        "data/l.jsonl": lines([dialogue("Hi")]),
        "data/p.jsonl": lines(PROBES),
    }
    write(bot.root, files)
    return bot


def state(bot: Bot, name: str = "listening") -> TrainableState:
    return next(one for one in bot.repo.graph.status().trainables if one.name == name)


def train(bot: Bot, name: str = "listening", seed: int = 1, **given: Any) -> str:
    """Adds a vector, with the note that `train` leaves. Returns its id."""
    bot.repo.add(bot.tune(name.replace("#", "-"), seed), name=name)
    history = bot.repo._history
    graph = Graph.of(history)
    trainable = graph.trainable(name)
    found = graph.pattern(trainable.key)
    files = graph.data_files(trainable)
    id = bot.repo.vectors[name].id
    made = Provenance(
        pattern=found.key,
        facet=trainable.facet,
        name=name,
        file=found.file,
        text=found.text,
        data={role: {"file": one.file, "blake3": one.blake3} for role, one in files.items()},
        base=bot.repo.recipe.base,
        onto=None,
        settings=settings.as_data(settings.in_force(trainable.settings, given)),
        given={key: settings.plain(value) for key, value in given.items()},
        template="0" * 64,
        threads=1,
        device="cpu",
        code="0",
        libraries={},
        vector=id,
    )
    provenance.keep(history, made)
    return id


def verify(bot: Bot, id: str, verdict: str, name: str = "listening", damage: Damage | None = None) -> None:
    """Keeps scores of a vector, as `verify --vector` does. With `damage`, it is what fails."""
    probes = Graph.of(bot.repo._history).probes(name)
    assert probes is not None
    margin = Interval(2.0, 1.0, 3.0, 2)
    effect = Effect(name, True, 1, margin, {}, None, None, 0.5, verdict, probes.digest)
    whole = verdict if damage is None else "fail"
    scores = Scores(id, "vector", f"blake3:{'0' * 64}", (effect,), damage, whole, (), "1", "float32", "cpu")
    keep_scores(bot.repo._history, scores)


def test_a_pattern_without_a_vector_is_untrained(bot: Bot) -> None:
    found = state(bot)
    assert (found.state, found.vector, found.alpha, found.effect) == ("untrained", None, None, None)
    assert (found.has_data, found.has_probes, found.trained_here) == (True, True, False)


def test_a_vector_of_the_name_makes_it_trained(bot: Bot) -> None:
    bot.repo.add(bot.tune("listening", 1), alpha=0.7)
    found = state(bot)
    assert (found.state, found.alpha, found.trained_here) == ("trained", 0.7, False)
    assert found.vector == bot.repo.vectors["listening"].id


def test_a_kept_vector_counts_after_the_recipe_lost_it(bot: Bot) -> None:
    id = train(bot)
    bot.repo.recipe.remove("listening")
    found = state(bot)
    assert (found.state, found.vector, found.alpha) == ("trained", id, None)


def test_a_vector_that_was_renamed_is_still_that_of_its_pattern(bot: Bot) -> None:
    id = train(bot)
    bot.repo.recipe.rename("listening", "ears")
    found = bot.repo.graph.status()
    assert [(one.state, one.vector, one.alpha) for one in found.trainables] == [("trained", id, 1.0)]
    assert found.without_pattern == ()


@pytest.mark.parametrize(
    ("files", "changed"),
    [
        ({}, ()),
        ({"listening.md": pattern("listening", FRONT, "Other prose.")}, ("text",)),
        ({"data/l.jsonl": lines([dialogue("Hello")])}, ("data train",)),
        ({"data/p.jsonl": lines([probe("New?")])}, ()),
        ({"listening.md": pattern("listening", FRONT + "seed = 3\n")}, ("text", "setting seed")),
        (
            {
                "listening.md": pattern("listening", '[data]\nprompt = "data/x"\nturns = "data/y"\n'),
                "data/x": "Listen.",
                "data/y": "",
            },
            ("text", "data prompt", "data train", "data turns", "setting steps"),
        ),
        ({"listening.md": pattern("listening", '[data]\ntrain = "data/none.jsonl"\n')}, ("data",)),
    ],
    ids=["nothing", "text", "data", "probes", "settings", "way", "missing"],
)
def test_a_vector_is_stale_if_what_it_was_trained_from_changed(
    bot: Bot, files: dict[str, str], changed: tuple[str, ...]
) -> None:
    train(bot)
    write(bot.root, files)
    found = state(bot)
    assert found.changed == changed
    assert found.state == ("stale" if changed else "trained")
    assert found.trained_here


def test_what_the_caller_of_train_gave_is_no_change(bot: Bot) -> None:
    train(bot, steps=5, lr=1e-4, optimizer="adamw")
    assert state(bot).changed == ()
    write(bot.root, {"listening.md": pattern("listening", FRONT.replace("20", "30") + "lr = 3e-4\n")})
    assert state(bot).changed == ("text",)


def test_another_base_makes_a_vector_stale(bot: Bot) -> None:
    train(bot)
    history = bot.repo._history
    (one,) = provenance.known(history)
    bot.repo.recipe.remove("listening")
    bot.repo.add(bot.tune("listening", 2), name="listening")
    provenance.keep(history, one.with_changes(base="f" * 64, vector=bot.repo.vectors["listening"].id))
    assert state(bot).changed == ("base",)


def test_of_several_trainings_of_one_vector_one_that_still_holds_is_enough(bot: Bot) -> None:
    train(bot)
    history = bot.repo._history
    (one,) = provenance.known(history)
    provenance.keep(history, one.with_changes(base="f" * 64, text="e" * 64))
    assert state(bot).state == "trained"


@pytest.mark.parametrize(
    ("verdict", "expected"), [("pass", "verified"), ("fail", "failing"), ("inconclusive", "trained")]
)
def test_the_verdict_of_the_vector_on_its_own_probes_decides(bot: Bot, verdict: str, expected: str) -> None:
    verify(bot, train(bot), verdict)
    found = state(bot)
    assert found.state == expected
    assert found.effect is not None
    assert found.effect.margin == Interval(2.0, 1.0, 3.0, 2)


def test_a_vector_with_its_effect_but_too_much_damage_is_failing(bot: Bot) -> None:
    one = Interval(1.05, 1.04, 1.06, 9)
    damage = Damage(kl=one, top=one, ratio=one, limit=1.02, text="0" * 64)
    verify(bot, train(bot), "pass", damage=damage)
    found = state(bot)
    assert (found.state, found.damage) == ("failing", damage)
    assert found.effect is not None
    assert found.effect.verdict == "pass"


def test_a_verdict_on_other_probes_counts_no_more(bot: Bot) -> None:
    verify(bot, train(bot), "pass")
    write(bot.root, {"data/p.jsonl": lines([*PROBES, probe("New?")])})
    assert (state(bot).state, state(bot).effect) == ("trained", None)


def test_a_stale_vector_is_not_verified(bot: Bot) -> None:
    verify(bot, train(bot), "pass")
    write(bot.root, {"data/l.jsonl": lines([dialogue("Hello")])})
    assert state(bot).state == "stale"


def test_each_facet_has_a_state_of_its_own(bot: Bot) -> None:
    write(bot.root, {"listening.md": pattern("listening", FRONT + "[facets.voice.train]\nseed = 2\n")})
    train(bot, "listening#voice", 3)
    assert [state(bot, name).state for name in ("listening", "listening#voice")] == ["untrained", "trained"]


def test_faulty_patterns_and_vectors_without_a_pattern_are_named(bot: Bot) -> None:
    write(bot.root, {"calm.md": pattern("calm", "sign = 0\n")})
    bot.repo.add(bot.tune("other", 1), name="other")
    found = bot.repo.graph.status()
    (problem,) = found.problems
    assert str(problem).startswith("graph/calm.md:3: sign: ")
    assert found.without_pattern == ("other",)


def test_status_of_the_graph_loads_neither_torch_nor_numpy(bot: Bot) -> None:
    train(bot)
    code = (
        "import sys, persona\n"
        f"with persona.open({str(bot.root)!r}) as repo: print(repo.graph.status().trainables[0].state)\n"
        "print(sorted({'torch', 'numpy', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split("\n")[:2] == ["trained", "[]"]


def test_what_train_leaves_is_trained_until_its_pattern_changes(chat: ChatBot) -> None:
    opposite = [{"messages": [*line["messages"][:1], BRIEF_DATA[0]["messages"][1]]} for line in PIRATE_DATA]
    chat.pattern("pair", train=PIRATE_DATA, opposite=opposite, demos=PIRATE_DATA[:1], settings="steps = 2")
    chat.pirate(settings="steps = 2")
    chat.run.ok("train", "pirate", "pair", "--steps", "1", "--lr", "1e-3", "--threads", "1")
    found = chat.run.json("graph", "status")["trainables"]
    assert [(one["state"], one["changed"], one["trained_here"]) for one in found] == 2 * [
        ("trained", [], True)
    ]
    chat.lines("pair.opposite.jsonl", opposite[:3])
    chat.lines("pirate.probes.jsonl", [])
    found = chat.run.json("graph", "status")["trainables"]
    assert [one["changed"] for one in found] == [["data opposite"], []]
