"""Scores as text: the tables of `verify` and `show`, the leakage matrix, the lines of `log` and `diff`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from click import style

from persona.cli.render import columns, short
from persona.cli.terminal import one_line

if TYPE_CHECKING:
    from persona.history.score_results import Damage, Effect, Interval, Rate, Scores, ScoresDiff, TaskScore

EXIT_CODES: Final = {"pass": 0, "fail": 1, "inconclusive": 8, "unverified": 8}
_COLOURS: Final = {"pass": "green", "fail": "red", "inconclusive": "yellow", "unverified": "yellow"}
_TASK_HEAD: Final = ("TASK", "METRIC", "BASE", "", "HERE", "")


def exit_code(verdicts: Sequence[str]) -> int:
    """0 if all pass, 1 if one fails, else 8."""
    codes = [EXIT_CODES[verdict] for verdict in verdicts]
    return 1 if 1 in codes else max(codes)


def name_of(scores: Scores) -> str:
    """The pattern whose vector was measured; else the start of the vector's id."""
    names = [*(effect.pattern for effect in scores.own), *scores.unverified]
    return names[0] if names else short(scores.about)


def scores_lines(scores: Scores) -> Iterator[str]:
    """One recipe or vector."""
    names = {
        "commit": f"commit {short(scores.about)}",
        "vector": f"vector {short(scores.about)} alone at α 1",
    }
    what = names.get(scores.about_kind, "recipe.toml")
    yield f"{what} against the base ({_how(scores)})"
    if scores.own:
        yield ""
        yield from _own_table(scores.own)
    if scores.spill:
        yield ""
        yield from columns([("SPILL", "Δ MARGIN", ""), *(_spill_row(effect) for effect in scores.spill)])
    if scores.damage is not None:
        yield ""
        yield from columns(list(_damage_rows(scores.damage)))
    if scores.tasks:
        yield ""
        yield from columns([_TASK_HEAD, *map(_task_row, scores.tasks)])
    yield ""
    yield verdict_line(scores)


def _how(scores: Scores) -> str:
    """How scores were measured, and whether by an earlier call."""
    return f"{scores.dtype}, {scores.device}{', measured before' if scores.measured_before else ''}"


def brief(scores: Scores) -> str:
    """The line of `log`: `listening +12.30 [+10.10, +14.60]; loss +0.4 %; pass`."""
    parts = [", ".join(f"{one_line(effect.pattern)} {effect_text(effect)}" for effect in scores.own)]
    if scores.damage is not None:
        parts.append(f"loss {rise(scores.damage)}")
    parts.append(style(scores.verdict, fg=_COLOURS[scores.verdict]))
    return "; ".join(filter(None, parts))


def effect_text(effect: Effect) -> str:
    """An effect and its interval: `+12.30 [+10.10, +14.60]`."""
    return " ".join(_effect(effect))


def change_text(effect: Effect) -> str:
    """An effect without its interval: `+12.30`."""
    return _effect(effect)[0]


def margin_text(change: Interval) -> str:
    """The change of a margin and its interval: `+12.30 [+10.10, +14.60]`."""
    return " ".join(_interval(change, False))


def ratio_text(damage: Damage) -> str:
    """The ratio of the losses and its interval: `1.0020 [0.9985, 1.0056]`."""
    ratio = damage.ratio
    return f"{ratio.mean:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]"


def too_much(damage: Damage) -> str | None:
    """Why the damage is too much; None if it is not."""
    if damage.ratio.mean <= damage.limit:
        return None
    return f"damage: the loss ratio {damage.ratio.mean:.4f} is above {damage.limit:g}"


def diff_lines(diff: ScoresDiff) -> Iterator[str]:
    """The scores of two commits, each against the base."""
    heading = style(f"diff scores {short(diff.from_)} {short(diff.to)}", bold=True)
    yield f"{heading}  Δ margin against the base"
    rows = [
        (one_line(pair.pattern), *_effect(pair.from_), "→", *_effect(pair.to), _checks(pair.from_, pair.to))
        for pair in diff.effects
    ]
    if (damage := diff.damage) is not None:
        rows.append(("loss", rise(damage.from_), "", "→", rise(damage.to), "", ""))
    yield from (f" {line}" for line in columns(rows))


def matrix_lines(all_scores: Sequence[tuple[str, Scores]]) -> Iterator[str]:
    """Vectors, each alone, against all probes."""
    probes = list(dict.fromkeys(effect.pattern for _, scores in all_scores for effect in scores.effects))
    yield f"each vector alone at α 1 against the base ({_how(all_scores[0][1])})"
    yield "a row for each vector, a column for each pattern's probes; * its own probes"
    yield "Δ margin ± half of the 95 % interval; a change of a check's rate is in %"
    yield ""
    rows = [("VECTOR", *map(one_line, probes), "KL", "LOSS", "")]
    for name, scores in all_scores:
        found = {effect.pattern: effect for effect in scores.effects}
        damage = scores.damage
        rows.append(
            (
                one_line(name),
                *(_cell(found[key]) if key in found else "" for key in probes),
                "" if damage is None else f"{damage.kl.mean:.4f}",
                "" if damage is None else f"{damage.ratio.mean:.4f}",
                scores.verdict,
            )
        )
    yield from columns(rows)
    tasks = [(one_line(name), *_task_row(task)) for name, scores in all_scores for task in scores.tasks]
    if tasks:
        yield ""
        yield from columns([("VECTOR", *_TASK_HEAD), *tasks])


