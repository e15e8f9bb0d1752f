#!/usr/bin/env python
"""Compares the presets on five behaviours in one recipe, one of which is unwanted and subtracted.

    scripts/bench/presets.py --repository build/behaviours/bot

The repository is one that scripts/bench/behaviours.py made: its vectors `listening`, `patience`, `openness`
and `voice` take part with α = 1, and `suggesting` with α = −1: as the pair τ⁺ − τ⁻, or τ⁺ alone. Its term
votes like the others, or it is added to their result (`join = "add"`).

Presets differ in how large a change they make, so they are compared at equal damage as well: the whole change
is scaled until KL(base ‖ model) on neutral text is that of the reference, `ties` at density 1 with all terms
voting. λ scales what is voted on, and the α of a term that is added is multiplied by the same number. The
number is searched: a power law through the two measurements that are nearest to the target gives the next
one, until KL is within `TOLERANCE`. Effects are measured there, not interpolated.

Effects are Δmargins in nats on probes in the form that the training data does not use, `--probes` for each
behaviour. Intervals are of 95 %: a bootstrap over groups of probes, within each behaviour. All settings are
measured on the same probes and resampled alike, so a difference of two settings is paired. Spill is measured
by leaving a behaviour out of the recipe and asking its probes.

Measurements are kept in the repository, so a second run repeats only what is missing. The tables are
Markdown. `--only`, `--settings`, `--forms`, `--probes` and `--text` make it shorter.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
from behaviours import KEYS, UNWANTED, signed, table, title
from harness import ROOT, machine

from persona.behaviour import assessing
from persona.behaviour.graph.graph import Graph
from persona.behaviour.measuring.items import PLACES
from persona.behaviour.measuring.measurements import Bench, Need, Weights
from persona.behaviour.measuring.statistics import RESAMPLES, SEED
from persona.behaviour.probes import SEEN, ProbeSet
from persona.history.history import History
from persona.history.options import ComputeOptions
from persona.history.scores import Damage
from persona.history.vectors import lookup
from persona.history.worktree import text_files
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import PRESETS, Rules
from persona.progress import Phase
from persona.repository import Repository

TOLERANCE = 0.05
"""How far KL may be from the target, as a share of it: effects differ by about half of that. The roundings of
bf16 move KL by a few percent from one scale to the next, so less is not to be had."""
ROUNDS = 5
"""The most measurements of damage in the search of one scale."""
SMALL = "0.2"
"""The density of the rows that trim."""
WANTED = tuple(key for key in KEYS if key != UNWANTED)
SIGN = {key: -1 if key == UNWANTED else 1 for key in KEYS}
FORMS = {"pair": UNWANTED, "alone": f"{UNWANTED}-plus"}
"""The vector that stands for the unwanted behaviour."""


@dataclass(frozen=True)
class Setting:
    """Rules, and how the unwanted behaviour takes part: `form` of its vector, and `join`."""

    preset: str
    density: str | None
    join: str
    form: str

    @property
    def label(self) -> str:
        """Its name in a table."""
        density = "" if self.density is None else f", {self.density}"
        return f"{self.preset}{density}" + (" · added" if self.join == "add" else "")


def settings(forms: Sequence[str]) -> list[Setting]:
    """Every preset; those that trim at a small density, and `ties`, `mergekit` and `peft` at 1 as well."""
    rows: list[tuple[str, str | None]] = [("ties", "1"), ("linear", None), ("ties", SMALL)]
    rows += [("mergekit", "1"), ("peft", "1")]
    rows += [(name, SMALL) for name, row in PRESETS.items() if row["density"] is not None and name != "ties"]
    return [
        Setting(preset, density, join, form)
        for form in forms
        for preset, density in rows
        for join in ("vote", "add")
        if join == "vote" or PRESETS[preset]["elect"] != "none"
    ]


REFERENCE = Setting("ties", "1", "vote", "pair")


class Composer:
    """Makes recipes of a repository's vectors, and measures them."""

    def __init__(self, history: History, probes: int, text: float, threads: int | None) -> None:
        self._history = history
        self._base = text_files.new_recipe(history).recipe.base
        known = lookup.remembered(history) | lookup.ids(history)
        self._ids = {name: known[name] for name in (*KEYS, FORMS["alone"])}
        self._how = history.in_force(ComputeOptions, {"threads": threads})
        graph = Graph.of(history)
        self.sets = {key: few(graph.probes(key), probes) for key in KEYS}
        base = assessing.base_of(history, Recipe.of(self._base, [], Rules.of("linear")))
        self.bench = Bench(history, None, base, "cpu", self._how["threads"], Told())
        lines = self.bench.text.splitlines(keepends=True)
        self.bench.text = b"".join(lines[: round(text * len(lines))])

    def recipe(self, setting: Setting, scale: float = 1.0, without: str | None = None) -> Recipe:
        """All behaviours but `without`, their whole change times `scale`."""
        axes = {"lambda": decimal(scale)} | ({} if setting.density is None else {"density": setting.density})
        terms = []
        for key in KEYS:
            name, join = (FORMS[setting.form], setting.join) if key == UNWANTED else (key, "vote")
            alpha = decimal(SIGN[key] * (scale if join == "add" else 1))
            if key != without:
                terms.append(Term(key, self._ids[name], alpha, join=join))
        return Recipe.of(self._base, terms, Rules.of(setting.preset, **axes))

    def alone(self, key: str, form: str) -> Recipe:
        """One behaviour alone."""
        name = FORMS[form] if key == UNWANTED else key
        term = Term(key, self._ids[name], decimal(SIGN[key]))
        return Recipe.of(self._base, [term], Rules.of("linear"))

    def weights(self, recipe: Recipe, label: str) -> Weights:
        """The weights of a recipe."""
        return assessing.weights(self._history, label, recipe, self._how)

    # -- needs, and what was found

    def margins(self, weights: Weights, keys: Iterable[str]) -> list[Need]:
        """What the effects on the probes of some behaviours need."""
        return [Need(one, "margins", self.sets[key]) for key in keys for one in (self.bench.base, weights)]

    def effects(self, weights: Weights, keys: Iterable[str]) -> dict[str, np.ndarray]:
        """Δmargins by behaviour, item by item."""
        found = {}
        for key in keys:
            before, after = (
                np.array(self.bench.found(need), float) / PLACES for need in self.margins(weights, [key])
            )
            found[key] = after - before
        return found

    def damage(self, weights: Weights) -> Damage:
        """The damage of weights that were measured."""
        return assessing.damage(self.bench, assessing.Subject("", "recipe", weights, {}))


