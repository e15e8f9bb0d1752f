"""`--onto HEAD`: a correction trained on top of a mixture, whatever the mixture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.checkpoints import Model, write_weights
from tests.llamas import DTYPES, MANTISSA_BITS, LlamaBot, a_few_ulps, fine_tune, floats


def spacing(dtype: str, *values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The distance between neighbours of the dtype at the largest of the values."""
    lowest = {"F16": -14}.get(dtype, -126)
    largest = np.max([np.abs(value) for value in values], axis=0)
    exponent = np.maximum(np.floor(np.log2(np.maximum(largest, 2.0**lowest))), lowest)
    return np.asarray(2.0 ** (exponent - MANTISSA_BITS[dtype]))


def within_about_one_rounding(found: Model, trained: Model, mixture: Model, base: Model) -> bool:
    """Whether `found` is `trained` but for three halves of a spacing: of the mixture, of the stored element
    and of the sum, each rounded once.
    """
    for name, tensor in trained.items():
        out, after, before, b = (floats(model[name]) for model in (found, trained, mixture, base))
        stored = b + (after - before)
        if np.any(np.abs(out - after) > 1.5 * spacing(tensor.dtype, out, after, before, b, stored)):
            return False
    return True


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_was_trained_on_a_mixture_comes_back_within_about_one_rounding(
    begin: Callable[..., LlamaBot], dtype: str
) -> None:
    bot = begin(dtype=dtype)
    for seed, name in enumerate(("one", "two", "three"), 1):
        bot.tune(name, seed)
        bot.run.ok("commit", f"../{name}", "--alpha", str(0.4 * seed), "-m", name)
    bot.run.ok("set", "--merge", "density=0.3")
    bot.run.ok("commit", "-m", "trim")
    bot.checkout()
    mixture = bot.weights
    trained = a_few_ulps(mixture, 9)
    fine_tune(bot.place / "base", bot.place / "more", trained)
    made = bot.run.json("commit", "../more", "--onto", "HEAD", "-m", "more")
    assert made["vectors"][0]["largest_rounding"] >= 0
    assert bot.run.json("log")[0]["recipe"]["vectors"]["more"]["join"] == "add"
    bot.checkout()
    assert within_about_one_rounding(bot.weights, trained, mixture, bot.base)
    bot.run.ok("revert", "more")
    bot.checkout()
    assert bot.holds(mixture)


def test_the_work_tree_trained_in_place_is_taken_in_and_its_weights_are_kept(grown: LlamaBot) -> None:
    grown.checkout()
    mixture = grown.weights
    trained = a_few_ulps(mixture, 9)
    write_weights(grown.root, trained)
    assert grown.run.json("status")["weights"]["state"] == "edited"
    assert "--onto" in grown.run.refused(2, "commit", ".", "-m", "more")
    grown.run.ok("commit", str(grown.root), "-n", "more", "--onto", "HEAD", "-m", "more")
    grown.checkout("-f")
    assert within_about_one_rounding(grown.weights, trained, mixture, grown.base)
    grown.run.ok("checkout", "HEAD~1")
    assert grown.holds(mixture)


def test_onto_the_base_is_no_other_than_a_plain_commit(grown: LlamaBot) -> None:
    plain = {vector["name"]: vector["id"] for vector in grown.run.json("vector", "ls")}["one"]
    made = grown.run.json("commit", "../one", "-n", "again", "--onto", "base", "-m", "again")
    assert made["vectors"][0]["id"] == plain
    first = grown.run.ok("rev-parse", "HEAD~4").strip()
    made = grown.run.json("commit", "../one", "-n", "onto", "--onto", first, "-m", "onto the first commit")
    assert made["vectors"][0]["id"] == plain
