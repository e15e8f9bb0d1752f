"""Names, order and repository change no bit; what is taken away leaves nothing behind."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

import numpy as np
import pytest

from tests.checkpoints import digest_of_files
from tests.llamas import DTYPES, LlamaBot, a_few_ulps, fine_tune, floats, nasty


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_vector_removed_or_at_alpha_0_is_the_base(begin: Callable[..., LlamaBot], dtype: str) -> None:
    base, tuned = nasty(begin("first", dtype=dtype).base, seed=1, overflowing=False)
    bot = begin(weights=base, dtype=dtype, shards=2)
    fine_tune(bot.place / "base", bot.place / "one", tuned)
    bot.tune("two", 2)
    bot.run.ok("commit", "../one", "--alpha", "0", "-m", "one")
    bot.run.ok("commit", "../two", "--alpha", "-0", "-m", "two")
    bot.checkout()
    assert bot.holds(base)
    bot.run.ok("set", "one", "--alpha", "1")
    bot.checkout()
    for name, tensor in bot.weights.items():  # a vector at 0 takes nothing from one at 1
        assert np.array_equal(floats(tensor), floats(tuned[name]), equal_nan=True)
    bot.run.ok("rm", "one", "two")
    assert bot.checkout()["weights"] == digest_of_files(bot.place / "base")
    assert bot.holds(base)


def test_a_vector_is_the_same_under_any_name_in_any_order_anywhere(begin: Callable[..., LlamaBot]) -> None:
    seen = set()
    for number, order in enumerate(itertools.permutations(["a", "b", "c"])):
        bot = begin(f"place{number}", shards=1 + number % 3)
        for seed, word in enumerate("abc"):
            bot.tune(f"tune {word}", seed, shards=1 + (number + seed) % 2)
        for word in order:
            alpha = {"a": "1", "b": "-0.5", "c": "0.25"}[word]
            bot.run.ok("commit", f"../tune {word}", "-n", f"{word}{number}", "--alpha", alpha, "-m", word)
        ids = {vector["name"][0]: vector["id"] for vector in bot.run.json("vector", "ls")}
        seen.add((ids["a"], ids["b"], ids["c"], bot.checkout()["weights"]))
    assert len(seen) == 1


def test_removed_and_added_again_under_another_name_it_is_the_same_vector(grown: LlamaBot) -> None:
    before = grown.checkout()["weights"]
    ids = {vector["name"]: vector["id"] for vector in grown.run.json("vector", "ls")}
    grown.run.ok("revert", "one")
    assert grown.checkout()["weights"] != before
    made = grown.run.json("commit", "../one", "-n", "eins", "-m", "again")
    assert [(vector["id"], vector["change"]) for vector in made["vectors"]] == [(ids["one"], "added")]
    assert grown.run.json("digest")["weights"] == before
    assert grown.checkout()["weights"] == before


def test_a_renamed_term_is_neither_computed_nor_another_digest(grown: LlamaBot) -> None:
    before = grown.checkout()["weights"]
    grown.run.ok("mv", "one", "one.more")
    grown.run.ok("commit", "-m", "a better name")
    result = grown.checkout()
    assert (result["weights"], result["tensors_computed"], result["bytes_written"]) == (before, 0, 0)


def test_the_order_of_the_terms_in_the_text_changes_no_bit(grown: LlamaBot) -> None:
    before = grown.run.json("digest")["weights"]
    text = grown.recipe.read_text()
    head, *blocks = re.split(r"(?m)^(?=\[vectors)", text)
    grown.recipe.write_text(head + "\n".join(block.strip("\n") + "\n" for block in reversed(blocks)))
    assert [change["name"] for change in grown.run.json("diff")["vectors"]] == []
    assert grown.run.json("digest")["weights"] == before


def test_three_sums_by_hand_are_the_weights(grown: LlamaBot) -> None:
    grown.run.ok("set", "--merge", "preset=linear")
    grown.checkout()
    base, found = grown.base, grown.weights
    tunes = [a_few_ulps(base, seed) for seed in (1, 2, 3)]
    order = {vector["name"]: n for n, vector in enumerate(grown.run.json("vector", "ls"))}
    terms = sorted(
        zip(("one", "two", "three"), (1.0, -0.5, 1.0), tunes, strict=True), key=lambda t: order[t[0]]
    )
    for name, tensor in base.items():
        total = np.zeros(tensor.bits.shape, np.float32)
        for word, alpha, tune in terms:
            if word != "three" or name.startswith("model.layers.1."):
                total += np.float32(alpha) * (floats(tune[name]) - floats(tensor)).astype(np.float32)
        bits = (floats(tensor).astype(np.float32) + total).view(np.uint32).astype(np.uint64)
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        changed = total != 0
        assert np.array_equal(found[name].bits[changed], rounded[changed])
        assert np.array_equal(found[name].bits[~changed], tensor.bits[~changed])