class Told:
    """Progress on standard error: a line whenever something else is measured."""

    def __init__(self) -> None:
        self._last = ""
        self._started = time.perf_counter()

    def __call__(self, phase: Phase, done: int, total: int) -> None:
        """Writes what is measured now."""
        if phase.detail != self._last:
            self._last = phase.detail
            seconds = time.perf_counter() - self._started
            print(f"{seconds:7.1f} s  {done:5} of {total}  {phase.detail}", file=sys.stderr, flush=True)


def decimal(number: float) -> str:
    """A number as a recipe holds it."""
    return f"{number:.4f}"


def few(probes: ProbeSet | None, count: int) -> ProbeSet:
    """`count` pairs in an unseen form, of as many groups as possible."""
    assert probes is not None
    groups: dict[str, list] = {}
    for item in probes.items:
        if item.split != SEEN and item.chosen is not None:
            groups.setdefault(item.group, []).append(item)
    in_turn = [item for item in chain(*zip_longest(*groups.values())) if item is not None]
    return ProbeSet(probes.key, tuple(in_turn[:count]))


# -- statistics ----------------------------------------------------------------------------------------------


def resampled(probes: ProbeSet, values: np.ndarray) -> np.ndarray:
    """Means of values over groups drawn with replacement; the draws depend on the probes alone."""
    groups = [item.group for item in probes.items]
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    where = [places[group] for group in groups]
    sums, counts = np.bincount(where, values), np.bincount(where)
    drawn = np.random.default_rng(SEED).integers(0, len(places), (RESAMPLES, len(places)))
    return sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)


