"""A text of a recipe can be edited to mean any other recipe, whatever names its vectors have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from persona.history.recipes import text as recipe_text
from persona.history.recipes.three_way import Names, with_meaning
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import Rules

BASE = "b" * 64
TERMS = st.builds(
    Term,
    name=st.sampled_from(["a", "b", "a-2", "a b", "b.c"]),
    vector=st.sampled_from(["1" * 64, "2" * 64, "3" * 64]),
    alpha=st.sampled_from(["1", "0.5"]),
    join=st.sampled_from(["vote", "add"]),
)
RECIPES = st.lists(TERMS, max_size=4, unique_by=lambda term: term.name).map(
    lambda terms: Recipe.of(BASE, terms, Rules.of())
)


def read_recipe(data: bytes) -> Recipe:
    """The recipe of a text, in which every id is whole and the base has one name."""
    return recipe_text.parse(data, base=lambda _: BASE, vector=lambda id: id)


def text(recipe: Recipe, *, inline: bool) -> str:
    """A text of a recipe, with a comment at each vector; its vectors are tables of lines, or inline."""
    lines = ['base = "tiny"', "[vectors]"]
    for term in recipe.terms:
        keys = [f'id = "{term.vector}"', f"alpha = {term.alpha}", f'join = "{term.join}"']
        if inline:
            lines.append(f'"{term.name}" = {{ {", ".join(keys)} }}  # {term.vector[0]}')
        else:
            lines += [f"# {term.vector[0]}", f'[vectors."{term.name}"]', *keys]
    return "\n".join([*lines, ""])


@given(RECIPES, RECIPES, st.booleans())
def test_a_text_is_edited_to_mean_another_recipe(before: Recipe, after: Recipe, inline: bool) -> None:
    edited = with_meaning(text(before, inline=inline), after, Names(read_recipe, lambda _: "tiny"))
    assert read_recipe(edited.encode()) == after


def test_a_swap_of_names_moves_no_table_and_keeps_its_comments() -> None:
    one, two = Term("a", "1" * 64), Term("b", "2" * 64, "0.5")
    before = Recipe.of(BASE, [one, two], Rules.of())
    after = Recipe.of(BASE, [Term("b", "1" * 64), Term("a", "2" * 64, "0.5")], Rules.of())
    edited = with_meaning(text(before, inline=False), after, Names(read_recipe, lambda _: "tiny"))
    lines = text(before, inline=False).splitlines()
    swapped = [line.replace('"a"', "?").replace('"b"', "a").replace("?", "b") for line in lines]
    assert [line.replace('"', "") for line in edited.splitlines()] == [
        line.replace('"', "") for line in swapped
    ]
