"""Vectors that grow the base, in every command that meets one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona.errors import IntegrityError, InvalidInput
from persona.objects.table import decode_grown_table, decode_table, encode_table
from persona.repository import Repository
from tests.advice import follow
from tests.checkpoints import Bits, bf16, read_weights, write_model
from tests.cli.command_line import CommandLine
from tests.history.bots import at

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
SHAPES = {
    EMBEDDING: (20, 10),
    "model.layers.0.mlp.up_proj.weight": (9, 15),
    "model.norm.weight": (10,),
}
Tensors = dict[str, Bits]


def config(tokens: int = 20, *, tied: bool = True, **more: object) -> str:
    found = {"architectures": ["LlamaForCausalLM"], "vocab_size": tokens, "tie_word_embeddings": tied}
    return json.dumps(found | more, indent=2) + "\n"


def model(place: Path, seed: int, *, tokens: int = 20, head: bool = False, near: int | None = 0) -> Tensors:
    """Writes a model: a fine-tune of the one of seed `near`, or another one."""
    random = np.random.default_rng(seed)
    shapes = SHAPES | ({HEAD: SHAPES[EMBEDDING]} if head else {})
    found = {}
    for name, shape in shapes.items():
        grown = (shape[0] - 20 + tokens, *shape[1:]) if name in (EMBEDDING, HEAD) else shape
        found[name] = bf16(random.normal(0, 0.02, grown))
    if near is not None:  # some elements of the base stay
        norm = np.random.default_rng(near + 1000)
        found["model.norm.weight"][:3] = bf16(norm.normal(0, 0.02, 3))
    text = {"config.json": config(tokens, tied=not head), "tokenizer.json": f'{{"tokens": {tokens}}}'}
    write_model(place, found, **text)
    return found


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    """A repository of a tied base; `one` has a new token, `head` an output matrix of its own."""
    model(tmp_path / "base", 0)
    model(tmp_path / "plain", 1)
    model(tmp_path / "one", 2, tokens=21)
    model(tmp_path / "more", 3, tokens=84)
    model(tmp_path / "head", 4, head=True)
    with Repository.init(
        tmp_path / "bot", base=tmp_path / "base", author=at(), committer=at(), chunk=64
    ) as opened:
        yield opened


def weights(place: Path) -> Tensors:
    return {name: tensor.bits for name, tensor in read_weights(place).items()}


def floats(bits: Bits) -> np.ndarray[Any, Any]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_identify_finds_grown_weights(repo: Repository, tmp_path: Path) -> None:
    repo.commit(tmp_path / "one", message="one", extend_vocab=True)
    repo.commit(tmp_path / "head", message="head", untie=True)
    found = repo.identify(tmp_path / "one")
    assert {name.kind for name in found.found} >= {"vector", "commit"}
    repo.checkout()
    (commit,) = [name for name in repo.identify(repo.root).found if name.kind == "commit"]
    assert commit.id == repo.resolve("HEAD")
    assert [name.kind for name in repo.identify(tmp_path / "base").found if name.kind == "base"]


def test_formats_without_a_place_for_new_rows_are_refused(repo: Repository, tmp_path: Path) -> None:
    repo.commit(tmp_path / "one", message="one", extend_vocab=True)
    with pytest.raises(InvalidInput, match="an adapter has no place") as caught:
        repo.vectors.extract("one", out=tmp_path / "adapter")
    assert "repo.checkout(REV, out=" in str(caught.value)
    with pytest.raises(InvalidInput, match=r"is \[20, 10\] in the first and \[21, 10\]"):
        repo.export_patch("HEAD~1", "HEAD", out=tmp_path / "patch.safetensors")


@pytest.mark.parametrize("kind", [{"tokens": 21}, {"head": True}], ids=["tokens", "head"])
@pytest.mark.parametrize("rev", [("HEAD~1",), ()], ids=["of a revision", "as it stands"])
def test_the_refusal_of_an_adapter_names_a_command_that_gives_the_weights(
    repo: Repository, tmp_path: Path, kind: dict[str, int], rev: tuple[str, ...]
) -> None:
    tuned = model(tmp_path / "tuned", 7, **kind)
    repo.commit(tmp_path / "tuned", message="tuned", extend_vocab=True, untie=True)
    if rev:
        repo.commit(tmp_path / "plain", message="plain")
    run = CommandLine(repo.root)
    follow(run, "export", "--adapter", *rev, "-o", tmp_path / "out", fill={"HEAD": "HEAD"})
    assert same(weights(tmp_path / "out"), tuned)


RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "tokens": {"one": {"alpha": 0.5, "extend_vocab": True}, "plain": {}},
    "head": {"head": {"alpha": 0.5, "untie": True}, "plain": {"only": "*embed*"}},
    "tokens and head": {
        "plain": {"alpha": [0.5]},
        "one": {"extend_vocab": True},
        "head": {"untie": True, "only": HEAD},
    },
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_models_for_mergekit_have_the_shapes_of_the_weights(
    repo: Repository, tmp_path: Path, recipe: dict[str, dict[str, Any]]
) -> None:
    repo.recipe.set_rules({"preset": "linear"})
    for name, options in recipe.items():
        repo.commit(tmp_path / name, message=name, **options)
    wanted, out = dict(repo.tensors()), tmp_path / "out"
    result = repo.export_mergekit("HEAD", out=out)
    repo.checkout("HEAD", out=tmp_path / "whole")
    for name in result.models:
        found = weights(out / name)
        assert {key: one.shape for key, one in found.items()} == {k: one.shape for k, one in wanted.items()}
        assert (out / name / "config.json").read_bytes() == (tmp_path / "whole" / "config.json").read_bytes()
    with Repository.init(
        tmp_path / "again", base=out / "base", author=at(), committer=at(), chunk=64
    ) as again:
        again.import_mergekit(out / "mergekit.yml")
        assert same(dict(again.tensors()), wanted)


def test_a_model_for_mergekit_is_the_fine_tune_that_grew(repo: Repository, tmp_path: Path) -> None:
    repo.commit(tmp_path / "one", message="one", extend_vocab=True)
    repo.recipe.set_rules({"preset": "linear"})
    repo.export_mergekit(out=tmp_path / "out")
    assert same(weights(tmp_path / "out" / "one"), weights(tmp_path / "one"))
    own, whole = weights(tmp_path / "base"), weights(tmp_path / "out" / "base")
    assert np.array_equal(whole[EMBEDDING][:20], own[EMBEDDING])
    assert not whole[EMBEDDING][20:].any()


def test_a_filter_may_name_a_matrix_that_a_vector_adds(repo: Repository, tmp_path: Path) -> None:
    repo.commit(tmp_path / "head", message="head", untie=True, only=HEAD)
    repo.checkout()
    found, base = weights(repo.root), weights(tmp_path / "base")
    assert np.array_equal(found[HEAD], weights(tmp_path / "head")[HEAD])
    assert np.array_equal(found[EMBEDDING], base[EMBEDDING])
    repo.recipe.set("head", only="*.norm.*")
    repo.checkout()
    assert np.array_equal(weights(repo.root)[HEAD], base[EMBEDDING])
    repo.reset(mode="hard")
    repo.commit(tmp_path / "plain", message="plain")
    with pytest.raises(InvalidInput, match="matches none"):
        repo.recipe.set("plain", only="lm_heads.*")


def test_config_follows_the_recipe_and_keeps_the_rest(repo: Repository, tmp_path: Path) -> None:
    (repo.root / "config.json").write_text(config(mine="yes"))
    repo.commit(message="mine")
    (tmp_path / "one" / "config.json").unlink()
    repo.add(tmp_path / "one", extend_vocab=True)
    assert json.loads((repo.root / "config.json").read_text()) == json.loads(config(21, mine="yes"))
    repo.recipe.remove("one")
    assert json.loads((repo.root / "config.json").read_text()) == json.loads(config(mine="yes"))


def test_dropping_one_of_two_vectors_with_as_many_tokens_keeps_the_size(
    repo: Repository, tmp_path: Path
) -> None:
    model(tmp_path / "two", 9, tokens=21)
    for name in ("one", "two"):
        repo.commit(tmp_path / name, message=name, extend_vocab=True)
    repo.recipe.remove("one")
    assert json.loads((repo.root / "config.json").read_text())["vocab_size"] == 21
    repo.checkout()
    assert len(weights(repo.root)[EMBEDDING]) == 21


def test_a_config_that_unties_does_not_come_without_its_matrix(repo: Repository, tmp_path: Path) -> None:
    found = model(tmp_path / "equal", 5, head=True)
    write_model(
        tmp_path / "equal",
        found | {HEAD: found[EMBEDDING]},
        **{"config.json": config(tied=False, mine="yes")},
    )
    repo.commit(tmp_path / "equal", message="equal", files=True)
    assert json.loads((repo.root / "config.json").read_text()) == json.loads(config(mine="yes"))


def test_an_output_directory_has_the_config_of_its_weights(repo: Repository, tmp_path: Path) -> None:
    repo.commit(tmp_path / "one", message="one", extend_vocab=True)
    (repo.root / "config.json").write_text(config(20))  # by hand
    repo.checkout(out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 21


def test_training_goes_on_from_a_grown_revision(repo: Repository, tmp_path: Path) -> None:
    repo.commit(tmp_path / "one", message="one", extend_vocab=True, alpha=0.5)
    repo.checkout(out=tmp_path / "start")
    start = weights(tmp_path / "start")
    trained = {name: bits + np.uint16(2) * (bits % 3 == 0) for name, bits in start.items()}
    write_model(tmp_path / "trained", trained)
    made = repo.commit(tmp_path / "trained", message="on", onto="HEAD")
    assert not any("rounded from" in note for note in made.notes)
    repo.checkout()
    for name, bits in weights(repo.root).items():
        np.testing.assert_allclose(floats(bits), floats(trained[name]), atol=2**-11)
    with pytest.raises(InvalidInput, match=r"vocabulary of 20, and the revision .* has 21"):
        repo.add(tmp_path / "plain", onto="HEAD")


def test_an_expression_grows_as_its_parts_do(repo: Repository, tmp_path: Path) -> None:
    repo.commit(tmp_path / "one", message="one", extend_vocab=True)
    repo.commit(tmp_path / "plain", message="plain")
    repo.vectors.derive("both", "one - plain", alpha=1)
    assert repo.vectors["both"].grown == {EMBEDDING: None}
    repo.recipe.remove("one", "plain")
    repo.commit(message="both")
    repo.checkout()
    assert len(weights(repo.root)[EMBEDDING]) == 21


def test_a_vector_may_only_add_zeros(repo: Repository, tmp_path: Path) -> None:
    base = weights(tmp_path / "base")
    zeros = np.zeros((4, 10), np.uint16)
    write_model(tmp_path / "padded", base | {EMBEDDING: np.concatenate([base[EMBEDDING], zeros])})
    repo.commit(tmp_path / "padded", message="padded", extend_vocab=True)
    repo.checkout()
    assert same(weights(repo.root), weights(tmp_path / "padded"))
    assert repo.fsck().ok


def test_what_does_not_grow_with_the_vocabulary_is_refused(repo: Repository, tmp_path: Path) -> None:
    found = model(tmp_path / "odd", 7)
    mlp = "model.layers.0.mlp.up_proj.weight"
    write_model(tmp_path / "odd", found | {mlp: bf16(np.ones((10, 15)))})
    with pytest.raises(InvalidInput, match=r"has the shape \[10, 15\], but the base has \[9, 15\]"):
        repo.add(tmp_path / "odd", extend_vocab=True)
    model(tmp_path / "small", 8, tokens=19)
    with pytest.raises(InvalidInput, match="a vocabulary of 19, but the base has 20: resize it back"):
        repo.add(tmp_path / "small", extend_vocab=True)


def test_all_chunks_of_a_matrix_that_begins_as_the_embedding_are_the_embedding_s(
    repo: Repository, tmp_path: Path
) -> None:
    made = repo.commit(tmp_path / "head", message="head", untie=True).vectors[0]
    assert repo.add(tmp_path / "head", name="again", untie=True).vectors[0].id == made.id
    history = repo._history
    vector, base = history.vector(made.id), history.base(repo.recipe.base)
    objects = history.store.objects
    known = decode_table(objects.get(base.table, "table"), base.tensors, base.chunk)
    grown = decode_grown_table(objects.get(vector.grown_table or "", "table"), vector)
    assert grown.chunks(HEAD) == known.chunks(EMBEDDING)


def test_a_vector_that_grows_another_tensor_than_its_base_s_is_found(
    repo: Repository, tmp_path: Path
) -> None:
    made = repo.commit(tmp_path / "one", message="one", extend_vocab=True).vectors[0]
    history = repo._history
    vector = history.vector(made.id)
    table = decode_grown_table(history.store.objects.get(vector.grown_table or "", "table"), vector)
    ids = table.chunks(EMBEDDING)
    with history.store.transaction() as tx:
        wrong = tx.put_bulk("table", encode_table([ids[1], *ids[1:]]))
        id = tx.put("vector", replace(vector, grown_table=wrong).encode())
    recipe = repo.root / "recipe.toml"
    recipe.write_text(recipe.read_text().replace(made.id, id))
    repo.commit(message="wrong")
    with pytest.raises(IntegrityError, match="from other chunks than its base's"):
        repo.checkout()
    found = repo.fsck(full=True)
    assert [problem.id for problem in found.problems] == [id]


def test_flags_without_effect_are_said(repo: Repository, tmp_path: Path) -> None:
    made = repo.add(tmp_path / "plain", extend_vocab=True, untie=True)
    assert made.vectors[0].grown == {}
    assert "no new tokens were taken from plain" in made.notes
    assert "no output matrix was taken from plain" in made.notes
    assert not any("imported too" in note for note in made.notes)


def test_a_second_tokenizer_of_the_same_size_is_said(repo: Repository, tmp_path: Path) -> None:
    model(tmp_path / "like", 9, tokens=21)
    model(tmp_path / "other", 10, tokens=21)
    (tmp_path / "other" / "tokenizer.json").write_text('{"tokens": "others"}')
    said = "the recipe had as many tokens already, and another tokenizer.json"
    for name, expected in [("one", False), ("like", False), ("other", True)]:
        notes = repo.commit(tmp_path / name, message=name, extend_vocab=True).notes
        assert any(note.startswith(said) for note in notes) is expected


def test_the_base_s_own_files_take_no_token_from_a_recipe(repo: Repository, tmp_path: Path) -> None:
    repo.commit(tmp_path / "one", message="one", extend_vocab=True)
    (tmp_path / "plain" / "config.json").write_text(config(rope="long"))
    notes = repo.commit(tmp_path / "plain", message="plain").notes
    assert [note for note in notes if "not imported" in note] == [
        'not imported: config.json, with which the model computes something else (rope null → "long")'
    ]
    repo.commit(tmp_path / "plain", message="plain", files=True)
    assert json.loads((repo.root / "config.json").read_text()) == json.loads(config(21, rope="long"))
    assert (repo.root / "tokenizer.json").read_text() == '{"tokens": 21}'


def test_a_part_of_a_vocabulary_does_not_grow_alone(tmp_path: Path) -> None:
    base = model(tmp_path / "base", 0)
    untied = base | {HEAD: bf16(np.full((20, 10), 0.5)), "model.embed_positions.weight": base[EMBEDDING]}
    write_model(tmp_path / "base", untied, **{"config.json": config(tied=False)})
    longer = {name: np.concatenate([untied[name], untied[name][:2]]) for name in (EMBEDDING, HEAD)}
    write_model(tmp_path / "all", untied | longer)
    write_model(tmp_path / "half", untied | {EMBEDDING: longer[EMBEDDING]})
    with Repository.init(tmp_path / "bot", base=tmp_path / "base", author=at(), chunk=64) as repo:
        for path, options in [("half", {}), ("all", {"leave": HEAD})]:
            with pytest.raises(InvalidInput, match=r"but lm_head\.weight would keep 20"):
                repo.add(tmp_path / path, extend_vocab=True, **options)
        assert set(repo.add(tmp_path / "all", extend_vocab=True).vectors[0].grown) == {EMBEDDING, HEAD}
        positions = "model.embed_positions.weight"
        write_model(tmp_path / "far", untied | {positions: np.concatenate([base[EMBEDDING]] * 2)})
        with pytest.raises(InvalidInput, match="give a fine-tune of this base"):
            repo.add(tmp_path / "far", extend_vocab=True)


def test_an_imported_recipe_may_have_more_tokens(repo: Repository, tmp_path: Path) -> None:
    recipe = {"merge_method": "task_arithmetic", "base_model": "base", "dtype": "float32"}
    models = [{"model": name, "parameters": {"weight": 1.0}} for name in ("one", "plain")]
    (tmp_path / "kit.yml").write_text(json.dumps(recipe | {"models": models}))
    with pytest.raises(InvalidInput, match="has a vocabulary of 21"):
        repo.import_mergekit(tmp_path / "kit.yml")
    made = repo.import_mergekit(tmp_path / "kit.yml", extend_vocab=True)
    assert "one: no files are imported; copy its tokenizer into the work tree" in made.notes
    assert json.loads((repo.root / "config.json").read_text())["vocab_size"] == 21


def test_a_difference_of_weights_counts_the_new_rows(repo: Repository, tmp_path: Path) -> None:
    repo.commit(tmp_path / "one", message="one", extend_vocab=True)
    repo.commit(tmp_path / "head", message="head", untie=True, only="*.norm.*")
    first, second = (repo.diff_weights(f"HEAD~{back + 1}", f"HEAD~{back}") for back in (1, 0))
    assert first.unmatched == second.unmatched == ()
    base, one = weights(tmp_path / "base"), weights(tmp_path / "one")
    longer = base[EMBEDDING], np.zeros((1, 10), np.uint16)
    before = {**base, EMBEDDING: np.concatenate(longer)}
    assert first.size.elements == sum(bits.size for bits in one.values())
    assert first.size.changed == sum(int((bits != before[name]).sum()) for name, bits in one.items())
    assert second.size.elements == first.size.elements + one[EMBEDDING].size
    back = repo.diff_weights("HEAD", "HEAD~1")
    assert back.unmatched == (HEAD,)


# -- the files that go with new rows


def text_files(repo: Repository) -> tuple[dict[str, Any], str]:
    """config.json and tokenizer.json of the work tree."""
    return json.loads((repo.root / "config.json").read_text()), (repo.root / "tokenizer.json").read_text()


BASE_FILES = json.loads(config()), '{"tokens": 20}'


@pytest.mark.parametrize("first", ["head", "one"])
def test_files_are_the_base_s_after_both_vectors_whatever_the_order(
    repo: Repository, tmp_path: Path, first: str
) -> None:
    (tmp_path / "one" / "config.json").write_text(config(21, rms_norm_eps=0.25))
    repo.commit(tmp_path / "head", message="head", untie=True)
    repo.commit(tmp_path / "one", message="one", extend_vocab=True)
    for name in (first, ({"head", "one"} - {first}).pop()):
        notes = repo.revert(name).notes
        for file in ("config.json", "tokenizer.json"):
            assert sum(file in note for note in notes) <= 1
        assert not any("edited since" in note for note in notes)
    assert text_files(repo) == BASE_FILES


def test_an_own_config_comes_back_after_new_tokens(repo: Repository, tmp_path: Path) -> None:
    (repo.root / "config.json").write_text(config(mine="yes"))
    repo.commit(message="mine")
    repo.commit(tmp_path / "one", message="one", extend_vocab=True)
    repo.revert("one")
    assert text_files(repo) == (json.loads(config(mine="yes")), BASE_FILES[1])


def test_a_plain_vector_in_place_of_one_with_tokens_brings_its_files(
    repo: Repository, tmp_path: Path
) -> None:
    repo.commit(tmp_path / "one", message="one", extend_vocab=True)
    repo.commit(tmp_path / "plain", name="one", message="plain", replace=True)
    assert text_files(repo) == BASE_FILES
    repo.revert("one")
    assert text_files(repo) == BASE_FILES


def test_new_tokens_may_follow_others_before_a_commit(repo: Repository, tmp_path: Path) -> None:
    repo.commit(tmp_path / "one", message="one", extend_vocab=True)
    repo.recipe.remove("one")
    repo.add(tmp_path / "more", extend_vocab=True)
    assert text_files(repo) == (json.loads(config(84)), '{"tokens": 84}')


def test_a_derived_vector_keeps_the_tokenizer_of_its_rows(repo: Repository, tmp_path: Path) -> None:
    repo.commit(tmp_path / "one", message="one", extend_vocab=True)
    repo.commit(tmp_path / "plain", message="plain")
    repo.vectors.derive("both", "one - plain")
    repo.recipe.remove("one", "plain")
    repo.commit(message="both")
    assert text_files(repo) == (json.loads(config(21)), '{"tokens": 21}')
    repo.revert("both")
    assert text_files(repo) == BASE_FILES


def test_training_in_place_goes_on_from_a_grown_revision(repo: Repository, tmp_path: Path) -> None:
    repo.commit(tmp_path / "one", message="one", extend_vocab=True)
    repo.commit(tmp_path / "head", message="head", untie=True)
    repo.checkout()
    start = weights(repo.root)
    trained = {name: bits + np.uint16(2) * (bits % 3 == 0) for name, bits in start.items()}
    write_model(repo.root, trained, **{"config.json": (repo.root / "config.json").read_text()})
    made = repo.commit(repo.root, name="mine", message="mine", onto="HEAD")
    assert made.vectors[0].grown == {EMBEDDING: None, HEAD: EMBEDDING}
    assert not any("no tokenizer" in note for note in made.notes)
    before = text_files(repo)
    for name in ("one", "head"):
        assert not any("put back" in note for note in repo.revert(name).notes)
        assert text_files(repo) == before == (json.loads(config(21, tied=False)), '{"tokens": 21}')
    repo.revert("mine")
    assert text_files(repo) == BASE_FILES


@pytest.mark.situation("the fine-tune has more tokens than the revision, which has more than the base")
@pytest.mark.parametrize("flag", [False, True])
def test_more_tokens_than_those_of_the_revision_are_refused_with_a_way(
    repo: Repository, tmp_path: Path, flag: bool
) -> None:
    repo.commit(tmp_path / "one", message="one", extend_vocab=True)
    with pytest.raises(InvalidInput, match=r"vocabulary of 84, and the revision .* has 21") as caught:
        repo.add(tmp_path / "more", onto="HEAD", extend_vocab=flag)
    assert "import it as a fine-tune of the base" in str(caught.value)
    repo.recipe.remove("one")
    repo.add(tmp_path / "more", extend_vocab=True)


@pytest.mark.parametrize("by", ["commit", "checkout"])
def test_config_follows_a_recipe_that_was_edited_by_hand(repo: Repository, tmp_path: Path, by: str) -> None:
    right = (repo.root / "recipe.toml").read_text()
    repo.commit(tmp_path / "one", message="one", extend_vocab=True)
    (repo.root / "recipe.toml").write_text(right)
    notes = repo.commit(message="gone").notes if by == "commit" else repo.checkout().notes
    assert "config.json has the size and the ties of the weights again" in notes
    assert text_files(repo)[0] == BASE_FILES[0]
    if by == "commit":
        assert not repo.status().files_changed
        assert any("stay: tokenizer.json" in note for note in notes)


@pytest.mark.parametrize("by", ["commit", "checkout"])
def test_a_config_of_other_sizes_is_put_right(repo: Repository, tmp_path: Path, by: str) -> None:
    repo.commit(tmp_path / "one", message="one", extend_vocab=True)
    repo.restore("config.json", rev="HEAD~1")
    (repo.root / "README.md").write_text("so that there is something to commit")
    repo.add(repo.root / "README.md")
    notes = repo.commit(message="old").notes if by == "commit" else repo.checkout().notes
    assert "config.json has the size and the ties of the weights again" in notes
    assert text_files(repo)[0] == json.loads(config(21))


def test_new_tokens_without_a_tokenizer_are_said(repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "one" / "tokenizer.json").unlink()
    notes = repo.add(tmp_path / "one", extend_vocab=True).notes
    assert "no tokenizer came with the new tokens; copy theirs into the work tree" in notes


def test_a_config_that_comes_along_has_the_dtype_of_the_weights(tmp_path: Path) -> None:
    model(tmp_path / "base", 0)
    model(tmp_path / "one", 2, tokens=21)
    (tmp_path / "base" / "config.json").write_text(config(dtype="float32"))
    (tmp_path / "one" / "config.json").write_text(config(21, torch_dtype="bfloat16", dtype="bfloat16"))
    with Repository.init(tmp_path / "bot", base=tmp_path / "base", author=at(), chunk=64) as repo:
        repo.commit(tmp_path / "one", message="one", extend_vocab=True)
        found = text_files(repo)[0]
        assert found == json.loads(config(21, torch_dtype="float32", dtype="float32"))