@dataclass(frozen=True)
class Number:
    """A mean, and means of resamples, drawn alike for everything that is measured on the same probes."""

    mean: float
    drawn: np.ndarray

    def __sub__(self, other: Number) -> Number:
        return Number(self.mean - other.mean, self.drawn - other.drawn)

    def __truediv__(self, by: float) -> Number:
        return Number(self.mean / by, self.drawn / by)

    def text(self, digits: int = 1) -> str:
        """`12.3 ± 1.2`: half of the interval's width."""
        low, high = np.quantile(self.drawn, (0.025, 0.975))
        return f"{signed(self.mean)} ± {(high - low) / 2:.{digits}f}"

    def percent(self) -> str:
        """`+12 % (+3 … +20)`."""
        low, high = np.quantile(self.drawn, (0.025, 0.975))
        numbers = [f"{100 * number:+.0f}".replace("-", "−") for number in (self.mean, low, high)]
        return f"{numbers[0]} % ({numbers[1]} … {numbers[2]})"


def mean_of(numbers: Sequence[Number]) -> Number:
    """The mean of several means."""
    return Number(
        float(np.mean([one.mean for one in numbers])), np.mean([one.drawn for one in numbers], axis=0)
    )


def numbers_of(composer: Composer, weights: Weights, keys: Iterable[str]) -> dict[str, Number]:
    """Effects or spill with resamples, by behaviour. Behaviours are resampled independently."""
    found = {}
    for key, values in composer.effects(weights, keys).items():
        drawn = resampled(composer.sets[key], values)
        found[key] = Number(float(values.mean()), drawn)
    return found


# -- the parts -----------------------------------------------------------------------------------------------


def damage_cells(damage: Damage) -> list[str]:
    """KL, top token and ratio of the losses."""
    kl, top, ratio = damage.kl, damage.top, damage.ratio
    return [
        f"{kl.mean:.4f} ± {(kl.high - kl.low) / 2:.4f}",
        f"{top.mean:.3f}",
        f"{ratio.mean:.4f} ± {(ratio.high - ratio.low) / 2:.4f}",
    ]


DAMAGE = ("KL to the base", "same top token", "ratio of the losses")


def measure_alone(composer: Composer, forms: Sequence[str]) -> dict[str, dict[str, Number]]:
    """Each behaviour alone: the effect that a recipe of all can be compared with, by form."""
    title("Each behaviour alone, at its α")
    rows, found = [], {}
    made = {
        (key, form): composer.weights(composer.alone(key, form), f"{key}, {form}")
        for key in KEYS
        for form in (forms if key == UNWANTED else forms[:1])
    }
    composer.bench.measure(
        need
        for (key, _), weights in made.items()
        for need in (Need(weights, "damage", None), *composer.margins(weights, [key]))
    )
    for (key, form), weights in made.items():
        number = numbers_of(composer, weights, [key])[key]
        found[key, form] = number
        label = f"{key} at " + ("−1" if key == UNWANTED else "1") + (f", {form}" if key == UNWANTED else "")
        rows.append([label, number.text(), *damage_cells(composer.damage(weights))])
    table(("", "effect (nats)", *DAMAGE), rows)
    return {form: {key: found[key, form if key == UNWANTED else forms[0]] for key in KEYS} for form in forms}


def measure_written(composer: Composer, chosen: Sequence[Setting]) -> None:
    """Every setting with its α as written, λ = 1."""
    made = {
        setting: composer.weights(composer.recipe(setting), f"{setting.label}, {setting.form}")
        for setting in chosen
    }
    composer.bench.measure(
        need
        for weights in made.values()
        for need in (Need(weights, "damage", None), *composer.margins(weights, KEYS))
    )
    title("As written: λ = 1, α = 1, and −1 for the unwanted one")
    for form in dict.fromkeys(setting.form for setting in chosen):
        print(f"`{UNWANTED}` as {FORM_WORDS[form]}; Δmargin in nats:\n")
        rows = []
        for setting, weights in made.items():
            if setting.form == form:
                numbers = numbers_of(composer, weights, KEYS)
                cells = [numbers[key].text() for key in KEYS]
                rows.append([setting.label, *cells, *damage_cells(composer.damage(weights))])
        table(("", *KEYS, *DAMAGE), rows)


