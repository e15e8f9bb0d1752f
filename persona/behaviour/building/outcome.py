"""What came of a build: its result, and the message of its commit."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from persona.behaviour.building.plan import UNVERIFIED, Plan, Target, over
from persona.behaviour.building.results import Built, BuiltPattern
from persona.errors import Blank, Call, Keyword, Note
from persona.history.history import History
from persona.history.recipes.text import RECIPE_FILE
from persona.history.recipes.views import shown
from persona.history.scores import Damage, Scores
from persona.history.worktree import text_files
from persona.objects.recipe import Recipe

_LONGEST: Final = 60
"""Characters of the patterns' names in a generated subject."""


class Outcome:
    """The patterns that a build is done with, and the sentences about it.

    `started`: when it began, by the monotonic clock.
    """

    def __init__(self, history: History, plan: Plan, started: float) -> None:
        self.history = history
        self.plan = plan
        self.started = started
        self.notes: list[str] = []
        self.done: dict[str, BuiltPattern] = {}

    def of(self, target: Target) -> BuiltPattern:
        """What was done about a target so far."""
        return self.done.get(target.name) or self.as_planned(target)

    def as_planned(self, target: Target) -> BuiltPattern:
        """A pattern about which nothing was done in this build."""
        scores = target.scores
        effects = () if scores is None else scores.own
        waits = target.vector is None or (self.plan.verify and target.verdict is None)
        is_out = target in self.plan.refused
        action = "unchanged" if is_out or target.vector == target.held else "taken"
        return BuiltPattern(
            name=target.name,
            action="waiting" if waits else action,
            why=target.why if target.vector is None else "",
            vector=target.vector,
            alpha=None,
            steps=0,
            seconds=0.0,
            effect=next((effect for effect in effects if effect.pattern == target.name), None),
            damage=None if scores is None else scores.damage,
            verdict=target.verdict if self.plan.verify else None,
            left_out=is_out,
        )

    def stopped(self, target: Target) -> Built:
        """The end of a build at a pattern that does not pass."""
        one = self.of(target)
        assert one.vector is not None
        self.notes.append(
            Note(
                f"nothing was committed: {target.name} {reason(one.verdict, one.damage)}",
                (
                    Call("verify", vector=to_look_at(target, one.vector)),
                    " shows it; change its data or [train]; ",
                    Keyword(keep_going=True),
                    " builds the others without it, ",
                    Keyword(force=True),
                    " takes it",
                ),
            )
        )
        return self.ended(None, None, refused=True)

    def whole_refused(self, recipe: Recipe, scores: Scores) -> Built:
        """The end of a build whose recipe does not pass as a whole."""
        self.notes.append(
            Note(
                f"the recipe as a whole does not pass ({scores.verdict}), so nothing was committed;"
                f" {RECIPE_FILE} has its vectors",
                (
                    Call("recipe.set", Blank("NAME"), alpha=Blank("A")),
                    " changes a strength, then build again; ",
                    Call("build", force=True),
                    " commits it as it is",
                ),
            )
        )
        return self.ended(recipe, scores, refused=True)

    def ended(self, recipe: Recipe | None, scores: Scores | None, *, refused: bool = False) -> Built:
        """The result, without commit and checkout."""
        if recipe is None:
            recipe = text_files.recipe(self.history).recipe
        patterns = self._patterns(recipe)
        if refused and scores is None:  # nothing was put into the recipe
            patterns = tuple(
                replace(one, action="unchanged") if one.action == "taken" else one for one in patterns
            )
        if not refused:
            self.notes += [
                f"{one.name} has no probes, so it is unverified"
                for one in patterns
                if one.verdict == UNVERIFIED and one.action != "unchanged"
            ]
            self.notes += [
                f"{one.name} was left out of the recipe: it {reason(one.verdict, one.damage)}"
                for one in patterns
                if one.left_out
            ]
        words = [one.verdict for one in patterns] + ([] if scores is None else [scores.verdict])
        order = ("fail", "inconclusive", UNVERIFIED, "pass")
        return Built(
            patterns=patterns,
            recipe=scores,
            verdict=next((word for word in order if word in words), None),
            refused=refused,
            commit=None,
            checkout=None,
            seconds=round(time.monotonic() - self.started, 1),
            notes=tuple(dict.fromkeys(self.notes)),
        )

    def _patterns(self, recipe: Recipe) -> tuple[BuiltPattern, ...]:
        found = []
        for target in self.plan.targets:
            one = self.of(target)
            term = recipe.by_name.get(target.term)
            found.append(replace(one, alpha=None if term is None else shown(term.alpha)))
        return tuple(found)

    def message(self, recipe: Recipe) -> str:
        """The message of the commit: the patterns that changed, and what is known of each."""
        changed = [one for one in self._patterns(recipe) if one.action != "unchanged"]
        built = [one.name for one in changed if not one.left_out]
        names = ", ".join(built)
        if len(names) > _LONGEST:
            names = f"{len(built)} patterns"
        if not built:
            names = "the personality"
        return "\n".join([f"Build {names}", "", *map(_line, changed)])


def reason(verdict: str | None, damage: Damage | None) -> str:
    """Why a vector does not pass, as the end of a sentence about it."""
    if damage is not None and over(damage):
        return f"fails: its loss ratio on neutral text, {damage.ratio.mean:.4f}, is above {damage.limit:g}"
    if verdict == "fail":
        return "fails: its effect is not above that of random vectors"
    return "is inconclusive: the interval of its effect is too wide"


def to_look_at(target: Target, id: str) -> str:
    """The name by which `verify --vector` finds a vector of a target."""
    return target.name if target.held in (None, id) else id[:12]


def _line(one: BuiltPattern) -> str:
    """A pattern in the message of a commit."""
    if one.left_out:
        return f"{one.name}: left out, {one.verdict}"
    words = [one.action + (f" in {one.steps} steps" if one.steps else "")]
    whole = None if one.effect is None else one.effect.margin or one.effect.rate
    if whole is not None:
        words.append(f"effect {whole.mean:+.2f} [{whole.low:+.2f}, {whole.high:+.2f}]")
    return f"{one.name}: {', '.join([*words, *([one.verdict] if one.verdict else [])])}"
