"""**scores** — what was measured of a commit or a vector: effect, spill and damage.

**measurement** — what was measured of weights item by item. Its key names all that decides it (weights,
probes, scorer, dtype, device), so that nothing is measured twice.

Both are kept as notes (`note_refs`), which are no part of the id of what they are about. In a note, a number
that is no integer is a canonical decimal with at most 12 places.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from persona.errors import IntegrityError
from persona.history import note_refs
from persona.history.history import History
from persona.history.score_results import Damage as Damage
from persona.history.score_results import DamageDiff, EffectDiff, ScoresDiff, in_order
from persona.history.score_results import Effect as Effect
from persona.history.score_results import Interval as Interval
from persona.history.score_results import Rate as Rate
from persona.history.score_results import Scores as Scores
from persona.history.score_results import TaskScore as TaskScore
from persona.objects import canonical, fields
from persona.objects.digest import require_digest
from persona.objects.note import Note
from persona.objects.recipe import Recipe
from persona.store.refs import NoteList

_PLACES: Final = 12
_MOST: Final = canonical.MAX_INTEGER
Json = dict[str, Any]
Found = TypeVar("Found")


def scores_of(history: History, id: str) -> Scores | None:
    """The scores of a commit or a vector, by its whole id; None if it was not measured.

    `measured_before` is false and `notes` is empty: they are of one call. Raises `IntegrityError` if the note
    is damaged.
    """
    note = note_refs.find(history, "scores", id)
    return None if note is None else _decoded(history, note, read_scores)


def readable(history: History, id: str, unread: NoteList) -> Scores | None:
    """Like `scores_of`, but damage is a sentence in `unread`, and None."""
    try:
        return scores_of(history, id)
    except IntegrityError as error:
        unread.append(error.note)
        return None


def as_kept(scores: Scores) -> Scores:
    """Scores with their numbers rounded as a note holds them, so that they look the same before and after."""
    return read_scores(note_of(scores))


def keep_scores(history: History, scores: Scores) -> None:
    """Keeps scores as the note of what they are about, in place of earlier ones."""
    note_refs.keep(history, note_of(scores))


def measured(history: History, key: Json) -> Json | None:
    """The measurement of a key; None if there is none, or it is damaged, as the history's notes say then."""
    return _unless_damaged(history, "measured", note_refs.key_digest(key), read_measured)


def keep_measured(history: History, key: Json, data: Json) -> None:
    """Keeps a measurement.

    `key` and `data` are canonical JSON: without floats. `key["weights"]`: the digest of the weights that were
    measured.
    """
    about = require_digest(key.get("weights"), "the key of a measurement: weights").removeprefix("blake3:")
    note_refs.keep(history, Note(about, "weights", "measured", {"data": data, "key": key}))


def weights_of(history: History, recipe: Recipe) -> str | None:
    """The weights digest of a recipe, if it is known without a merge. Damage is as for `measured`."""
    return _unless_damaged(history, "weights", recipe.key, read_weights)


def _unless_damaged(history: History, kind: str, digits: str, read: Callable[[Note], Found]) -> Found | None:
    """What a note says that the next measurement replaces."""
    try:
        note = note_refs.find(history, kind, digits)
        return None if note is None else _decoded(history, note, read)
    except IntegrityError as error:
        history.notes.append(error.message)
        return None


def keep_weights(history: History, recipe: Recipe, digest: str) -> None:
    """Keeps the weights digest of a recipe. It holds for every recipe of the same meaning."""
    note_refs.keep(history, Note(recipe.key, "recipe", "weights", {"weights": digest}))


def check(history: History, note: Note) -> None:
    """`IntegrityError` for a note whose data are not those of its kind."""
    readers = {
        "scores": read_scores,
        "measured": read_measured,
        "weights": read_weights,
        "text": note_refs.text_in,
    }
    if read := readers.get(note.kind):
        _decoded(history, note, read)


def _decoded(history: History, note: Note, read: Callable[[Note], Found]) -> Found:
    try:
        return read(note)
    except IntegrityError as error:
        raise note_refs.damaged(history, note_refs.ref_of(note), error.message) from error


def read_measured(note: Note) -> Json:
    """The data of a measurement."""
    data = fields.mapping(note.data, "note data", ("data", "key"))["data"]
    if type(data) is not dict:
        raise IntegrityError("note data: data must be a mapping")
    return data


def read_weights(note: Note) -> str:
    """The weights digest in a note."""
    return require_digest(fields.mapping(note.data, "note data", ("weights",))["weights"], "note weights")


def compared(before: Scores, after: Scores) -> ScoresDiff | None:
    """Two scores side by side, as far as they were measured in the same way; None if no part was."""
    old = {(effect.pattern, effect.probes): effect for effect in before.effects}
    effects = tuple(
        EffectDiff(effect.pattern, old[key], effect)
        for effect in after.effects
        if (key := (effect.pattern, effect.probes)) in old
    )
    damage = None
    if before.damage is not None and after.damage is not None and before.damage.text == after.damage.text:
        damage = DamageDiff(before.damage, after.damage)
    same = [getattr(before, name) == getattr(after, name) for name in ("scorer", "dtype", "device")]
    if not all(same) or not (effects or damage):
        return None
    return ScoresDiff(before.about, after.about, effects, damage)


# -- scores