FORM_WORDS = {"pair": "the pair τ⁺ − τ⁻", "alone": "τ⁺ alone"}


def equal_scales(composer: Composer, chosen: Sequence[Setting], target: float | None) -> dict[Setting, float]:
    """The scale of each setting at which its KL is the target; None: that of the reference at 1."""
    tried: dict[Setting, list[tuple[float, float]]] = {setting: [] for setting in chosen}
    if target is None:
        target = kl_of(composer, {REFERENCE: 1.0})[REFERENCE]
    print(f"The common damage: KL = {target:.4f} ± {100 * TOLERANCE:.0f} %.\n", flush=True)
    for _ in range(ROUNDS):
        following = {setting: next_scale(points, target) for setting, points in tried.items()}
        open_ = {setting: scale for setting, scale in following.items() if scale is not None}
        if not open_:
            break
        for setting, kl in kl_of(composer, open_).items():
            tried[setting].append((open_[setting], kl))
    return {
        setting: min(points, key=lambda point: abs(np.log(point[1] / target)))[0]
        for setting, points in tried.items()
    }


def kl_of(composer: Composer, scales: Mapping[Setting, float]) -> dict[Setting, float]:
    """The KL of settings at scales."""
    made = {
        setting: composer.weights(
            composer.recipe(setting, scale), f"{setting.label}, {setting.form} × {scale:.4f}"
        )
        for setting, scale in scales.items()
    }
    composer.bench.measure(Need(weights, "damage", None) for weights in made.values())
    return {setting: composer.damage(weights).kl.mean for setting, weights in made.items()}


def next_scale(points: Sequence[tuple[float, float]], target: float) -> float | None:
    """The scale to try after these points of (scale, KL), None if one of them is near enough."""
    if not points:
        return 1.0
    nearest = sorted(points, key=lambda point: abs(np.log(point[1] / target)))
    scale, kl = nearest[0]
    if abs(kl / target - 1) <= TOLERANCE:
        return None
    power = 2.0
    if len(nearest) > 1:
        other, other_kl = nearest[1]
        power = float(np.clip(np.log(kl / other_kl) / np.log(scale / other), 1.5, 3))
    found = round(scale * float((target / kl) ** (1 / power)), 4)
    return None if found in dict(points) else found


