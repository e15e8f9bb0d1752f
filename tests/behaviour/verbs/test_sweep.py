"""`sweep` through `persona.open(…)`, on a tiny chat model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import persona
from persona.behaviour.measuring.sweeping import Sweep, whole_of
from persona.errors import Call, InvalidInput, UnknownName, UsageError
from persona.history.scores import Effect, Scores
from tests.behaviour.bots import PIRATE_DATA, PIRATE_PROBES, TOPICS, ChatBot, probe


def sweep(bot: ChatBot, alpha: Any, name: str = "pirate", **options: Any) -> Sweep:
    with persona.open(bot.root) as repo:
        return repo.sweep(name, alpha, threads=1, **options)


def means(found: Sweep) -> list[float]:
    return [whole_of(point.effect).mean for point in found.points]


def take(bot: ChatBot, edits: tuple[Call, ...]) -> None:
    """Makes the calls, as a caller would that follows the advice."""
    with persona.open(bot.root) as repo:
        for edit in edits:
            method = repo.recipe.set if edit.method == "recipe.set" else repo.recipe.set_rules
            method(*edit.arguments, **edit.values)  # type: ignore[arg-type]


def test_the_effect_of_a_trained_vector_rises_with_alpha(pirate: ChatBot) -> None:
    before = (pirate.root / "recipe.toml").read_bytes()
    found = sweep(pirate, "-0.5:1:0.5")
    assert [point.alpha for point in found.points] == [-0.5, 0, 0.5, 1]
    assert means(found) == sorted(means(found))
    (stretch,) = found.stretches
    assert (stretch.start, stretch.low, stretch.high) == (0, -0.5, 1)
    assert (stretch.below, stretch.above) == ("end", "end")
    assert found.best == found.points[-1]
    assert (found.present, found.wanted, found.edits) == (1, 1, ())  # recipe.toml has the best one
    assert "a point beyond it may be better" in found.notes[0]
    zero, one = found.points[1], found.points[-1]
    assert (means(found)[1], zero.damage.kl.mean, zero.spill[0].margin) == (0, 0, zero.effect.margin)
    assert one.in_all_forms
    assert [effect.pattern for effect in one.spill] == ["brief"]
    assert (pirate.root / "recipe.toml").read_bytes() == before


def test_a_point_has_the_numbers_of_verify(pirate: ChatBot) -> None:
    found = sweep(pirate, 1, checks=True)
    with persona.open(pirate.root) as repo:
        scores = repo.verify(threads=1)
    assert isinstance(scores, Scores)
    assert scores.damage is not None
    (point,) = found.points
    (own,), (spill,) = scores.own, scores.spill
    assert replace(own, control=None, verdict=None) == rounded(point.effect)
    assert (point.effect.after.met, point.effect.after.items) == (6, 6)  # type: ignore[union-attr]
    assert rounded(point.spill[0]) == spill
    assert point.weights == scores.weights
    assert point.damage.ratio.mean == pytest.approx(scores.damage.ratio.mean)


def rounded(effect: Effect) -> Effect:
    """An effect as scores have it: its numbers have 12 places."""
    from persona.history.scores import _effect, _effect_data

    return _effect(_effect_data(effect))


def test_what_was_swept_before_loads_no_model(pirate: ChatBot, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sweep(pirate, "0,1")
    assert not first.measured_before

    def fail(*arguments: Any) -> Any:
        raise AssertionError("a model was loaded, or weights were merged")

    monkeypatch.setattr("persona.behaviour.measuring.readers.tokenizer_of", fail)
    monkeypatch.setattr("persona.merge.run.materialise.materialise", fail)
    assert sweep(pirate, "0,1") == replace(first, measured_before=True)
    assert sweep(pirate, 1, max_damage=0.5).best is None


def test_the_other_vectors_stay_unless_the_vector_is_swept_alone(pirate: ChatBot, brief_tune: Path) -> None:
    pirate.run.ok("commit", brief_tune, "-m", "be brief")
    alone = sweep(pirate, "0,1", alone=True)
    assert (means(alone)[0], alone.points[0].damage.kl.mean) == (0, 0)
    together = sweep(pirate, "0,1")
    without, full = together.points
    assert without.damage.kl.mean > 0
    assert whole_of(without.spill[0]).mean == 0
    assert means(together) != means(alone)
    assert full.weights != without.weights
    pirate.run.ok("rm", "pirate")
    with persona.open(pirate.root) as repo:
        assert together.points[0].weights == repo.digest().weights
    with pytest.raises(UnknownName, match=r"is not in recipe\.toml.*\n.*alone=True"):
        sweep(pirate, 1, name=alone.vector[:12])


def test_an_unwanted_pattern_is_best_at_a_negative_alpha(chat: ChatBot, pirate_tune: Path) -> None:
    chat.pirate(front="sign = -1")
    chat.run.ok("commit", pirate_tune, "--alpha", "-0.25", "-m", "no pirate")
    found = sweep(chat, "-0.5:0.5:0.25", max_damage=1.05)
    assert found.wanted == -1
    assert found.best is not None
    assert found.best.alpha < 0
    assert whole_of(found.best.effect).mean == min(
        mean for mean, point in zip(means(found), found.points, strict=True) if point.allowed
    )
    assert found.stretches[0].low < found.stretches[0].high


def test_the_best_point_is_within_the_limit_and_its_edits_make_its_weights(pirate: ChatBot) -> None:
    pirate.run.ok("set", "pirate", "--density", "0.3")
    everything = sweep(pirate, "0.5,1", preset="ties,linear,joint", density="0.2,1", max_damage=5)
    limit = sorted(point.damage.ratio.mean for point in everything.points)[3]
    found = sweep(pirate, "0.5,1", preset="ties,linear,joint", density="0.2,1", max_damage=limit)
    assert sum(point.allowed for point in found.points) >= 4
    for one in (everything, found):
        assert one.best is not None
        assert one.best.allowed
        assert whole_of(one.best.effect).mean == max(
            whole_of(point.effect).mean for point in one.points if point.allowed
        )
    for preset in ("linear", "joint", "ties"):
        chosen = sweep(pirate, 0.5, preset=preset, density=0.2, max_damage=5)
        assert chosen.best is not None
        take(pirate, chosen.edits)
        with persona.open(pirate.root) as repo:
            assert repo.digest().weights == chosen.best.weights
        assert sweep(pirate, 0.5, max_damage=5).edits == ()


def test_presets_that_trim_nothing_are_not_multiplied_by_density(pirate: ChatBot) -> None:
    found = sweep(pirate, 1, preset=["ties", "linear"], density="0.2,1", join="vote,add", probe="pirate")
    assert [(point.preset, point.density, point.join) for point in found.points] == [
        ("ties", 0.2, "vote"),
        ("ties", 1, "vote"),
        ("ties", None, "add"),
        ("linear", None, "vote"),
        ("linear", None, "add"),
    ]
    assert len(found.stretches) == 5
    effects = means(found)
    assert effects[0] < effects[1]
    assert not any(point.spill for point in found.points)
    assert not any("density" in note for note in found.notes)
    untrimmed = sweep(pirate, 1, preset="linear", density="0.2,1", probe="pirate")
    assert len(untrimmed.points) == 1
    assert "density was left out" in untrimmed.notes[0]


def test_a_preset_takes_over_lambda_and_a_density_that_was_set(pirate: ChatBot) -> None:
    pirate.run.ok("set", "--merge", "density=0.5", "lambda=0.8")
    (point,) = sweep(pirate, 1, preset="mergekit", probe="pirate").points
    pirate.run.ok("set", "--merge", "preset=mergekit")
    with persona.open(pirate.root) as repo:
        assert repo.digest().weights == point.weights


def test_a_list_over_layers_is_replaced_with_a_note(pirate: ChatBot) -> None:
    pirate.run.ok("set", "pirate", "--alpha", "0.5,1")
    found = sweep(pirate, "0,0.5", probe="pirate")
    assert found.present is None
    assert "a list over layers" in found.notes[0]
    assert [edit.values for edit in found.edits] == [{"alpha": "0.5"}]


def test_probes_with_checks_alone_are_swept_by_their_rate(chat: ChatBot, pirate_tune: Path) -> None:
    probes = [probe(topic, number) for number, topic in enumerate(TOPICS[6:])]
    for line in probes:
        del line["chosen"], line["rejected"]
    chat.pattern("pirate", train=PIRATE_DATA, probes=probes)
    chat.run.ok("commit", pirate_tune, "-m", "talk like a pirate")
    found = sweep(chat, "0,1")
    assert means(found) == [0, 1]
    assert found.stretches[0].high == 1


def test_a_vector_without_pattern_and_a_pattern_without_probes_are_refused(
    chat: ChatBot, pirate_tune: Path
) -> None:
    chat.run.ok("commit", pirate_tune, "-m", "talk like a pirate")
    with pytest.raises(InvalidInput, match="no pattern is that of pirate"):
        sweep(chat, 1)
    chat.pattern("pirate", train=PIRATE_DATA)
    with pytest.raises(InvalidInput, match="pirate has no probes") as caught:
        sweep(chat, 1)
    assert "graph/pirate.md" in str(caught.value)
    chat.pattern("pirate", probes=[{**line, "group": "one"} for line in PIRATE_PROBES])
    assert "fewer than 5 groups" in sweep(chat, 1).notes[0]


def test_wrong_arguments_are_refused_before_anything_is_measured(
    pirate: ChatBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "persona.merge.run.materialise.materialise", lambda *a, **k: pytest.fail("weights were merged")
    )
    with pytest.raises(UnknownName, match="nobody"):
        sweep(pirate, 1, name="nobody")
    with pytest.raises(UnknownName, match="nobody"):
        sweep(pirate, 1, name="nobody", alone=True)
    for options, problem in (
        ({"alpha": "1:0:1"}, "alpha: "),
        ({"alpha": 1, "density": "0"}, "density: 0 is not in"),
        ({"alpha": 1, "preset": "tied"}, "preset: 'tied' is not one of ties"),
        ({"alpha": 1, "join": "veto"}, "join: 'veto' is not one of vote, add"),
        ({"alpha": 1, "max_damage": 0}, "max_damage: must be a number above 0"),
        ({"alpha": "0:499:1", "preset": "ties,linear,joint"}, "at most 1,000 are possible in one sweep"),
        ({"alpha": 1, "preset": "della", "density": 0.1}, "epsilon"),
    ):
        with pytest.raises(InvalidInput, match=problem):
            sweep(pirate, **options)
    with pytest.raises(UsageError, match="checks must be True or False"):
        sweep(pirate, 1, checks="yes")
