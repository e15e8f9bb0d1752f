"""recipe.toml: what it means, the line of every fault, and edits that keep what the user wrote."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import InvalidInput, Refused, UnknownName
from persona.history.recipes import edit as recipe_edit
from persona.history.recipes import text as recipe_text
from persona.history.recipes.text import first_text, line_of, parse
from persona.objects.recipe import Recipe
from persona.objects.rules import PRESETS, Rules

TEXT = """\
# a bot
base = "tiny"   # the base

# how to merge
[merge]
preset = "ties"   # usual
density = 1.0

# listens
[vectors.listening]   # it
id = "aaaa"
alpha = 0.70   # less

# suggests
[vectors."sug gest"]
id = "bbbb"
only = [
  "model.layers.1?.*",
]
"""


def read(text: str) -> Recipe:
    return parse(text.encode(), base=lambda _: "1" * 64, vector=lambda start: start[0] * 64)


def comments(text: str) -> list[str]:
    return re.findall(r"#.*", text)


def test_numbers_keep_the_digits_they_were_written_with() -> None:
    recipe = read(TEXT.replace("0.70", "0.1000000000000000055511151231257827"))
    assert recipe.by_name["listening"].alpha == "0.1000000000000000055511151231257827"


def test_what_is_absent_is_the_default() -> None:
    term = read('base = "b"\n[vectors.x]\nid = "aaaa"\n').by_name["x"]
    assert (term.alpha, term.density, term.only, term.except_, term.join) == ("1", None, (), (), "vote")


PRESET = '"ties"   # usual\ndensity = 1.0'


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (("alpha = 0.70", "alpha = nan"), 12, "vectors.listening.alpha: not a finite number"),
        (("alpha = 0.70", "alpha = -inf"), 12, "not a finite number"),
        (("alpha = 0.70", "alpha = 1e39"), 12, "binary32"),
        (("alpha = 0.70", 'alpha = "0.7"'), 12, "not a number"),
        (("alpha = 0.70", "alpha = true"), 12, "not a number"),
        (("alpha = 0.70", "density = 0"), 12, "not in (0, 1]"),
        (("alpha = 0.70", "density = 2.0"), 12, "not in (0, 1]"),
        (("alpha = 0.70", "alhpa = 0.7"), 12, "vectors.listening.alhpa: unknown key"),
        (("alpha = 0.70", 'join = "sum"'), 12, "vote, add"),
        (("density = 1.0", "density = nan"), 7, "merge.density"),
        (("density = 1.0", 'trim = "layer"'), 7, "tensor, global"),
        (("density = 1.0", "speed = 3"), 7, "merge.speed: unknown key"),
        (("density = 1.0", "seed = 3"), 7, "merge.seed: the preset ties does not use it"),
        ((PRESET, '"dare_ties"\nseed = 1.5'), 7, "merge.seed: 1.5 is not a whole number"),
        ((PRESET, '"dare_ties"\nrescale = 1'), 7, "merge.rescale: 1 is not one of true"),
        ((PRESET, '"della"\nepsilon = 0.6'), 7, "merge.epsilon: 0.6 is not in [0, 0.5]"),
        ((PRESET, '"della"\ndensity = 0.1'), 5, "merge.epsilon: density - epsilon and"),
        ((PRESET, '"breadcrumbs"\ngamma = 0.6\ndensity = 0.5'), 7, "merge.gamma: 0.6 and"),
        (('"ties"', '"tiez"'), 6, "merge.preset"),
        (('id = "bbbb"', ""), 15, 'vectors."sug gest".id: the id of the vector is missing'),
        (('"model.layers.1?.*"', "3"), 17, "list of globs"),
        (('base = "tiny"', 'base = ""'), 2, "base"),
        (("# how to merge", "novel = 1"), 4, "novel: unknown key"),
        (("# how to merge", "what is this"), 4, "not valid TOML"),
        (('[vectors."sug gest"]', "[vectors.listening]"), 15, "not valid TOML"),
    ],
)
def test_a_fault_is_named_with_its_line(change: tuple[str, str], line: int, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(TEXT.replace(*change))
    assert caught.value.message.startswith(f"recipe.toml:{line}: ")
    assert words in caught.value.message


def test_an_unknown_vector_is_named_with_its_line() -> None:
    def unknown(start: str) -> str:
        raise UnknownName(f"no vector {start}")

    with pytest.raises(InvalidInput, match=r"recipe\.toml:11: vectors\.listening\.id: no vector aaaa"):
        parse(TEXT.encode(), base=lambda _: "1" * 64, vector=unknown)


def test_text_that_is_not_utf8_is_named_with_its_line() -> None:
    with pytest.raises(InvalidInput, match=r"^recipe\.toml:2: "):
        parse(b'base = "b"\n# \xff\n', base=str, vector=str)


@given(st.text(max_size=60))
def test_only_invalid_input_leaves_the_reader(text: str) -> None:
    for candidate in (text, TEXT[:150] + text, TEXT + text):
        with suppress(InvalidInput):
            read(candidate.encode("utf-8", "replace").decode())


def test_line_of_finds_keys_in_inline_tables_and_past_long_strings() -> None:
    text = 'base = """\n[vectors.x]\nalpha = 1\n"""\n[vectors]\nx = { id = "a", alpha = 1 }\n'
    assert line_of(text, ("vectors", "x", "alpha")) == 6


def test_a_set_keeps_comments_order_and_spacing() -> None:
    edited = recipe_edit.set_term(TEXT, "listening", {"alpha": "-0.5", "density": "0.2"})
    assert comments(edited) == comments(TEXT)
    assert edited == TEXT.replace("alpha = 0.70   # less", "alpha = -0.5   # less\ndensity = 0.2")


def test_new_keys_stand_with_their_table_not_with_the_comment_after_it() -> None:
    edited = recipe_edit.set_rules(TEXT, {"lambda": "2"})
    assert edited == TEXT.replace("density = 1.0\n", "density = 1.0\nlambda = 2.0\n")


def test_a_new_term_goes_to_the_end_and_leaves_the_rest_alone() -> None:
    edited = recipe_edit.add_term(TEXT, "late", {"id": "c" * 64, "alpha": "1", "only": ["a.*"]})
    assert edited.startswith(TEXT)
    assert read(edited).by_name["late"].only == ("a.*",)


def test_a_removed_term_takes_only_its_own_lines() -> None:
    edited = recipe_edit.remove_term(TEXT, "listening")
    assert set(read(edited).by_name) == {"sug gest"}
    assert "# how to merge" in edited
    assert "# suggests" in edited


def test_a_renamed_term_keeps_its_place_and_comments() -> None:
    assert recipe_edit.rename_term(TEXT, "listening", "hears") == TEXT.replace(
        "[vectors.listening]", "[vectors.hears]"
    )
    assert "[vectors.suggest]" in recipe_edit.rename_term(TEXT, "sug gest", "suggest")


def test_a_rename_onto_another_term_is_refused() -> None:
    with pytest.raises(Refused, match="sug gest"):
        recipe_edit.rename_term(TEXT, "listening", "sug gest")


@pytest.mark.parametrize(
    "edit", [recipe_edit.remove_term, lambda text, name: recipe_edit.set_term(text, name, {})]
)
def test_an_unknown_term_is_named_and_the_known_ones_listed(edit: object) -> None:
    with pytest.raises(UnknownName, match=r"no vector named nobody; it has listening, sug gest"):
        edit(TEXT, "nobody")  # type: ignore[operator]


@pytest.mark.parametrize(
    "text",
    [
        'base = "b"\nvectors.x.id = "aaaa"\n',
        'base = "b"\nvectors = { x = { id = "aaaa" } }\n',
        'base = "b"\n[vectors]\nx = { id = "aaaa" }\n',
        'base = "b"\n[vectors.x]\nid = "aaaa"\n[merge]\npreset = "ties"\n',
        'base = "b"\r\n[vectors.x]\r\nid = "aaaa"\r\n',
        'base = "b"\n[vectors.x]\nid = "aaaa"',
    ],
)
def test_edits_work_however_the_tables_are_written(text: str) -> None:
    edited = recipe_edit.set_term(text, "x", {"alpha": "0.5", "only": ["a"]})
    assert read(edited).by_name["x"].alpha == "0.5"
    assert read(recipe_edit.set_term(edited, "x", {"only": recipe_edit.UNSET})).by_name["x"].only == ()
    edited = recipe_edit.set_rules(recipe_edit.add_term(edited, "y", {"id": "bbbb"}), {"lambda": "2"})
    assert read(edited).rules.lambda_ == "2"
    assert set(read(recipe_edit.rename_term(edited, "x", "z")).by_name) == {"y", "z"}
    assert set(read(recipe_edit.remove_term(edited, "x")).by_name) == {"y"}


@given(st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20))
def test_any_base_name_can_be_written(name: str) -> None:
    seen = []
    text = first_text(name, Rules.of())
    parse(text.encode(), base=lambda text: seen.append(text) or "1" * 64, vector=str)
    assert seen == [name]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("axes", [{}, {"lambda": "-0.5", "merge": "max"}])
def test_any_rules_can_be_written(preset: str, axes: dict[str, str]) -> None:
    rules = Rules.of(preset, **axes)
    assert read(first_text("b", rules)).rules == rules


def test_axes_of_the_random_trims_are_written_as_toml_has_them() -> None:
    rules = Rules.of("della", density="0.5", epsilon="0.1", rescale="false", seed="7")
    text = first_text("b", rules)
    assert text.splitlines()[-4:] == ["density = 0.5", "epsilon = 0.1", "rescale = false", "seed = 7"]
    assert read(text).rules == rules
    edited = recipe_edit.set_rules(text, {"seed": "8", "rescale": "true", "epsilon": "0.2"})
    assert edited == text.replace("7", "8").replace("false", "true").replace("0.1", "0.2")
    assert read(text.replace("rescale = false", 'rescale = "false"')).rules == rules
    edited = recipe_edit.set_rules(text, {"rescale": "norm"})
    assert edited == text.replace("rescale = false", 'rescale = "norm"')
    assert (
        read(edited).rules
        == Rules.of("della", density="0.5", epsilon="0.1", rescale="norm", seed="7")
        == read(first_text("b", read(edited).rules)).rules
    )


STYLES = [
    TEXT,
    TEXT.rstrip("\n"),
    'base="b"\nmerge={density=1.0}\nvectors={listening={id="aaaa"},"sug gest"={id="bbbb"}}\n',
    'base="b"\n[vectors]\nlistening={id="aaaa",alpha=1} # it\n"sug gest"={id="bbbb"}\n',
    'base="b"\nvectors.listening.id="aaaa"\nvectors.listening.alpha=1\nvectors."sug gest".id="bbbb"\n',
    'base="b"\n[vectors]\nlistening.id="aaaa" # it\n"sug gest".id="bbbb"\n',
    'base="b"\n["vectors" . \'listening\']\n"id"="aaaa"\n[ vectors . "sug gest" ]#s\nid="bbbb"\n[merge]\n',
    'base="b"\n[vectors.listening]\nid="aaaa"\nonly=["""\n[vectors.x]\n"""]\n'
    '[vectors."sug gest"]\nid="bbbb"\n',
    'base="b"\n[vectors."sug gest"]\nid="bbbb"\nonly=["""\n[vectors.listening]\n"""]\n'
    '[vectors.listening]\nid="aaaa"',
]


@pytest.mark.parametrize("ends", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("text", STYLES)
def test_an_edit_does_what_it_says_in_every_style(text: str, ends: str) -> None:
    text = text.replace("\n", ends)
    for edit in (
        lambda text: recipe_edit.set_term(text, "listening", {"alpha": "0.25"}),
        lambda text: recipe_edit.set_term(text, "listening", {"density": "0.5"}),
        lambda text: recipe_edit.set_rules(text, {"lambda": "0.5"}),
        lambda text: recipe_edit.rename_term(text, "listening", "a b"),
        lambda text: recipe_edit.remove_term(text, "sug gest"),
        lambda text: recipe_edit.add_term(text, "new", {"id": "2" * 64, "alpha": "1"}),
    ):
        edited = edit(text)
        assert read(edited) != read(text)
        assert edited.count("\r\n") == (edited.count("\n") if ends == "\r\n" else 0)
        text = edited
    assert set(read(text).by_name) == {"a b", "new"}
    assert (read(text).by_name["a b"].alpha, read(text).by_name["a b"].density) == ("0.25", "0.5")
    assert read(text).rules.lambda_ == "0.5"


def test_a_byte_order_mark_is_no_fault() -> None:
    assert read("\ufeff" + TEXT) == read(TEXT)


# -- how a text is written


@pytest.mark.parametrize("name", ["a = b", 'say "so"', "x.y", "ü"])
def test_a_vector_of_any_name_is_added_renamed_and_removed(name: str) -> None:
    text = 'base = "b"\n'
    added = recipe_edit.add_term(text, name, {"id": "0" * 64, "alpha": "1"})
    assert list(recipe_text.load(added)["vectors"]) == [name]
    changed = recipe_edit.set_term(added, name, {"alpha": "0.5"})
    assert str(recipe_text.load(changed)["vectors"][name]["alpha"]) == "0.5"
    assert list(recipe_text.load(recipe_edit.rename_term(changed, name, "z = z"))["vectors"]) == ["z = z"]
    assert recipe_edit.remove_term(changed, name) == text


def test_lines_of_a_text_with_both_kinds_of_ends_keep_theirs() -> None:
    before = 'base = "b"\n# unix\r\n\r\n[merge]\ndensity = 0.5\r\n# last\n'
    after = recipe_edit.set_rules(before, {"density": "0.2"})
    assert after == before.replace("0.5", "0.2")
    longer = recipe_edit.set_rules(before, {"lambda": "0.5"})
    assert longer.replace("lambda = 0.5\r\n", "").replace("lambda = 0.5\n", "") == before


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_new_rules_stand_above_the_comment_of_the_first_vector(end: str) -> None:
    before = end.join(
        ['base = "b"', "", "# what it is for", "# and who made it", "[vectors.a]", 'id = "x"', ""]
    )
    after = recipe_edit.set_rules(before, {"density": "0.2"})
    assert after == before.replace("# what", f"[merge]{end}density = 0.2{end}{end}# what")


def test_a_file_keeps_its_byte_order_mark() -> None:
    for data in (b"\xef\xbb\xbfbase = 1\n", b"base = 1\n"):
        text = recipe_text.decode(data)
        assert recipe_text.encode(text, like=data) == data