def measure_equal(
    composer: Composer,
    chosen: Sequence[Setting],
    alone: Mapping[str, Mapping[str, Number]],
    target: float | None,
) -> dict[Setting, float]:
    """Every setting at equal damage, and what adding does beside voting."""
    title("At equal damage")
    scales = equal_scales(composer, chosen, target)
    made = {
        setting: composer.weights(composer.recipe(setting, scale), f"{setting.label}, {setting.form}")
        for setting, scale in scales.items()
    }
    composer.bench.measure(need for weights in made.values() for need in composer.margins(weights, KEYS))
    found = {setting: numbers_of(composer, weights, KEYS) for setting, weights in made.items()}
    shares = {
        setting: {key: numbers[key] / alone[setting.form][key].mean for key in KEYS}
        for setting, numbers in found.items()
    }
    for form in dict.fromkeys(setting.form for setting in chosen):
        here = [setting for setting in chosen if setting.form == form]
        print(f"`{UNWANTED}` as {FORM_WORDS[form]}; Δmargin in nats:\n")
        table(
            ("", "scale", *KEYS, "KL to the base", "ratio of the losses"),
            [
                [
                    setting.label,
                    f"{scales[setting]:.2f}",
                    *(found[setting][key].text() for key in KEYS),
                    *damage_cells(composer.damage(made[setting]))[::2],
                ]
                for setting in here
            ],
        )
        best = next((one for one in here if one.preset == "linear"), here[0])
        print(
            "As shares of the effect that each behaviour has alone; the last column is the difference of the"
            f" mean over all five to `{best.preset}`:\n"
        )
        rows = []
        for setting in here:
            wanted = mean_of([shares[setting][key] for key in WANTED])
            every = mean_of([shares[setting][key] for key in KEYS])
            other = mean_of([shares[best][key] for key in KEYS])
            rows.append(
                [
                    setting.label,
                    wanted.percent(),
                    shares[setting][UNWANTED].percent(),
                    every.percent(),
                    "–" if setting == best else (every - other).percent(),
                ]
            )
        table(("", "the four wanted", f"`{UNWANTED}` removed", "all five", f"against `{best.preset}`"), rows)
    pairs = [(one, replace(one, join="vote")) for one in chosen if one.join == "add"]
    rows = []
    for added, voting in pairs:
        if voting not in shares:
            continue
        difference = {key: shares[added][key] - shares[voting][key] for key in KEYS}
        rows.append(
            [
                voting.label,
                added.form,
                difference[UNWANTED].percent(),
                mean_of([difference[key] for key in WANTED]).percent(),
                mean_of([difference[key] for key in KEYS]).percent(),
            ]
        )
    if rows:
        print('What `join = "add"` changes at equal damage, in shares of the effect alone:\n')
        table(("", f"`{UNWANTED}` as", "removed", "the four wanted", "all five"), rows)
    return scales


def measure_spill(composer: Composer, scales: Mapping[Setting, float]) -> None:
    """What a recipe of the other four does to the probes of the fifth, at the scale of equal damage."""
    made = {
        (setting, key): composer.weights(
            composer.recipe(setting, scale, key), f"{setting.label}, {setting.form}, without {key}"
        )
        for setting, scale in scales.items()
        for key in KEYS
    }
    composer.bench.measure(
        need for (_, key), weights in made.items() for need in composer.margins(weights, [key])
    )
    title("Spill at equal damage: the other four, on the probes of the fifth")
    for form in dict.fromkeys(setting.form for setting in scales):
        print(f"`{UNWANTED}` as {FORM_WORDS[form]}; Δmargin in nats, and the mean of their sizes:\n")
        rows = []
        for setting in scales:
            if setting.form == form:
                numbers = [numbers_of(composer, made[setting, key], [key])[key] for key in KEYS]
                size = float(np.mean([abs(number.mean) for number in numbers]))
                rows.append([setting.label, *(number.text() for number in numbers), f"{size:.1f}"])
        table(("", *KEYS, "mean size"), rows)


PARTS = ("equal", "written", "spill")


def main() -> None:
    """Runs the parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repository", type=Path, default=ROOT / "build/behaviours/bot")
    parser.add_argument("--probes", type=int, default=16, metavar="N", help="pairs of each behaviour")
    parser.add_argument(
        "--text", type=float, default=1.0, metavar="SHARE", help="only a part of the neutral text"
    )
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--settings", nargs="+", choices=PRESETS, help="only these presets")
    parser.add_argument("--kl", type=float, help="the common damage, if not that of the reference")
    given = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    print(machine(), flush=True)
    started = time.perf_counter()
    chosen = [one for one in settings(given.forms) if given.settings is None or one.preset in given.settings]
    with Repository.open(given.repository) as repository:
        composer = Composer(repository._history, given.probes, given.text, given.threads)
        count = ", ".join(f"{len(probes.items)} of {key}" for key, probes in composer.sets.items())
        print(f"\nProbes: {count}; damage on {given.text:.0%} of the neutral text.", flush=True)
        alone = measure_alone(composer, given.forms)
        scales: dict[Setting, float] = {}
        if "equal" in given.only or "spill" in given.only:
            scales = measure_equal(composer, chosen, alone, given.kl)
        if "written" in given.only:
            measure_written(composer, chosen)
        if "spill" in given.only:
            measure_spill(composer, scales)
    print(f"{(time.perf_counter() - started) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
