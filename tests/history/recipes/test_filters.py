"""A filter of tensor names that reaches nothing is refused wherever a recipe is taken in."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from persona.errors import InvalidInput
from persona.history.recipes.filters import problem
from persona.objects.recipe import Term
from tests.history.bots import Bot

LLAMA = [
    "lm_head.weight",
    "model.embed_tokens.weight",
    *(
        f"model.layers.{layer}.{part}.weight"
        for layer in range(12)
        for part in (
            "mlp.up_proj",
            "mlp.down_proj",
            "self_attn.q_proj",
            "self_attn.k_proj",
            "input_layernorm",
        )
    ),
    "model.norm.weight",
]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("layers.0.*", r"perhaps 'model\.layers\.0\.\*'"),
        ("self_attn", r"perhaps '\*self_attn\*'"),
        ("model.layers.3", r"perhaps 'model\.layers\.3\.\*'"),
        ("q_proj.weight", r"perhaps '\*\.q_proj\.weight'"),
        ("attn.q", r"perhaps '\*attn\.q\*'"),
        (r"model\.layers\.\d+\.mlp\..*", r"regular expression.*perhaps 'model\.layers\.\*\.mlp\.\*'"),
        ("^model.layers.0.*$", r"regular expression.*perhaps 'model\.layers\.0\.\*'"),
        ("self_attn|mlp", r"regular expression.*perhaps '\*self_attn\*'"),
        (".*mlp.*", r"regular expression.*perhaps '\*mlp\*'"),
        (r"model\.layers\.\d{1,2}\.mlp.*", "regular expression"),
        ("(?=x)", "regular expression"),
        ("model.layers.{0,1}.*", r"Braces.*'model\.layers\.0\.\*', 'model\.layers\.1\.\*'"),
        ("*q_proj*,*k_proj*", r"each: '\*q_proj\*', '\*k_proj\*'"),
        ("!*norm*", r"no negation; `except` takes tensors out: '\*norm\*'"),
        ("nothing.like.it", r"names look like model\.layers\.0\.mlp\.up_proj\.weight$"),
    ],
)
@pytest.mark.parametrize("key", ["only", "except"])
def test_a_glob_without_a_match_says_what_it_was_meant_to_be(pattern: str, said: str, key: str) -> None:
    term = Term("x", "0" * 64, **{"only" if key == "only" else "except_": (pattern,)})  # type: ignore[arg-type]
    found = problem(term, LLAMA)
    assert found is not None
    assert found[0] == key
    assert re.search(f"matches none of {len(LLAMA)} tensors.*{said}", found[1], re.IGNORECASE), found[1]


def test_every_glob_has_to_match_and_the_filter_has_to_leave_something() -> None:
    def said(only: tuple[str, ...], except_: tuple[str, ...] = ()) -> tuple[str, str] | None:
        return problem(Term("x", "0" * 64, only=only, except_=except_), LLAMA)

    assert said(("*mlp*",), ("*.1?.*",)) is None
    found = said(("*mlp*", "*mpl*"))
    assert found is not None
    assert found[0] == "only"
    assert "*mpl*" in found[1]
    found = said(("*mlp*",), ("model.*",))
    assert found is not None
    assert found[0] == "except"
    assert "leaves none" in found[1]


@pytest.mark.parametrize(
    ("pattern", "said", "right"),
    [
        ("model.layers.[^0].*", r"write \[!…\] for any", "model.layers.[!0].*"),
        ("model.layers.[^x].*", r"write \[!…\] for any", "model.layers.[!x].*"),
        ("*[^0-9]", r"write \[!…\] for any", "*[!0-9]"),
        ("model.layers.[01.*", r"without a '\]'; write \[01\]", "model.layers.[01].*"),
        ("model.layers.[9-0].*", "write 0-9", "model.layers.[0-9].*"),
        ("model.layers.[0-4-9].*", r"first: \[-0-4\]", "model.layers.[-0-49].*"),
    ],
)
def test_a_glob_that_reads_in_two_ways_is_refused_even_if_it_matches(
    grown: Bot, pattern: str, said: str, right: str
) -> None:
    for key in ("only", "except_"):
        with pytest.raises(InvalidInput, match=rf"^{key}: .*{said}"):
            grown.repo.recipe.set("listening", **{key: pattern})  # type: ignore[arg-type]
    grown.repo.recipe.set("listening", only=right)


def test_a_filter_is_refused_before_a_fine_tune_is_read(grown: Bot) -> None:
    path = grown.tune("late", 5)
    for key in ("only", "except_"):
        with pytest.raises(InvalidInput, match=rf"^{key}: "):
            grown.repo.add(path, **{key: "nope.*"})  # type: ignore[arg-type]
    assert {vector.name for vector in grown.repo.vectors.values()} == {"listening", "suggesting"}


def edited(bot: Bot) -> None:
    bot.edit(lambda text: text.replace("[vectors.listening]", '[vectors.listening]\nonly = ["layers.0.*"]'))


@pytest.mark.parametrize(
    "take",
    [
        lambda bot: bot.repo.add(bot.tune("late", 5), only="layers.0.*"),
        lambda bot: bot.commit(bot.tune("late", 5), only=["model.*", "layers.0.*"]),
        lambda bot: bot.repo.recipe.set("listening", except_="layers.0.*"),
        lambda bot: bot.repo.recipe.set("listening", only="model.norm.weight", except_=["model.*"]),
    ],
)
def test_no_call_takes_a_filter_that_matches_nothing(grown: Bot, take: Callable[[Bot], object]) -> None:
    before, head = grown.recipe.read_bytes(), grown.repo.head()
    with pytest.raises(InvalidInput, match=r"^(only|except_): .*none of 4 tensors"):
        take(grown)
    assert (grown.recipe.read_bytes(), grown.repo.head()) == (before, head)


@pytest.mark.parametrize(
    "take",
    [
        lambda bot: bot.commit(),
        lambda bot: bot.checkout(),
        lambda bot: bot.repo.checkout(out=bot.models / "out"),
        lambda bot: bot.repo.digest(),
        lambda bot: bot.repo.diff_weights(),
        lambda bot: dict(bot.repo.tensors()),
        lambda bot: bot.repo.recipe.set("suggesting", alpha=1),
    ],
)
def test_an_edit_by_hand_is_refused_with_its_line(grown: Bot, take: Callable[[Bot], object]) -> None:
    edited(grown)
    line = 1 + grown.recipe.read_text().split("\n").index('only = ["layers.0.*"]')
    with pytest.raises(InvalidInput, match=rf"^recipe\.toml:{line}: vectors\.listening\.only: .*none of 4"):
        take(grown)
    grown.repo.status()
    grown.repo.recipe.set("listening", only="")
    grown.repo.digest()


def test_history_that_holds_such_a_filter_can_be_gone_back_to(
    grown: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited(grown)
    with monkeypatch.context() as patch:
        patch.setattr("persona.history.recipes.filters.problem", lambda *_: None)
        old = grown.commit(message="as an older version took it").id
    grown.repo.recipe.set("listening", only="model.layers.0.*")
    grown.commit()
    assert old is not None
    assert len(list(grown.repo.log())) == 6
    assert grown.repo.diff(old).vectors
    grown.repo.digest(old)
    grown.repo.switch(old, detach=True)
    grown.repo.digest()
    grown.repo.recipe.set("suggesting", alpha="0.1")
    grown.commit()
    grown.repo.reset(old, "hard")
    with pytest.raises(InvalidInput, match="matches none"):
        grown.repo.recipe.set("listening", only=["layers.1.*"])


def test_one_glob_is_a_filter_of_one_glob(grown: Bot) -> None:
    grown.repo.recipe.set("listening", only="model.layers.*", except_=np.str_("*.1.*"))
    grown.commit(grown.tune("late", 5), only="model.embed*")
    vectors = grown.repo["HEAD"].recipe.vectors
    assert list(vectors["listening"].only) == ["model.layers.*"]
    assert list(vectors["listening"].except_) == ["*.1.*"]
    assert list(vectors["late"].only) == ["model.embed*"]


@pytest.mark.parametrize("value", [b"model.*", 3, [b"model.*"], ["model.*", ""], [None]])
def test_what_is_no_glob_is_refused_by_the_name_of_its_parameter(grown: Bot, value: object) -> None:
    for parameter in ("only", "except_"):
        with pytest.raises(InvalidInput, match=f"^{parameter}: "):
            grown.repo.recipe.set("listening", **{parameter: value})  # type: ignore[arg-type]


# -- densities, numbers, names


def test_the_density_of_a_vector_is_taken_back(grown: Bot) -> None:
    before = grown.recipe.read_bytes()
    grown.repo.recipe.set("listening", density=np.float64(0.5))
    grown.commit()
    with pytest.raises(
        InvalidInput, match=r"(?s)listening\.density.*recipe\.set\('listening', density='default'\)"
    ):
        grown.repo.recipe.set_rules({"preset": "linear"})
    grown.repo.recipe.set("listening", density="default")
    assert grown.recipe.read_bytes() == before
    grown.repo.recipe.set_rules({"preset": "linear"})
    with pytest.raises(InvalidInput, match=r"^density: under trim = none"):
        grown.repo.recipe.set("listening", density=0.5)


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), np.array(0.5)])
def test_numbers_of_numpy_are_taken(grown: Bot, number: float) -> None:
    grown.repo.recipe.set("listening", alpha=number, density=number)
    grown.repo.recipe.set_rules({"lambda": number, "density": number})
    grown.commit(grown.tune("late", 5), alpha=np.int64(2), density=number)
    recipe = grown.repo["HEAD"].recipe
    assert (recipe.vectors["listening"].alpha, recipe.vectors["listening"].density) == (0.5, 0.5)
    assert (recipe.vectors["late"].alpha, recipe.rules["lambda"]) == (2, 0.5)


@pytest.mark.parametrize("value", [True, np.True_, b"1", [[1]], [b"1"], {1: 2}, 1j])
def test_what_is_no_number_is_refused_by_the_name_of_its_parameter(grown: Bot, value: object) -> None:
    for parameter in ("alpha", "density"):
        with pytest.raises(InvalidInput, match=f"^{parameter}: not a number"):
            grown.repo.recipe.set("listening", **{parameter: value})  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"^lambda: not a number"):
        grown.repo.recipe.set_rules({"lambda": value})  # type: ignore[dict-item]