def note_of(scores: Scores) -> Note:
    """The note of scores. Raises `InvalidInput` for a number that is not finite."""
    data = {
        "damage": None if scores.damage is None else _damage_data(scores.damage),
        "device": scores.device,
        "dtype": scores.dtype,
        "effects": [_effect_data(effect) for effect in scores.effects],
        "scorer": scores.scorer,
        "tasks": [_task_data(task) for task in scores.tasks],
        "unverified": list(scores.unverified),
        "verdict": scores.verdict,
        "weights": scores.weights,
    }
    return Note(scores.about, scores.about_kind, "scores", data)


def read_scores(note: Note) -> Scores:
    """The scores in a note."""
    names = ("damage", "device", "dtype", "effects", "scorer", "tasks", "unverified", "verdict", "weights")
    data = fields.mapping(note.data, "scores", names)
    effects = fields.items(data["effects"], "scores: effects", _MOST)
    unverified = fields.items(data["unverified"], "scores: unverified", _MOST)
    return Scores(
        about=note.about,
        about_kind=note.about_kind,
        weights=fields.text(data["weights"], "scores: weights"),
        effects=tuple(_effect(effect) for effect in effects),
        damage=None if data["damage"] is None else _damage(data["damage"]),
        verdict=fields.text(data["verdict"], "scores: verdict"),
        unverified=tuple(fields.text(key, "scores: unverified") for key in unverified),
        scorer=fields.text(data["scorer"], "scores: scorer"),
        dtype=fields.text(data["dtype"], "scores: dtype"),
        device=fields.text(data["device"], "scores: device"),
        tasks=tuple(_task(task) for task in fields.items(data["tasks"], "scores: tasks", _MOST)),
    )


def _effect_data(effect: Effect) -> Json:
    return {
        "after": _rate_data(effect.after),
        "before": _rate_data(effect.before),
        "control": None if effect.control is None else _decimal(effect.control),
        "margin": _interval_data(effect.margin),
        "own": effect.own,
        "pattern": effect.pattern,
        "probes": effect.probes,
        "rate": _interval_data(effect.rate),
        "splits": {name: _interval_data(split) for name, split in effect.splits.items()},
        "verdict": effect.verdict,
        "wanted": effect.wanted,
    }


def _effect(value: Any) -> Effect:
    names = tuple("after before control margin own pattern probes rate splits verdict wanted".split())
    data = fields.mapping(value, "effect", names)
    if type(data["own"]) is not bool or type(data["splits"]) is not dict:
        raise IntegrityError("effect: own must be true or false, and splits a mapping")
    return Effect(
        pattern=fields.text(data["pattern"], "effect: pattern"),
        own=data["own"],
        wanted=_or_none(lambda sign: fields.integer(sign, "effect: wanted", -1, 1), data["wanted"]),
        margin=_or_none(_interval, data["margin"]),
        splits={name: _interval(data["splits"][name]) for name in in_order(data["splits"])},
        before=_or_none(_rate, data["before"]),
        after=_or_none(_rate, data["after"]),
        control=_or_none(_number, data["control"]),
        verdict=_or_none(lambda text: fields.text(text, "effect: verdict"), data["verdict"]),
        probes=fields.text(data["probes"], "effect: probes"),
        rate=_or_none(_interval, data["rate"]),
    )


def _damage_data(damage: Damage) -> Json:
    return {
        "kl": _interval_data(damage.kl),
        "limit": _decimal(damage.limit),
        "ratio": _interval_data(damage.ratio),
        "text": damage.text,
        "top": _interval_data(damage.top),
    }


def _damage(value: Any) -> Damage:
    data = fields.mapping(value, "damage", ("kl", "limit", "ratio", "text", "top"))
    return Damage(
        kl=_interval(data["kl"]),
        top=_interval(data["top"]),
        ratio=_interval(data["ratio"]),
        limit=_number(data["limit"]),
        text=fields.text(data["text"], "damage: text"),
    )


def _task_data(task: TaskScore) -> list[Any]:
    numbers = (task.before, task.before_error, task.after, task.after_error)
    return [task.task, task.metric, *(_or_none(_decimal, number) for number in numbers), task.items]


def _task(value: Any) -> TaskScore:
    found = fields.items(value, "task", 7)
    if len(found) != 7:
        raise IntegrityError("task must be a list of 7 items")
    task, metric, before, before_error, after, after_error, items = found
    return TaskScore(
        fields.text(task, "task"),
        fields.text(metric, "task: metric"),
        _number(before),
        _or_none(_number, before_error),
        _number(after),
        _or_none(_number, after_error),
        _count(items),
    )


def _interval_data(interval: Interval | None) -> list[Any] | None:
    if interval is None:
        return None
    return [*map(_decimal, (interval.mean, interval.low, interval.high)), interval.items]


def _interval(value: Any) -> Interval:
    mean, low, high, items = _four(value, "interval")
    return Interval(_number(mean), _number(low), _number(high), _count(items))


def _rate_data(rate: Rate | None) -> list[Any] | None:
    return None if rate is None else [rate.met, rate.items, _decimal(rate.low), _decimal(rate.high)]


def _rate(value: Any) -> Rate:
    met, items, low, high = _four(value, "rate")
    return Rate(_count(met), _count(items), _number(low), _number(high))


def _four(value: Any, where: str) -> list[Any]:
    found = fields.items(value, where, 4)
    if len(found) != 4:
        raise IntegrityError(f"{where} must be a list of 4 items")
    return found


def _decimal(value: float) -> str:
    return canonical.decimal(round(float(value), _PLACES))


def _number(value: Any) -> float:
    return float(fields.decimal(value, "a number of scores"))


def _count(value: Any) -> int:
    return fields.integer(value, "a number of items", 0, _MOST)


def _or_none(read: Any, value: Any) -> Any:
    return None if value is None else read(value)
