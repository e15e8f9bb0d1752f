"""The result of `tune` as text: each strength, effect and damage, before and after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from persona.cli.render import columns, counted, number
from persona.cli.terminal import one_line
from persona.cli.verification import effect_text, ratio_text
from persona.errors import Blank, Call, Note

Strength = float | tuple[float, ...] | None

if TYPE_CHECKING:
    from persona.behaviour.verbs.tune import Tuned


def tuned_lines(tuned: Tuned) -> Iterator[str]:
    """A table of the vectors, one of the effects and the damage, and what was found."""
    has_densities = any(term.density_before is not None for term in tuned.vectors)
    rows: list[tuple[str, ...]] = [
        ("VECTOR", "ALPHA", "", "", *(("DENSITY", "", "") if has_densities else ()))
    ]
    for term in tuned.vectors:
        densities = _change(term.density_before, term.density_after) if has_densities else ()
        rows.append((one_line(term.name), *_change(term.alpha_before, term.alpha_after), *densities))
    yield from columns(rows)
    yield ""
    before, after = tuned.before, tuned.after
    changed = tuned.change != "unchanged"
    rows = [("EFFECT", "Δ MARGIN", "", "")]
    for one, other in zip(before.effects, after.effects, strict=True):
        name = one_line(one.pattern) + (" (removed)" if one.wanted == -1 else "")
        rows.append((name, effect_text(one), *(("→", effect_text(other)) if changed else ("", ""))))
    rows.append(("gain", f"{before.gain:.4f}", *(("→", f"{after.gain:.4f}") if changed else ("", ""))))
    limit = f", at most {before.damage.limit:g}"
    rows.append(
        (
            "loss ratio",
            ratio_text(before.damage) + ("" if changed else limit),
            *(("→", ratio_text(after.damage) + limit) if changed else ("", "")),
        )
    )
    yield from columns(rows)
    yield ""
    points = f"{counted(len(tuned.trials), 'point')} measured"
    words = {
        "edited": f"better: recipe.toml has the new numbers; {points}",
        "proposed": f"better, not written; {points}",
        "unchanged": f"not better; {points}" if tuned.within else f"above the limit; {points}",
    }
    yield words[tuned.change]


def notes_of(tuned: Tuned) -> list[str]:
    """What to do next."""
    if tuned.change != "edited":
        return []
    hint = (
        Call("verify"),
        " measures spill and answers too; ",
        Call("commit", message=Blank("MSG")),
        " records the recipe",
    )
    return [Note("recipe.toml was edited", hint)]


def _change(before: Strength, after: Strength) -> tuple[str, str, str]:
    old, new = ("" if value is None else number(value) for value in (before, after))
    return (old, "→", new) if new != old else (old, "", "")
