"""What a recipe gives back: the base, the fine-tune, the earlier bytes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from persona.errors import InvalidInput, PersonaError, Refused, SystemFault, UsageError
from persona.repository import Repository
from persona.store import files
from tests.checkpoints import bf16, digest_of, same, write_model
from tests.disks import Quick
from tests.history.bots import Bot, at, base_tensors, read_weights, tuned


def test_an_empty_recipe_is_the_base(bot: Bot) -> None:
    assert same(bot.checkout(), bot.base)


def test_a_lone_vector_is_the_fine_tune(bot: Bot) -> None:
    bot.commit(bot.tune("listening", 1))
    assert same(bot.checkout(), bot.tunes["listening"])


@pytest.mark.parametrize("gone", ["removed", "alpha 0"])
def test_without_its_vectors_the_recipe_is_the_base_again(grown: Bot, gone: str) -> None:
    for name in ("listening", "suggesting"):
        if gone == "removed":
            grown.repo.recipe.remove(name)
        else:
            grown.repo.recipe.set(name, alpha=0)
    assert same(grown.checkout(), grown.base)


def test_earlier_revisions_give_the_earlier_bytes(grown: Bot) -> None:
    assert same(grown.checkout("HEAD~2"), grown.tunes["listening"])
    assert same(grown.checkout("HEAD~1"), grown.base)
    assert grown.repo.head().branch is None


def test_revert_of_a_vector_gives_the_bytes_without_it(grown: Bot) -> None:
    grown.repo.recipe.set("listening", alpha=1)
    grown.commit()
    grown.repo.revert("suggesting")
    assert same(grown.checkout(), grown.tunes["listening"])


def test_all_digests_agree(grown: Bot) -> None:
    made = grown.repo.checkout()
    assert made.weights == grown.repo.digest().weights == grown.repo.digest("HEAD").weights
    assert made.weights == digest_of(read_weights(grown.root))
    assert grown.repo.digest().revision is None
    assert grown.repo.digest("HEAD").revision == grown.repo.resolve("HEAD")


def test_the_same_fine_tune_is_the_same_vector_under_any_name_order_and_repository(
    grown: Bot, tmp_path: Path
) -> None:
    Repository.init(tmp_path / "other", base=tmp_path / "tiny", author=at(), chunk=64)
    with Repository.open(tmp_path / "other", author=at(5)) as other:
        ids = {
            "a": other.commit(tmp_path / "suggesting", name="a", alpha=-0.5, message="x").vectors[0].id,
            "b": other.commit(tmp_path / "listening", name="b", alpha=0.7, message="y").vectors[0].id,
        }
        other.recipe.set("a", join="vote")
        other.commit(message="z")
        found = {vector.name: vector.id for vector in grown.repo.vectors.values()}
        assert (found["suggesting"], found["listening"]) == (ids["a"], ids["b"])
        assert other.digest().weights == grown.repo.digest().weights


def test_a_vector_removed_and_taken_again_has_its_id(grown: Bot) -> None:
    before = {vector.name: vector.id for vector in grown.repo.vectors.values()}
    grown.repo.recipe.remove("listening")
    grown.commit()
    again = grown.commit(grown.models / "listening", name="hearing", alpha=0.7)
    assert again.vectors[0].id == before["listening"]
    assert grown.repo.digest().weights == grown.repo.digest("HEAD~2").weights


def test_a_renamed_term_changes_no_bit_and_leaves_the_weights_clean(grown: Bot) -> None:
    grown.checkout()
    grown.repo.recipe.rename("listening", "hearing")
    grown.commit()
    assert grown.repo.status().weights.state == "clean"


def test_only_the_tensors_whose_inputs_changed_are_computed_again(grown: Bot) -> None:
    grown.repo.add(grown.tune("late", 3), only=["model.layers.1.*"])
    grown.checkout()
    grown.repo.recipe.set("late", alpha=0.25)
    made = grown.repo.checkout()
    assert (made.tensors_computed, made.tensors_reused) == (1, len(grown.base) - 1)
    assert made.weights == grown.repo.digest().weights == digest_of(read_weights(grown.root))


def test_a_checkout_of_what_is_there_writes_nothing(grown: Bot) -> None:
    grown.checkout()
    inode = (grown.root / "model.safetensors").stat().st_ino
    made = grown.repo.checkout()
    assert (made.tensors_computed, made.tensors_reused, made.bytes_written) == (0, len(grown.base), 0)
    assert (grown.root / "model.safetensors").stat().st_ino == inode


def tamper(path: Path, *, hide: bool) -> None:
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    if hide:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_reused_tensor_that_was_tampered_with_unseen_is_computed_again(grown: Bot) -> None:
    good = grown.checkout()
    tamper(grown.root / "model.safetensors", hide=True)
    made = grown.repo.checkout()
    assert made.tensors_computed == 1
    assert same(read_weights(grown.root), good)


def test_weights_edited_by_hand_are_not_overwritten_unless_forced(grown: Bot) -> None:
    good = grown.checkout()
    tamper(grown.root / "model.safetensors", hide=False)
    edited = read_weights(grown.root)
    head = grown.repo.head()
    with pytest.raises(Refused, match=r"(?s)model\.safetensors.*force=True"):
        grown.repo.checkout("HEAD~1")
    assert grown.repo.head() == head
    assert same(read_weights(grown.root), edited)
    assert same(grown.checkout(force=True), good)


def test_weights_that_nobody_checked_out_are_not_overwritten_unless_forced(bot: Bot) -> None:
    write_model(bot.root, bot.base)
    with pytest.raises(Refused, match=r"model\.safetensors"):
        bot.repo.checkout()
    assert same(bot.checkout(force=True), bot.base)


def test_a_touched_file_is_hashed_and_found_clean(grown: Bot) -> None:
    grown.checkout()
    os.utime(grown.root / "model.safetensors")
    assert grown.repo.status().weights.state == "clean"
    grown.checkout("HEAD~1")


def test_a_publication_cut_short_is_recognised_by_its_digest(
    grown: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    from persona.history.worktree import weights

    grown.checkout()

    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(weights, "settle", cut)
        with pytest.raises(KeyboardInterrupt):
            grown.repo.checkout("HEAD~2")
    assert grown.repo.status().weights.state == "clean"
    assert same(read_weights(grown.root), grown.tunes["listening"])
    assert not same(grown.checkout("main"), grown.tunes["listening"])


def test_weights_follow_a_vector_that_was_trained_on_a_mixture(grown: Bot) -> None:
    mixed = grown.checkout()
    trained = tuned(mixed, 9)
    path = write_model(grown.models / "onward", trained)
    result = grown.commit(path, onto="HEAD")
    rounding = result.vectors[0].largest_rounding
    assert rounding is not None
    assert grown.repo["HEAD"].recipe.vectors["onward"].join == "add"
    got = grown.checkout()
    for name, bits in trained.items():
        wanted, found = ((part.astype(np.uint32) << 16).view(np.float32) for part in (bits, got[name]))
        assert np.all(np.abs(wanted - found) <= 2 * rounding + np.abs(wanted) * 2**-7)


def test_the_work_tree_trained_in_place_can_be_taken_in(grown: Bot) -> None:
    mixed = grown.checkout()
    write_model(grown.root, tuned(mixed, 9))
    with pytest.raises(UsageError, match="onto"):
        grown.repo.add(grown.root, name="onward")
    change = grown.repo.add(grown.root, name="onward", onto="HEAD").vectors[0]
    assert change.change == "added"
    assert grown.repo.status().weights.state == "stale"
    grown.checkout()


def test_a_directory_below_the_work_tree_is_not_the_work_tree(bot: Bot) -> None:
    path = write_model(bot.root / "runs", tuned(bot.base, 1))
    assert bot.commit(path).vectors[0].name == "runs"


def test_a_commit_of_what_was_trained_onward_says_how_near_it_is(grown: Bot) -> None:
    path = write_model(grown.models / "onward", tuned(grown.checkout(), 9))
    notes = grown.commit(path, onto="HEAD").notes
    said = next(note for note in notes if "differs from the trained weights" in note)
    assert float(said.split()[-3]) < 1e-3


def test_out_writes_a_model_directory_and_moves_nothing(grown: Bot) -> None:
    head = grown.repo.head()
    out = grown.models / "out"
    made = grown.repo.checkout("HEAD~2", out=out)
    assert same(read_weights(out), grown.tunes["listening"])
    assert sorted(path.name for path in out.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "persona.json",
    ]
    assert made.weights == digest_of(read_weights(out))
    assert grown.repo.head() == head
    assert grown.repo.status().weights.state == "absent"


def test_out_in_another_dtype_says_the_digest_of_what_it_wrote(grown: Bot) -> None:
    out = grown.models / "out"
    (grown.root / "config.json").write_text('{"dtype": "bfloat16"}')
    made = grown.repo.checkout(out=out, dtype="float32")
    data = (out / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} == {"F32"}
    wide = {}
    for name, bits in grown.checkout().items():
        wide[name] = bits.astype(np.uint32) << 16
    assert made.weights == digest_of(wide)
    assert json.loads((out / "config.json").read_text())["dtype"] == "float32"


def test_numbers_too_large_for_the_dtype_asked_for_stop_the_output(bot: Bot) -> None:
    huge = {name: bits.copy() for name, bits in bot.base.items()}
    huge["model.norm.weight"][:2] = bf16(np.array([1e9, -1e9]))
    bot.commit(write_model(bot.models / "huge", huge), "huge")
    out = bot.models / "out"
    with pytest.raises(InvalidInput, match=r"norm\.weight: at least 2 elements are too large for float16"):
        bot.repo.checkout(out=out, dtype="float16")
    assert list(out.iterdir()) == []
    bot.repo.checkout(out=out, dtype="float16", allow_nonfinite=True)
    assert read_weights(out)["model.norm.weight"][:2].tolist() == [0x7C00, 0xFC00]


def test_shards_are_written_and_left_again(grown: Bot) -> None:
    made = grown.repo.checkout(max_shard_size=300)
    assert len(made.files) > 2
    assert "model.safetensors.index.json" in made.files
    assert not (grown.root / "model.safetensors").exists()
    assert grown.repo.status().weights.state == "clean"
    grown.repo.checkout("HEAD~1")
    assert [path.name for path in grown.root.glob("*safetensors*")] == ["model.safetensors"]


def test_materialise_gives_arrays_that_know_their_dtype(grown: Bot) -> None:
    wanted = grown.checkout("HEAD~2")
    found = dict(grown.repo.tensors("HEAD"))
    assert same({name: np.asarray(array) for name, array in found.items()}, wanted)
    assert {array.tensor_dtype for array in found.values()} == {"BF16"}


def test_materialise_keeps_the_order_of_names_with_empty_tensors_among_them(tmp_path: Path) -> None:
    tensors = base_tensors() | {"model.layers.empty": np.empty((0, 4), np.uint16)}
    write_model(tmp_path / "model", tensors)
    Repository.init(tmp_path / "model", author=at(), chunk=64)
    with Repository.open(tmp_path / "model") as repo:
        found = dict(repo.tensors())
        assert list(found) == sorted(tensors)
        assert same(found, tensors)
        first, array = next(repo.tensors(threads=2))
        assert np.array_equal(array, tensors[first])


def test_materialise_gives_torch_tensors_on_request(bot: Bot) -> None:
    import torch

    found = dict(bot.repo.tensors("HEAD", torch=True))
    assert found["model.norm.weight"].dtype == torch.bfloat16
    assert np.array_equal(
        found["model.norm.weight"].view(torch.uint16).numpy(), bot.base["model.norm.weight"]
    )


def test_in_a_model_directory_init_takes_that_model_and_its_weights_are_clean(tmp_path: Path) -> None:
    base = base_tensors()
    write_model(tmp_path / "model", base)
    Repository.init(tmp_path / "model", author=at(), chunk=64)
    with Repository.open(tmp_path / "model", author=at(1)) as repo:
        assert repo.status().weights.state == "clean"
        assert same(read_weights(repo.root), base)
        repo.commit(write_model(tmp_path / "ft", tuned(base, 1)), message="x")
        assert repo.status().weights.state == "stale"
        repo.checkout()
        assert same(read_weights(repo.root), tuned(base, 1))


def test_weights_behind_links_are_read_and_the_links_survive_nothing_else(tmp_path: Path) -> None:
    base = base_tensors()
    blobs = write_model(tmp_path / "blobs", base)
    model = tmp_path / "snapshot"
    model.mkdir()
    for name in ("model.safetensors", "config.json"):
        (model / name).symlink_to(blobs / name)
    Repository.init(model, author=at(), chunk=64)
    with Repository.open(model, author=at(1)) as repo:
        repo.commit(write_model(tmp_path / "ft", tuned(base, 1)), message="x")
        repo.checkout()
        assert same(read_weights(model), tuned(base, 1))
    assert same(read_weights(blobs), base)


@pytest.mark.parametrize("bad", ["cuda", "tpu"])
def test_another_device_is_answered_with_a_sentence(bot: Bot, bad: str) -> None:
    with pytest.raises(PersonaError, match=r"auto"):
        bot.repo.checkout(device=bad)


def test_weights_that_are_not_finite_stop_the_checkout(grown: Bot) -> None:
    grown.repo.recipe.set("listening", alpha="3e38")
    grown.repo.recipe.set_rules({"preset": "linear", "lambda": "3e38"})
    with pytest.raises(InvalidInput, match="finite"):
        grown.repo.checkout()
    assert not list(grown.root.glob("*safetensors*"))
    assert [path for path in grown.root.iterdir() if path.name.startswith(".persona-")] == []
    made = grown.repo.checkout(allow_nonfinite=True)
    assert any("not finite" in note for note in made.notes)


def test_every_error_is_of_the_tree(bot: Bot) -> None:
    with pytest.raises(PersonaError):
        bot.repo.checkout("nothing")


def test_weights_that_have_no_room_are_refused_before_they_are_computed(grown: Bot) -> None:
    class Full(Quick):
        def free(self, directory: Path) -> int | None:
            return 100

    before, asked = sorted(grown.root.iterdir()), []
    with files.replaced_calls(Full()), pytest.raises(SystemFault, match="100 are free"):
        grown.repo.checkout("HEAD~1", progress=lambda *_: asked.append(1))
    assert asked == []
    assert sorted(grown.root.iterdir()) == before
    assert grown.repo.head().branch == "main"
