"""Scores, measurements and weights digests are kept as notes, and come back as they were."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import IntegrityError, InvalidInput
from persona.history import note_refs
from persona.history.history import History
from persona.history.score_results import Damage, Effect, Interval, Rate, Scores
from persona.history.scores import (
    keep_measured,
    keep_scores,
    keep_weights,
    measured,
    note_of,
    read_measured,
    read_scores,
    read_weights,
    scores_of,
    weights_of,
)
from persona.objects import canonical
from persona.objects.note import Note
from persona.repository import Repository
from tests.history.bots import Bot, each_cut
from tests.objects import strategies

DIGEST = "blake3:" + "ab" * 32
KEY = {"weights": DIGEST, "probes": "cd" * 32, "dtype": "float32"}

numbers = st.integers(-(10**9), 10**9).map(lambda n: n / 10**4) | st.just(-0.0)
counts = st.integers(0, 10**6)
intervals = st.builds(Interval, numbers, numbers, numbers, counts)
rates = st.builds(Rate, counts, counts, numbers, numbers)
verdicts = st.sampled_from(["pass", "fail", "inconclusive"])
names = strategies.texts
effects = st.builds(
    Effect,
    names,
    st.booleans(),
    st.sampled_from([1, -1, None]),
    st.none() | intervals,
    st.dictionaries(names, intervals, max_size=3),
    st.none() | rates,
    st.none() | rates,
    st.none() | numbers,
    st.none() | verdicts,
    strategies.ids,
)
damages = st.builds(Damage, intervals, intervals, intervals, numbers, strategies.ids)
scores = st.builds(
    Scores,
    strategies.ids,
    st.sampled_from(["commit", "vector"]),
    strategies.digests,
    st.lists(effects, max_size=3).map(tuple),
    st.none() | damages,
    verdicts,
    st.lists(names, max_size=2).map(tuple),
    names,
    names,
    names,
)


def some(about: str, margin: float = 12.3, kind: str = "commit") -> Scores:
    """Scores of a commit, with one effect."""
    interval = Interval(margin, margin - 1, margin + 1, 30)
    effect = Effect("listening", True, 1, interval, {"seen": interval}, None, None, 0.5, "pass", "cd" * 32)
    damage = Damage(*[Interval(1.001, 1, 1.002, 100)] * 3, 1.02, "ef" * 32)
    return Scores(about, kind, DIGEST, (effect,), damage, "pass", (), "1", "float32", "cpu")


def history_of(repo: Repository) -> History:
    return repo._history


def path_of(repo: Repository, kind: str, digits: str) -> Path:
    """The file of the ref of a note."""
    return repo.root / ".persona" / note_refs.ref_named(kind, digits)


@given(scores)
def test_scores_come_back_as_they_were(found: Scores) -> None:
    assert read_scores(Note.decode(note_of(found).encode())) == found


@given(st.floats(-1e9, 1e9))
def test_a_number_is_kept_to_12_places_and_then_stays(value: float) -> None:
    kept = read_scores(note_of(some("ab" * 32, value)))
    margin = kept.effects[0].margin
    assert margin is not None
    assert margin.mean == pytest.approx(value, abs=1e-12)
    assert note_of(kept) == note_of(read_scores(note_of(kept)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(InvalidInput, match="finite"):
        note_of(some("ab" * 32, value))


@given(strategies.mangled(scores.map(note_of)))
def test_a_changed_note_is_read_whole_or_refused(data: bytes) -> None:
    try:
        note = Note.decode(data)
        read = {"scores": read_scores, "measured": read_measured, "weights": read_weights}
        read.get(note.kind, lambda note: note)(note)
    except IntegrityError:
        return
    if note.kind == "scores":
        assert note_of(read_scores(note)) == note


def test_what_was_not_measured_is_not_known(grown: Bot) -> None:
    history = history_of(grown.repo)
    head = grown.repo.resolve()
    assert scores_of(history, head) is None
    assert measured(history, KEY) is None
    assert weights_of(history, history.recipe_of(head)) is None


def test_scores_belong_to_their_commit_and_the_later_ones_stay(grown: Bot) -> None:
    history, head = history_of(grown.repo), grown.repo.resolve()
    before = grown.repo.count_objects().objects
    for margin in (1.5, 2.5, 2.5):
        keep_scores(history, some(head, margin))
    keep_scores(history, some(grown.repo.resolve("HEAD~1"), 9))
    assert scores_of(history, head) == some(head, 2.5)
    assert grown.repo.resolve() == head
    assert grown.repo.count_objects().objects == before + 3
    assert grown.repo.fsck(full=True).ok


def test_one_call_only_is_not_in_the_note(grown: Bot) -> None:
    history, head = history_of(grown.repo), grown.repo.resolve()
    keep_scores(history, replace(some(head), measured_before=True, notes=("slow",)))
    assert scores_of(history, head) == some(head)


def test_a_measurement_has_the_key_that_decides_it(grown: Bot) -> None:
    history = history_of(grown.repo)
    keep_measured(history, KEY, {"items": [["a", 12345]]})
    assert measured(history, dict(reversed(KEY.items()))) == {"items": [["a", 12345]]}
    assert measured(history, KEY | {"dtype": "bfloat16"}) is None
    with pytest.raises(IntegrityError, match="weights"):
        keep_measured(history, {"probes": "x"}, {})
    with pytest.raises(InvalidInput, match="float"):
        keep_measured(history, KEY, {"margin": 0.5})
    assert grown.repo.fsck().ok


def test_the_weights_digest_is_that_of_every_recipe_of_the_same_meaning(grown: Bot) -> None:
    history = history_of(grown.repo)
    keep_weights(history, history.recipe_of(grown.repo.resolve()), DIGEST)
    grown.edit(lambda text: text.replace("[vectors.listening]", "[vectors.attention]"))
    grown.commit(message="another name")
    assert weights_of(history, history.recipe_of(grown.repo.resolve())) == DIGEST
    grown.repo.recipe.set("attention", alpha=0.25)
    grown.commit(message="another alpha")
    assert weights_of(history, history.recipe_of(grown.repo.resolve())) is None
    assert grown.repo.fsck().ok


def test_two_that_measure_at_once_keep_both(grown: Bot) -> None:
    commits = [entry.id for entry in grown.repo.log()]
    start = threading.Barrier(4)
    failed: list[BaseException] = []

    def measure(number: int) -> None:
        try:
            with Repository.open(grown.root, author=grown.now()) as repo:
                start.wait()
                for id in commits:
                    keep_scores(history_of(repo), some(id, number))
                    keep_measured(history_of(repo), KEY | {"run": number, "id": id}, {"n": number})
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=measure, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    history = history_of(grown.repo)
    for id in commits:
        assert scores_of(history, id) in [some(id, number) for number in range(4)]
        for number in range(4):
            assert measured(history, KEY | {"run": number, "id": id}) == {"n": number}
    assert grown.repo.fsck().ok


def test_a_note_that_was_cut_short_is_the_old_or_the_new_one(grown: Bot) -> None:
    head, root = grown.repo.resolve(), grown.root
    keep_scores(history_of(grown.repo), some(head, 1))
    grown.repo.close()

    def old_or_new(repo: Repository) -> None:
        assert scores_of(history_of(repo), head) in (some(head, 1), some(head, 2))
        keep_scores(history_of(repo), some(head, 3))
        assert scores_of(history_of(repo), head) == some(head, 3)

    assert each_cut(root, lambda repo: keep_scores(history_of(repo), some(head, 2)), old_or_new) > 5


def damage_the_ref(repo: Repository, head: str) -> None:
    path_of(repo, "scores", head).write_text("x\n")


def lose_a_field(repo: Repository, head: str) -> None:
    note = note_of(some(head))
    note_refs.keep(history_of(repo), replace(note, data={**note.data, "verdict": 3}))


def remove_the_object(repo: Repository, head: str) -> None:
    id = history_of(repo).store.refs.read(note_refs.ref_named("scores", head))
    assert id is not None
    (repo.root / ".persona" / "objects" / id[:2] / id[2:]).unlink()


@pytest.mark.parametrize("damage", [damage_the_ref, lose_a_field, remove_the_object])
def test_a_damaged_note_is_named_and_measuring_again_mends_it(
    grown: Bot, damage: Callable[[Repository, str], None]
) -> None:
    head = grown.repo.resolve()
    keep_scores(history_of(grown.repo), some(head))
    damage(grown.repo, head)
    with Repository.open(grown.root, author=grown.now()) as repo:
        path = path_of(repo, "scores", head)
        with pytest.raises(IntegrityError) as raised:
            scores_of(history_of(repo), head)
        assert str(path) in raised.value.message
        assert raised.value.hint == "measure it again, which replaces the note"
        found = repo.fsck()
        assert [problem for problem in found.problems if problem.kind in ("note", "ref")]
        keep_scores(history_of(repo), some(head, 2))
        assert scores_of(history_of(repo), head) == some(head, 2)
        assert repo.fsck(full=True).ok


@pytest.mark.parametrize("kind", ["measured", "weights"])
def test_a_damaged_measurement_is_as_none_with_a_note(grown: Bot, kind: str) -> None:
    history = history_of(grown.repo)
    recipe = history.recipe_of(grown.repo.resolve())
    key = {"weights": DIGEST}
    keep_measured(history, key, {"items": [1]})
    keep_weights(history, recipe, DIGEST)
    digits = note_refs.key_digest(key) if kind == "measured" else recipe.key
    path_of(grown.repo, kind, digits).write_text("x\n")
    told: list[object] = []
    with Repository.open(grown.root, author=grown.now(), notes=told) as repo:
        history = history_of(repo)
        found = measured(history, key) if kind == "measured" else weights_of(history, recipe)
        assert found is None
        assert [kind in str(note) for note in told] == [True]
        keep_measured(history, key, {"items": [1]})
        keep_weights(history, recipe, DIGEST)
        assert measured(history, key) == {"items": [1]}
        assert weights_of(history, recipe) == DIGEST


def test_damaged_provenance_is_left_out_with_a_note(grown: Bot) -> None:
    history, head = history_of(grown.repo), grown.repo.resolve()
    notes = [Note(head, "commit", "provenance", {"n": n}) for n in (1, 2)]
    for note in notes:
        note_refs.keep(history, note)
    path = grown.root / ".persona" / note_refs.ref_of(notes[0])
    path.write_text("x\n")
    told: list[object] = []
    with Repository.open(grown.root, author=grown.now(), notes=told) as repo:
        assert note_refs.all_of(history_of(repo), "provenance") == [notes[1]]
        assert [str(path) in str(note) for note in told] == [True]


def test_a_note_under_the_name_of_another_is_noticed(grown: Bot) -> None:
    history, head = history_of(grown.repo), grown.repo.resolve()
    other = grown.repo.resolve("HEAD~1")
    keep_scores(history, some(other))
    (at, wrong) = (note_refs.ref_named("scores", id) for id in (other, head))
    id = history.store.refs.read(at)
    assert id is not None
    with pytest.raises(IntegrityError, match="belongs to"):
        note_refs.read(history, wrong, id)


@given(strategies.notes)
def test_the_ref_of_a_note_is_a_name_that_refs_take(note: Note) -> None:
    name = note_refs.ref_of(note)
    assert name.startswith(f"refs/notes/{note.kind}/")
    assert len(name.rpartition("/")[2]) == 32
    assert canonical.decode(note.encode())


def test_the_surface_form_of_the_training_data_comes_first_whenever_scores_are_read() -> None:
    one = Interval(1.0, 0.5, 1.5, 4)
    splits = {"seen": one, "letters": one, "a list": one}
    effect = Effect("tea", True, 1, one, splits, None, None, 0.5, "pass", "cd" * 32)
    kept = Scores("ab" * 32, "vector", DIGEST, (effect,), None, "pass", (), "1", "float32", "cpu")
    assert list(read_scores(note_of(kept)).effects[0].splits) == ["seen", "a list", "letters"]
