"""`diff --weights` and `vector show`: what the numbers of a repository say, against whole tensors."""

from __future__ import annotations

import numpy as np
import pytest

from persona.errors import UnknownName
from persona.history.note_refs import keep
from persona.history.results import as_json
from persona.history.verbs.measure import Row
from persona.objects.note import Note
from tests.checkpoints import same
from tests.history.bots import SHAPES, Bot, Tensors

SIZES = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}
MODULES = {
    "model.embed.weight": (None, "embed"),
    "model.layers.0.mlp.weight": (0, "mlp"),
    "model.layers.1.mlp.weight": (1, "mlp"),
    "model.norm.weight": (None, "norm"),
}


def values(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def check_rows(rows: tuple[Row, ...], before: Tensors, after: Tensors) -> None:
    assert [(row.layer, row.module) for row in rows] == list(MODULES.values())
    for row, name in zip(rows, MODULES, strict=True):
        change = np.linalg.norm(values(after[name]) - values(before[name]))
        assert row.size.elements == SIZES[name]
        assert row.size.changed == np.count_nonzero(after[name] != before[name])
        assert row.size.l2 == pytest.approx(change)
        assert row.size.relative_size == pytest.approx(change / np.linalg.norm(values(before[name])))


def test_the_weights_of_two_revisions_are_compared(grown: Bot) -> None:
    before, after = grown.checkout("HEAD~3"), grown.checkout("main")
    found = grown.repo.diff_weights("HEAD~3", "HEAD")
    check_rows(found.layers, before, after)
    whole = [np.concatenate([side[name].ravel() for name in SHAPES]) for side in (before, after)]
    assert found.size.changed == np.count_nonzero(whole[0] != whole[1])
    assert found.size.elements == sum(SIZES.values())
    assert found.size.changed_fraction == found.size.changed / found.size.elements
    change = values(whole[1]) - values(whole[0])
    assert found.size.relative_size == pytest.approx(
        np.linalg.norm(change) / np.linalg.norm(values(whole[0]))
    )


def test_the_shares_of_a_list_over_layers_are_those_of_its_layers(grown: Bot) -> None:
    grown.repo.recipe.set("listening", alpha=[0.25, 1], density=[0.5, 1])
    shares = {share.name: share for share in grown.repo.diff_weights("HEAD").vectors}
    tensors = {
        "*embed*": (0.25, 0.5),
        "*layers.0.*": (0.25, 0.5),
        "*layers.1.*": (1, 1),
        "*norm*": (0.25, 0.5),
    }
    grown.repo.recipe.remove("listening")
    for name, (only, (alpha, density)) in zip("abcd", tensors.items(), strict=True):
        grown.repo.add(grown.models / "listening", name=name, only=only, alpha=alpha, density=density)
    parts = {share.name: share for share in grown.repo.diff_weights("HEAD").vectors}
    assert shares["listening"].alpha == (0.25, 1)
    for key in ("kept_fraction", "mass_fraction"):
        found = sum(getattr(parts[name], key) for name in "abcd")
        assert getattr(shares["listening"], key) == pytest.approx(found)
        assert getattr(shares["suggesting"], key) == pytest.approx(getattr(parts["suggesting"], key))


def test_the_vectors_of_the_second_recipe_are_held_against_each_other(grown: Bot) -> None:
    names = [term.name for term in grown.repo.vectors.values()]
    alphas = {"listening": np.float32(0.7), "suggesting": np.float32(-0.5)}
    base = np.concatenate([values(grown.base[name]).ravel() for name in SHAPES])
    taus = {
        name: np.concatenate([values(grown.tunes[name][tensor]).ravel() for tensor in SHAPES]) - base
        for name in names
    }
    one, other = (taus[name] for name in names)
    w = {name: (alphas[name] * taus[name].astype(np.float32)).astype(np.float64) for name in names}
    elected = np.sign(sum(w.values()))
    found = grown.repo.diff_weights("HEAD~1", "HEAD")
    (pair,) = found.pairs
    both = (one != 0) & (other != 0)
    assert pair.vectors == tuple(names)
    assert pair.cosine == pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    assert pair.shared_fraction == np.count_nonzero(both) / base.size
    assert pair.conflict_fraction == np.count_nonzero(both & (one * other > 0)) / np.count_nonzero(both)
    mass = {name: abs(w[name]).sum() for name in names}
    lost = {name: abs(w[name][np.sign(w[name]) != elected]).sum() for name in names}
    for share in found.vectors:
        assert share.kept_fraction == np.count_nonzero(taus[share.name]) / base.size
        assert share.mass_fraction == pytest.approx(mass[share.name] / sum(mass.values()))
        assert share.lost_fraction == pytest.approx(lost[share.name] / mass[share.name])
    assert found.lost_fraction == pytest.approx(sum(lost.values()) / sum(mass.values()))


def test_no_revision_means_the_work_tree(grown: Bot) -> None:
    assert grown.repo.diff_weights().size.changed == 0
    grown.repo.recipe.set("listening", alpha="0.1")
    assert grown.repo.diff_weights().size.changed > 0
    assert grown.repo.diff_weights("HEAD~1").size.changed > 0


def test_going_back_changes_the_same_weights(grown: Bot) -> None:
    there, back = grown.repo.diff_weights("HEAD~3..HEAD"), grown.repo.diff_weights("HEAD", "HEAD~3")
    assert there.size.changed == back.size.changed
    assert there.size.l2 == back.size.l2
    assert back.vectors == back.pairs == ()
    assert back.lost_fraction is None


def test_a_comparison_writes_no_weights(grown: Bot) -> None:
    before = grown.checkout()
    grown.repo.diff_weights("HEAD~3", "HEAD~1")
    assert same(before, grown.checkout())
    assert grown.repo.status().weights.state == "clean"


def test_a_vector_is_measured_by_layer(grown: Bot) -> None:
    found = grown.repo.vectors.statistics("listening")
    check_rows(found.layers, grown.base, grown.tunes["listening"])
    assert found.info == grown.repo.vectors["listening"]
    assert found.size.l2 == found.info.l2
    assert found.size.changed_fraction == found.info.changed_fraction
    assert found.provenance == ()


def test_a_layer_that_a_vector_leaves_alone_is_shown_as_such(bot: Bot) -> None:
    bot.commit(bot.tune("first", 5, only="layers.0"), "only the first layer")
    changed = [row.size.changed > 0 for row in bot.repo.vectors.statistics("first").layers]
    assert changed == [False, True, False, False]


def test_a_vector_says_what_densities_keep_of_it(grown: Bot) -> None:
    found = grown.repo.vectors.statistics("listening")
    assert [density for density, _ in found.kept] == [0.1, 0.2, 0.5]
    kept = [fraction for _, fraction in found.kept]
    assert kept == sorted(kept)
    grown.repo.recipe.set_rules({"density": "0.2"})
    (share, _) = sorted(grown.repo.diff_weights().vectors, key=lambda share: share.name)
    assert share.kept_fraction == kept[1]


def test_a_note_of_its_origin_is_shown(grown: Bot) -> None:
    id = grown.repo.vectors["listening"].id
    for about, trainer in ((id, "apollo"), ("0" * 63 + "1", "x")):
        keep(grown.repo._history, Note(about, "vector", "provenance", {"trainer": trainer}))
    assert grown.repo.vectors.statistics("listening").provenance == ({"trainer": "apollo"},)


def test_an_unknown_vector_has_no_statistics(grown: Bot) -> None:
    with pytest.raises(UnknownName):
        grown.repo.vectors.statistics("nobody")


def test_weights_that_are_not_finite_are_counted_and_left_out(grown: Bot) -> None:
    grown.repo.recipe.set("listening", alpha="3e38")
    grown.repo.recipe.set("suggesting", alpha="3e38")
    found = grown.repo.diff_weights()
    assert found.size.changed >= found.not_finite > 0
    assert np.isfinite(found.size.l2)


def test_json_has_the_same_rows(grown: Bot) -> None:
    shown = as_json(grown.repo.diff_weights("HEAD~1", "HEAD"))
    size = ["tensors", "elements", "changed", "changed_fraction", "l2", "relative_size"]
    rest = ["lost_fraction", "vectors", "pairs", "layers", "unmatched", "not_finite"]
    assert list(shown) == size + rest
    assert list(shown["layers"][0]) == ["stack", "layer", "module", *size, "lost_fraction", "pairs"]
    assert list(shown["pairs"][0]) == ["vectors", "cosine", "shared_fraction", "conflict_fraction"]
    shown = as_json(grown.repo.vectors.statistics("listening"))
    assert list(shown["layers"][0]) == ["stack", "layer", "module", *size]
