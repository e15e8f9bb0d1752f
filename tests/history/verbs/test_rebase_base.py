"""A recipe moves onto another base and back: its vectors keep their changes, within a rounding each way."""

from __future__ import annotations

import numpy as np
import pytest

from persona.errors import InvalidInput, Refused
from persona.merge.arithmetic.casts import widen
from persona.repository import Repository
from tests.checkpoints import bf16, write_model
from tests.history.bots import SHAPES, Bot, Tensors, each_cut, seeded


def other_base(bot: Bot, scale: float = 0.003, seed: int = 7) -> Tensors:
    """The base after a training of its own: every weight a little away."""
    rng = seeded(seed)
    return {
        name: bf16(widen(bits, "BF16") + rng.normal(0, scale, SHAPES[name]))
        for name, bits in bot.base.items()
    }


def wide(bits: np.ndarray) -> np.ndarray:
    return np.asarray(widen(bits, "BF16"))


def alone(bot: Bot, name: str, rev: str = "HEAD") -> Tensors:
    """The fine-tune that a vector is on its base."""
    repo = bot.repo
    repo.switch(rev, detach=True)
    for other in list(repo.recipe):
        if other != name:
            repo.recipe.remove(other)
    repo.recipe.set(name, alpha="1")
    repo.recipe.set_rules({"preset": "ties"})
    found = bot.checkout(force=True)
    repo.reset("HEAD", mode="hard")
    repo.switch("main")
    return found


def test_each_fine_tune_is_the_new_base_and_its_changes_rounded(grown: Bot) -> None:
    other = other_base(grown)
    moved = grown.repo.rebase_base(write_model(grown.models / "other", other))
    assert (moved.base_name, moved.commit.subject) == ("other", "Move to the base other")
    largest = 0.0
    for name in ("listening", "suggesting"):
        found = alone(grown, name)
        for tensor, bits in grown.base.items():
            tuned, new = wide(grown.tunes[name][tensor]), wide(other[tensor])
            exact = new + (tuned - wide(bits))
            same = grown.tunes[name][tensor] == bits
            assert np.array_equal(found[tensor][same], other[tensor][same])
            assert np.abs(wide(found[tensor]) - exact).max() <= np.abs(exact).max() * 2.0**-8
            largest = max(largest, float(np.abs(wide(found[tensor]) - exact)[~same].max(initial=0)))
    assert moved.largest_rounding == pytest.approx(largest)
    assert moved.largest_rounding == max(one.largest_rounding for one in moved.moved)


def test_there_and_back_is_within_the_two_roundings_that_are_reported(grown: Bot) -> None:
    before = {name: alone(grown, name) for name in ("listening", "suggesting")}
    recipe = grown.repo["HEAD"].recipe
    there = grown.repo.rebase_base(write_model(grown.models / "other", other_base(grown)))
    back = grown.repo.rebase_base("tiny")
    assert grown.repo["HEAD"].recipe.base == recipe.base
    for name, tuned in before.items():
        rounding = sum(
            one.largest_rounding for move in (there, back) for one in move.moved if one.name == name
        )
        found = alone(grown, name)
        for tensor, bits in tuned.items():
            assert np.abs(wide(found[tensor]) - wide(bits)).max() <= rounding
            unit = np.abs(wide(bits)).max() * 2.0**-8
            assert rounding <= 2 * unit or tensor != "model.embed.weight"


def test_names_alphas_and_rules_stay_and_notes_name_the_old_vectors(grown: Bot) -> None:
    grown.repo.recipe.set_rules({"density": "0.5"})
    grown.repo.recipe.set("listening", only="*.mlp.*")
    grown.edit(lambda text: "# my bot\n" + text)
    grown.commit(message="half")
    before = grown.repo["HEAD"].recipe
    moved = grown.repo.rebase_base(
        write_model(grown.models / "other", other_base(grown)), message="onto other"
    )
    after = grown.repo["HEAD"].recipe
    assert grown.recipe.read_text().startswith("# my bot\n")
    assert (after.rules, set(after.vectors)) == (before.rules, set(before.vectors))
    for name, old in before.vectors.items():
        new = after.vectors[name]
        assert (new.alpha, new.density, new.only, new.join) == (old.alpha, old.density, old.only, old.join)
        assert new.id != old.id
        (note,) = [one for one in grown.repo.vectors.statistics(name).provenance if "rebased" in one]
        assert note["rebased"] == old.id
    assert moved.commit.subject == "onto other"
    assert grown.repo.fsck(full=True).ok
    assert grown.repo.blame().vectors["listening"]["id"].subject == "onto other"


