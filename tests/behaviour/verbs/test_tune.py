"""`tune` through `persona.open(…)` and as it is typed, on a tiny chat model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import persona
from persona.behaviour import tuning
from persona.behaviour.tuning import Tuning
from persona.behaviour.verbs.tune import Tuned
from persona.errors import InvalidInput, Refused, UnknownName
from tests.behaviour.bots import PIRATE_PROBES, ChatBot

FEW = 6
"""Measurements: the start, its gradient, and two points."""


def tune(bot: ChatBot, **options: Any) -> Tuned:
    with persona.open(bot.root) as repo:
        found = repo.tune(**{"threads": 1, "measurements": FEW, **options})
    assert isinstance(found, Tuned)
    return found


def verify(bot: ChatBot) -> Any:
    with persona.open(bot.root) as repo:
        return repo.verify(threads=1, checks=False)


@pytest.fixture
def half(pirate: ChatBot) -> ChatBot:
    """The vector `pirate` at half its strength."""
    pirate.run.ok("set", "pirate", "--alpha", "0.5")
    return pirate


@pytest.fixture
def both(chat: ChatBot, pirate_tune: Path, brief_tune: Path) -> ChatBot:
    """The vectors `pirate` and `brief`, added to each other."""
    chat.pirate()
    chat.brief()
    chat.run.ok("set", "--merge", "preset=linear")
    chat.run.ok("commit", pirate_tune, "-m", "talk like a pirate")
    chat.run.ok("commit", brief_tune, "--alpha", "0.2", "-m", "be brief")
    return chat


def test_a_better_point_is_written_with_the_comments_and_is_the_one_that_was_measured(half: ChatBot) -> None:
    file = half.root / "recipe.toml"
    file.write_text(file.read_text().replace("alpha = 0.5", "alpha = 0.5  # to be tuned"))
    head = half.run.ok("rev-parse", "HEAD")
    found = tune(half)
    assert (found.change, found.within) == ("edited", True)
    assert found.after.gain > found.before.gain
    (term,) = found.vectors
    assert term.alpha_before == 0.5 < term.alpha_after <= 2
    assert f"alpha = {term.alpha_after}  # to be tuned" in file.read_text()
    assert half.run.ok("rev-parse", "HEAD") == head
    scores = verify(half)
    (own,), (effect,) = scores.own, found.after.effects
    assert own.margin.mean == pytest.approx(effect.margin.mean, rel=1e-9)
    assert scores.damage.ratio.mean == pytest.approx(found.after.damage.ratio.mean, rel=1e-9)
    assert found.after.damage.ratio.mean <= 1.02
    best = max((one for one in found.trials if one.ratio <= 1.02), key=lambda one: one.gain)
    assert found.after.gain == best.gain
    assert found.trials[0].alpha == {"pirate": 0.5}
    assert found.measurements <= FEW


def test_a_dry_run_proposes_and_leaves_every_file(half: ChatBot) -> None:
    before = {path: path.read_bytes() for path in half.root.glob("*") if path.is_file()}
    found = tune(half, dry_run=True)
    assert found.change == "proposed"
    assert found.vectors[0].alpha_after != 0.5
    assert {path: path.read_bytes() for path in before} == before


def test_if_no_point_is_better_the_recipe_stays(half: ChatBot, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Tuning.measure

    def worse(self: Tuning, variables: Any, place: Any) -> Any:
        point = real(self, variables, place)
        return point if len(self.trials) == 1 else tuning.Point(point.place, point.gain - 9, point.cost)

    monkeypatch.setattr(Tuning, "measure", worse)
    text = (half.root / "recipe.toml").read_bytes()
    found = tune(half)
    assert (found.change, found.after) == ("unchanged", found.before)
    assert len(found.trials) > 1
    assert (half.root / "recipe.toml").read_bytes() == text
    assert any("no better point was found" in note for note in found.notes)


def test_a_start_above_the_limit_goes_back_under_it(half: ChatBot) -> None:
    half.run.ok("set", "pirate", "--alpha", "2")
    ratio = verify(half).damage.ratio.mean
    limit = 1 + (ratio - 1) / 3
    assert limit > 1
    found = tune(half, max_damage=limit)
    assert found.change == "edited"
    assert found.before.damage.ratio.mean > limit >= found.after.damage.ratio.mean
    assert 0 < found.vectors[0].alpha_after < 2


def test_nothing_above_the_limit_is_ever_proposed(half: ChatBot) -> None:
    """The limit is below what any α but 0 can have, and the start is above it."""
    text = (half.root / "recipe.toml").read_bytes()
    found = tune(half, max_damage=0.5)
    assert (found.change, found.within) == ("unchanged", False)
    assert (half.root / "recipe.toml").read_bytes() == text
    assert any("above the limit" in note for note in found.notes)
    result = half.run("tune", "--threads", "1", "--measurements", FEW, "--max-damage", "0.5")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].startswith("above the limit; ")


def test_signs_and_bounds_are_those_of_the_recipe(both: ChatBot) -> None:
    both.run.ok("set", "brief", "--alpha", "-0.2")
    found = tune(both, max_alpha=0.6, measurements=8, dry_run=True)
    for trial in found.trials[1:]:
        assert 0 <= trial.alpha["pirate"] <= 1  # the recipe's own, which is above 0.6
        assert -0.6 <= trial.alpha["brief"] <= 0
    effects = {one.pattern: one.wanted for one in found.before.effects}
    assert effects == {"pirate": 1, "brief": 1}  # what their pages want, whatever α is


def test_a_vector_that_is_named_is_the_only_one_that_changes(both: ChatBot) -> None:
    found = tune(both, vector="brief", dry_run=True)
    assert {one.name: one.alpha_after for one in found.vectors}["pirate"] == 1
    assert all(trial.alpha.keys() == {"brief"} for trial in found.trials)
    assert len(found.before.effects) == 2
    with pytest.raises(UnknownName, match="nonsense"):
        tune(both, vector="nonsense")


def test_a_pattern_that_is_named_is_the_only_one_that_counts(both: ChatBot) -> None:
    found = tune(both, probe="brief", dry_run=True)
    assert [one.pattern for one in found.before.effects] == ["brief"]
    assert all(trial.alpha.keys() == {"brief"} for trial in found.trials)
    assert any("pirate" in note for note in found.notes)
    with pytest.raises(UnknownName, match="nonsense"):
        tune(both, probe="nonsense")


def test_the_numbers_of_a_list_over_layers_keep_their_proportion(half: ChatBot) -> None:
    half.run.ok("set", "pirate", "--alpha", "0.1,0.4")
    found = tune(half, dry_run=True)
    after = found.vectors[0].alpha_after
    assert isinstance(after, tuple)
    assert after != (0.1, 0.4)
    assert after[1] == pytest.approx(4 * after[0], abs=0.005)


def test_densities_are_tuned_if_asked_for_and_only_where_they_count(both: ChatBot) -> None:
    with pytest.raises(InvalidInput, match="trim = none"):
        tune(both, densities=True)
    both.run.ok("set", "--merge", "preset=ties", "density=0.5")
    found = tune(both, densities=True, measurements=8)
    assert found.trials[0].density == {"pirate": 0.5, "brief": 0.5}
    assert any(trial.density != found.trials[0].density for trial in found.trials[1:])
    assert found.change == "edited"
    with persona.open(both.root) as repo:
        for one in found.vectors:
            term = repo.recipe[one.name]
            assert term.alpha == one.alpha_after
            assert (term.density or 0.5) == one.density_after


def test_an_edit_that_was_made_meanwhile_is_not_overwritten(
    half: ChatBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Tuning.search
    file = half.root / "recipe.toml"

    def edited(self: Tuning, *given: Any) -> Any:
        found = real(self, *given)
        file.write_text(file.read_text() + "# mine\n")
        return found

    monkeypatch.setattr(Tuning, "search", edited)
    with pytest.raises(Refused, match=r"recipe\.toml"):
        tune(half)
    assert file.read_text().endswith("# mine\n")
    assert "alpha = 0.5" in file.read_text()


def test_a_recipe_of_no_pattern_with_probes_is_refused(chat: ChatBot, pirate_tune: Path) -> None:
    chat.run.ok("commit", pirate_tune, "-m", "talk like a pirate")
    with pytest.raises(InvalidInput, match=r"no vector of recipe\.toml belongs to a pattern with probes"):
        tune(chat)
    with pytest.raises(InvalidInput, match="at least 5"):
        tune(chat, measurements=4)


def test_a_pattern_with_checks_only_is_measured_without_a_gradient(chat: ChatBot, pirate_tune: Path) -> None:
    checks = [{key: one[key] for key in ("id", "messages", "check")} for one in PIRATE_PROBES]
    chat.pattern("pirate", probes=checks)
    chat.run.ok("commit", pirate_tune, "--alpha", "0.5", "-m", "talk like a pirate")
    found = tune(chat, dry_run=True)
    assert found.before.effects[0].rate is not None
    assert any("have no pairs of answers" in note for note in found.notes)


def test_the_command_prints_what_changes_and_the_same_as_json(half: ChatBot) -> None:
    line = ("tune", "--threads", "1", "--measurements", FEW)
    lines = half.run.ok(*line, "--dry-run").splitlines()
    text = "\n".join(lines)
    assert lines[0].split() == ["VECTOR", "ALPHA"]
    assert lines[1].split()[:3] == ["pirate", "0.50", "→"]
    assert re.search(r"^pirate +\+\d+\.\d\d \[.*\]  →  \+\d+", text, re.MULTILINE)
    assert "at most 1.02" in text
    assert lines[-1].startswith("better, not written; ")
    found = half.run.json(*line)
    assert found["change"] == "edited"
    assert found["vectors"][0]["alpha_after"] == float(lines[1].split()[3])
    assert found["trials"][0]["alpha"] == {"pirate": 0.5}
    again = half.run(*line)
    assert again.exit_code == 0