def verdict_line(scores: Scores) -> str:
    """The verdict and its reasons, as the last line."""
    reasons = [
        f"{one_line(effect.pattern)}: {_why(effect)}"
        for effect in scores.own
        if effect.verdict in _WHY and effect.verdict == scores.verdict
    ]
    damage = scores.damage
    if scores.verdict == "fail" and damage is not None and (reason := too_much(damage)):
        reasons.append(reason)
    if scores.verdict == "unverified":
        reasons = [f"{one_line(key)} has no probes" for key in scores.unverified] or ["nothing to verify"]
    word = style(scores.verdict, fg=_COLOURS[scores.verdict], bold=True)
    return word + (": " + "; ".join(reasons) if reasons else "")


_WHY: Final = {
    "fail": "the effect is not above that of random vectors",
    "inconclusive": "the interval of the effect reaches 0 or the random vectors; more probes narrow it",
}


def _why(effect: Effect) -> str:
    """Why an effect did not pass."""
    whole, sign = effect.margin or effect.rate, effect.wanted or 1
    if whole is not None and effect.control is not None:
        low, high = sorted((whole.low * sign, whole.high * sign))
        limit = effect.control * sign
        if effect.verdict == "inconclusive" and low > max(0.0, limit):
            return "it has too few groups of probes"
        if effect.verdict == "fail" and high > 0 and whole.mean * sign > limit:
            return "the recipe has no vector of it, and the others do not surely have the effect"
    if effect.verdict == "fail" and sign < 0:
        return "the effect is not below that of random vectors"
    return _WHY[str(effect.verdict)]


def _own_table(effects: Sequence[Effect]) -> Iterator[str]:
    splits = list(dict.fromkeys(split for effect in effects for split in effect.splits))
    shown = splits if len(splits) > 1 else []
    has_checks = any(effect.after is not None for effect in effects)
    head = ["EFFECT", "Δ MARGIN", "", *(one_line(split).upper() for split in shown), "RANDOM"]
    rows = [[*head, *(["CHECK"] if has_checks else []), ""]]
    for effect in effects:
        whole = effect.margin or effect.rate
        unit = effect.margin is None
        assert whole is not None
        assert effect.control is not None
        removed = effect.wanted == -1
        row = [
            one_line(effect.pattern) + (" (removed)" if removed else ""),
            *_interval(whole, unit),
            *(_signed(effect.splits[key].mean, unit) if key in effect.splits else "" for key in shown),
            ("> " if removed else "< ") + _signed(effect.control, unit),
        ]
        rows.append([*row, *([_rates(effect)] if has_checks else []), str(effect.verdict)])
    yield from columns(rows)


def _spill_row(effect: Effect) -> tuple[str, str, str]:
    return (one_line(effect.pattern), *_effect(effect))


def _effect(effect: Effect) -> tuple[str, str]:
    whole = effect.margin or effect.rate
    assert whole is not None
    return _interval(whole, effect.margin is None)


def _checks(before: Effect, after: Effect) -> str:
    """The rates of the answers of two models that meet the check."""
    if before.after is None or after.after is None:
        return ""
    return f"check {_rate(before.after)} → {_rate(after.after)}"


def _task_row(task: TaskScore) -> tuple[str, ...]:
    before, after = (
        f"{value:.3f}" + ("" if error is None else f" ±{error:.3f}")
        for value, error in ((task.before, task.before_error), (task.after, task.after_error))
    )
    return (one_line(task.task), task.metric, before, "→", after, f"of {task.items:,}")


def rise(damage: Damage) -> str:
    """The rise of the loss on neutral text."""
    return f"{100 * (damage.ratio.mean - 1):+.1f} %"


def _damage_rows(damage: Damage) -> Iterator[tuple[str, str, str]]:
    yield ("DAMAGE", "", "on neutral text")
    kl, top = damage.kl, damage.top
    yield ("KL(base ‖ model)", f"{kl.mean:.4f}", f"[{kl.low:.4f}, {kl.high:.4f}] nats a token")
    yield ("same top token", f"{100 * top.mean:.1f} %", f"[{100 * top.low:.1f} %, {100 * top.high:.1f} %]")
    limit = f"at most {damage.limit:g}"
    mean, _, interval = ratio_text(damage).partition(" ")
    yield ("loss ratio", mean, f"{interval}, {limit}")


def _interval(whole: Interval, is_rate: bool) -> tuple[str, str]:
    mean, low, high = (_signed(value, is_rate) for value in (whole.mean, whole.low, whole.high))
    return mean, f"[{low}, {high}]"


def _cell(effect: Effect) -> str:
    whole = effect.margin or effect.rate
    assert whole is not None
    is_rate = effect.margin is None
    half = _signed((whole.high - whole.low) / 2, is_rate).lstrip("+")
    return f"{_signed(whole.mean, is_rate)} ±{half}" + (" *" if effect.own else "")


def _signed(value: float, is_rate: bool) -> str:
    if is_rate:
        return f"{100 * value:+.0f} %"
    return f"{value:+.2f}"


def _rates(effect: Effect) -> str:
    if effect.before is None or effect.after is None:
        return ""
    return f"{_rate(effect.before)} → {_rate(effect.after)}"


def _rate(rate: Rate) -> str:
    return f"{rate.met}/{rate.items}"