def test_old_commits_keep_their_weights(grown: Bot) -> None:
    digest = grown.repo.digest("HEAD").weights
    grown.repo.rebase_base(write_model(grown.models / "other", other_base(grown)))
    assert grown.repo.digest("HEAD~1").weights == digest
    assert grown.repo.digest("HEAD").weights != digest


def test_unedited_files_become_those_of_the_new_base(grown: Bot) -> None:
    other = write_model(
        grown.models / "other", other_base(grown), **{"chat_template.jinja": "hey\n", "new.txt": "new\n"}
    )
    grown.repo.rebase_base(other)
    assert (grown.root / "chat_template.jinja").read_text() == "hey\n"
    assert (grown.root / "new.txt").read_text() == "new\n"
    (grown.root / "chat_template.jinja").write_text("mine\n")
    grown.commit(message="mine")
    moved = grown.repo.rebase_base("tiny")
    assert (grown.root / "chat_template.jinja").read_text() == "mine\n"
    assert not (grown.root / "new.txt").exists()
    assert any("kept as edited: chat_template.jinja" in note for note in moved.notes)


def test_expression_stays_the_same_sum(grown: Bot) -> None:
    grown.repo.vectors.derive("less", "listening - 0.5 * suggesting")
    grown.commit(message="less")
    moved = grown.repo.rebase_base(write_model(grown.models / "other", other_base(grown)))
    ids = {one.name: one.id for one in moved.moved}
    parts = {part["id"]: part["coefficient"] for part in grown.repo.vectors["less"].parts}
    assert parts == {ids["listening"]: "1", ids["suggesting"]: "-0.5"}
    assert grown.repo.fsck(full=True).ok


def test_base_of_other_tensors_or_the_same_weights_is_refused(grown: Bot) -> None:
    before = grown.recipe.read_bytes()
    other = other_base(grown)
    short = {**other, "model.norm.weight": other["model.norm.weight"][:5]}
    with pytest.raises(InvalidInput, match=r"model.norm.weight. is BF16 \[5\], and BF16 \[10\]"):
        grown.repo.rebase_base(write_model(grown.models / "short", short))
    del short["model.norm.weight"]
    with pytest.raises(InvalidInput, match=r"has no tensor .model.norm.weight"):
        grown.repo.rebase_base(write_model(grown.models / "fewer", short))
    with pytest.raises(Refused, match="has the weights of this recipe's base already"):
        grown.repo.rebase_base(write_model(grown.models / "same", grown.base))
    with pytest.raises(Refused, match="another base is named tiny"):
        grown.repo.rebase_base(write_model(grown.models / "other", other), name="tiny")
    grown.repo.recipe.set("listening", alpha="0.1")
    with pytest.raises(Refused, match="uncommitted edits"):
        grown.repo.rebase_base(grown.models / "other")
    grown.repo.reset("HEAD", mode="hard")
    assert grown.recipe.read_bytes() == before


def test_recipe_without_vectors_moves_too(bot: Bot) -> None:
    other = other_base(bot)
    moved = bot.repo.rebase_base(write_model(bot.models / "other", other))
    assert (moved.moved, moved.largest_rounding) == ((), 0.0)
    found = bot.checkout()
    assert all(np.array_equal(found[name], bits) for name, bits in other.items())


def test_move_that_is_cut_short_can_be_made_again(bot: Bot) -> None:
    bot.commit(bot.tune("calm", 3, only="norm"), "calm")
    bot.repo.rebase_base(write_model(bot.models / "other", other_base(bot)))
    bot.repo.rebase_base("tiny", message="back")
    root = bot.root
    bot.repo.close()

    def check(repo: Repository) -> None:
        if repo["HEAD"].subject == "back":
            repo.reset("HEAD", mode="hard")  # it may have been cut while files were written
            repo.rebase_base("other")
        assert repo["HEAD"].subject == "Move to the base other"
        assert repo.diff().empty

    assert each_cut(root, lambda repo: repo.rebase_base("other"), check) > 10
