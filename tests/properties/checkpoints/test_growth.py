"""Fine-tunes with tokens, or an output matrix, that the base lacks."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

import persona
from persona.errors import InvalidInput
from persona.merge import reference
from persona.merge.rules import MergeRules, MergeTerm
from persona.objects.recipe import Term
from persona.objects.rules import Rules
from tests.advice import advice, follow
from tests.checkpoints import Bits, Model, Tensor, digest_of_files, read_weights, same, write_file
from tests.cli.command_line import CommandLine
from tests.families import answers, loaded, moved, same_answers
from tests.llamas import floats

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
TOKENS = 48


def tuned(base: Path, directory: Path, seed: int, *, tokens: int = 0, head: bool = False) -> Model:
    """A fine-tune of a model directory, with new tokens and an output matrix of its own."""
    shutil.copytree(base, directory)
    model = moved(read_weights(base), seed)
    if head:
        model[HEAD] = moved({HEAD: model[EMBEDDING]}, seed + 100)[HEAD]
    for name, tensor in model.items():
        if tokens and tensor.bits.shape[0] == TOKENS:
            model[name] = Tensor(tensor.dtype, longer(tensor.bits, tokens, seed))
        elif tokens and tensor.bits.shape == (1, TOKENS):  # BART's biases
            model[name] = Tensor(tensor.dtype, longer(tensor.bits[0], tokens, seed)[None])
    write_file(directory / "model.safetensors", model)
    config = json.loads((base / "config.json").read_text()) | ({"tie_word_embeddings": False} if head else {})
    config["vocab_size"] += tokens
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (directory / "tokenizer.json").write_text(json.dumps({"added": tokens, "seed": seed}))
    return model


def longer(bits: Bits, rows: int, seed: int) -> Bits:
    """A tensor with more rows: some of its own, negative."""
    chosen = np.random.default_rng(seed).integers(0, len(bits), rows)
    return np.concatenate([bits, bits[chosen] ^ bits.dtype.type(1 << (8 * bits.itemsize - 1))])


def mixed(base: Model, recipe: list[tuple[Model, str]], rules: Rules) -> Model:
    """What the reference makes of fine-tunes and their α, over the base as they grow it.

    New rows of the base are zeros. A tied model has its embedding as its output matrix.
    """
    rows = max([len(base[EMBEDDING].bits), *(len(model[EMBEDDING].bits) for model, _ in recipe)])
    whole = {name: padded(tensor, base[name], rows) for name, tensor in base.items()}
    if any(HEAD in model for model, _ in recipe):
        whole.setdefault(HEAD, whole[EMBEDDING])
    changes = [
        {name: padded(model.get(name, model[EMBEDDING]), like, rows) for name, like in whole.items()}
        for model, _ in recipe
    ]
    terms = [MergeTerm.of(Term(f"v{place}", f"{place}", alpha)) for place, (_, alpha) in enumerate(recipe)]
    made = reference.merge(whole, changes, terms, MergeRules.of(rules))
    return {
        name: Tensor("BF16", tensor.view(torch.int16).numpy().view(np.uint16))
        for name, tensor in made.items()
    }


def padded(tensor: Tensor, like: Tensor | torch.Tensor, rows: int) -> torch.Tensor:
    """A bf16 tensor as torch has it, with rows of zeros up to those of the vocabulary, if it has them."""
    bits = tensor.bits
    vocabulary = (like.bits if isinstance(like, Tensor) else like).shape[0] in (TOKENS, rows)
    if vocabulary and len(bits) < rows:
        bits = np.concatenate([bits, np.zeros((rows - len(bits), *bits.shape[1:]), bits.dtype)])
    return torch.from_numpy(bits.view(np.int16).copy()).view(torch.bfloat16)


@pytest.fixture
def tied(families: Callable[[str], Path], tmp_path: Path) -> CommandLine:
    """A repository of a tied Llama."""
    return begun(families("llama tied"), tmp_path)


def begun(source: Path, place: Path) -> CommandLine:
    shutil.copytree(source, place / "base")
    (place / "base" / "tokenizer.json").write_text('{"added": 0}')
    CommandLine(place).ok("init", "bot", "--base", "base")
    return CommandLine(place / "bot")


def place_of(run: CommandLine) -> Path:
    return run.directory.parent


def check_out(run: CommandLine) -> Model:
    """The weights of a checkout, whose digest is that of the files."""
    assert run.json("checkout")["weights"] == digest_of_files(run.directory)
    return read_weights(run.directory)


def texts(directory: Path) -> Mapping[str, object]:
    return {name: json.loads((directory / name).read_text()) for name in ("config.json", "tokenizer.json")}


@pytest.mark.situation("the fine-tune has one new token")
@pytest.mark.parametrize("away", [("revert", "HEAD"), ("revert", "chat"), ("rm", "chat")], ids=" ".join)
def test_one_new_token_comes_and_goes_with_its_vector(tied: CommandLine, away: tuple[str, ...]) -> None:
    place = place_of(tied)
    model = tuned(place / "base", place / "chat", 1, tokens=1)
    follow(tied, "commit", "../chat", "-m", "chat")
    assert same(check_out(tied), model)
    assert texts(tied.directory) == texts(place / "chat")
    assert same_answers(tied.directory, place / "chat")
    assert tied.json("fsck")["ok"]
    tied.ok(*away)
    assert same(check_out(tied), read_weights(place / "base"))
    for name in ("config.json", "tokenizer.json"):
        assert (tied.directory / name).read_bytes() == (place / "base" / name).read_bytes()


@pytest.mark.situation("the fine-tune has new tokens, and the base an output matrix of its own")
def test_new_rows_of_both_matrices_mix_with_vectors_that_lack_them(
    families: Callable[[str], Path], tmp_path: Path
) -> None:
    run = begun(families("llama"), tmp_path)
    base = read_weights(tmp_path / "base")
    grown = tuned(tmp_path / "base", tmp_path / "grown", 1, tokens=64)
    plain = tuned(tmp_path / "base", tmp_path / "plain", 2)
    run.ok("commit", "../grown", "-m", "grown", "--extend-vocab", "--alpha", "-0.5")
    run.ok("commit", "../plain", "-m", "plain")
    run.ok("set", "grown", "--join", "vote")
    assert same(check_out(run), mixed(base, [(grown, "-0.5"), (plain, "1")], Rules.of("ties")))
    run.ok("set", "--merge", "preset=linear")
    assert same(check_out(run), mixed(base, [(grown, "-0.5"), (plain, "1")], Rules.of("linear")))
    assert answers(run.directory).shape[-1] == TOKENS + 64


@pytest.mark.situation("two fine-tunes have as many new tokens")
def test_equal_vocabularies_are_merged(tied: CommandLine) -> None:
    place = place_of(tied)
    models = [tuned(place / "base", place / name, seed, tokens=5) for seed, name in enumerate("ab")]
    for name in "ab":
        tied.ok("commit", f"../{name}", "-m", name, "--extend-vocab")
    tied.ok("set", "--merge", "preset=linear")
    want = mixed(read_weights(place / "base"), [(model, "1") for model in models], Rules.of("linear"))
    assert same(check_out(tied), want)


@pytest.mark.situation("two fine-tunes have different numbers of new tokens")
def test_two_vocabularies_are_refused_with_both_sizes(tied: CommandLine) -> None:
    place = place_of(tied)
    tuned(place / "base", place / "one", 1, tokens=1)
    tuned(place / "base", place / "more", 2, tokens=64)
    tied.ok("commit", "../one", "-m", "one", "--extend-vocab")
    before = tied.ok("status")
    said = tied.refused(4, "commit", "../more", "-m", "more", "--extend-vocab")
    assert "the vectors one and more" in said
    assert "[49, 16] and [112, 16]" in said
    assert tied.ok("status") == before
    follow(tied, "commit", "../more", "-m", "more", "--extend-vocab", again=True)
    tied.ok("checkout")
    assert same_answers(tied.directory, place / "more")
    said = tied.refused(4, "vector", "take", "one")
    assert advice(said).commands == (("rm", "more"),)


@pytest.mark.situation("a merge or a cherry-pick brings two vectors with different numbers of new tokens")
@pytest.mark.parametrize("begin", ["merge", "cherry-pick"])
@pytest.mark.parametrize("dropped", ["one", "more"])
def test_two_vocabularies_of_two_branches(tied: CommandLine, begin: str, dropped: str) -> None:
    place = place_of(tied)
    for tokens, name in enumerate(("one", "more"), 1):
        tuned(place / "base", place / name, tokens, tokens=tokens)
        tied.ok("switch", "-c", name, "main")
        tied.ok("commit", f"../{name}", "-m", name, "--extend-vocab")
    tied.refused(1, begin, "one")
    tied.ok("restore", "--ours", "config.json", "tokenizer.json")
    said = tied.refused(4, begin, "--continue")
    (command,) = (one for one in advice(said).commands if dropped in one)
    tied.ok(*command)
    tied.ok(begin, "--continue")
    tied.ok("checkout")
    (left,) = {"one", "more"} - {dropped}
    assert same_answers(tied.directory, place / left)


@pytest.mark.situation("`rebase --base` names a base with more or fewer tokens than the recipe's")
@pytest.mark.parametrize("tokens", [0, 3])
def test_another_base_that_has_new_tokens_already(tied: CommandLine, tokens: int) -> None:
    place = place_of(tied)
    fine = tuned(place / "base", place / "ft", 1, tokens=tokens)
    tied.ok("commit", "../ft", "-m", "ft", *(("--extend-vocab",) if tokens else ()))
    other = tuned(place / "base", place / "other", 2, tokens=3)
    said = tied.refused(4, "rebase", "--base", "../other")
    (size,) = re.findall(r"resize_token_embeddings\((\d+)\)", said)
    model = loaded(place / "other")
    model.resize_token_embeddings(int(size))
    model.save_pretrained(place / "cut")
    tied.ok("rebase", "--base", "../cut")
    found, base = check_out(tied), read_weights(place / "base")
    assert loaded(tied.directory).config.vocab_size == TOKENS + tokens
    for name, held in found.items():
        rows = slice(TOKENS if name == EMBEDDING else None)
        moved_by = floats(fine[name])[rows] - floats(base[name])
        want = floats(other[name])[rows] + moved_by
        assert np.allclose(floats(held)[rows], want, rtol=2**-7, atol=2**-7)
    assert np.array_equal(found[EMBEDDING].bits[TOKENS:], fine[EMBEDDING].bits[TOKENS:])


@pytest.mark.situation("the base ties its output matrix, and the fine-tune has one of its own")
def test_an_output_matrix_of_its_own_is_a_tensor_of_the_vector(tied: CommandLine) -> None:
    place = place_of(tied)
    model = tuned(place / "base", place / "head", 1, head=True)
    plain = tuned(place / "base", place / "plain", 2)
    said = tied.refused(4, "commit", "../head", "-m", "head", "--extra", "ignore")
    assert "leaving it out changes the model" in said
    follow(tied, "commit", "../head", "-m", "head")
    assert same(check_out(tied), model)
    assert same_answers(tied.directory, place / "head")
    tied.ok("commit", "../plain", "-m", "plain", "--alpha", "0.5")
    want = mixed(read_weights(place / "base"), [(model, "1"), (plain, "0.5")], Rules.of("ties"))
    assert same(check_out(tied), want)
    tied.ok("set", "head", "--alpha", "0")
    tied.ok("set", "plain", "--alpha", "1")
    tied.ok("checkout")
    assert same_answers(tied.directory, place / "plain")


@pytest.mark.situation("the fine-tune has new tokens and an output matrix of its own")
def test_new_tokens_and_an_output_matrix_come_together(tied: CommandLine) -> None:
    place = place_of(tied)
    model = tuned(place / "base", place / "both", 1, tokens=64, head=True)
    tied.ok("commit", "../both", "-m", "both", "--extend-vocab", "--untie")
    assert same(check_out(tied), model)
    assert same_answers(tied.directory, place / "both")
    tied.ok("checkout", "-o", "../out")
    assert same(read_weights(place / "out"), model)
    assert same_answers(place / "out", place / "both")


@pytest.mark.situation("one vector has new tokens, another one an output matrix of its own")
def test_the_output_matrix_of_one_vector_gets_the_tokens_of_another(tied: CommandLine) -> None:
    place = place_of(tied)
    grown = tuned(place / "base", place / "grown", 1, tokens=3)
    head = tuned(place / "base", place / "head", 2, head=True)
    tied.ok("commit", "../grown", "-m", "grown", "--extend-vocab")
    tied.ok("commit", "../head", "-m", "head", "--untie")
    want = mixed(read_weights(place / "base"), [(grown, "1"), (head, "1")], Rules.of("ties"))
    assert same(check_out(tied), want)
    assert answers(tied.directory).shape[-1] == TOKENS + 3


@pytest.mark.situation("a vector with other new tokens is dropped first")
def test_new_tokens_follow_others(tied: CommandLine) -> None:
    place = place_of(tied)
    tuned(place / "base", place / "one", 1, tokens=1)
    model = tuned(place / "base", place / "more", 2, tokens=3)
    tied.ok("commit", "../one", "-m", "one", "--extend-vocab")
    tied.ok("rm", "one")
    tied.ok("add", "../more", "--extend-vocab")
    assert same(check_out(tied), model)
    assert texts(tied.directory) == texts(place / "more")
    assert same_answers(tied.directory, place / "more")


@pytest.mark.situation(
    "the fine-tune was trained from a revision with new tokens or an output matrix of its own"
)
def test_training_in_place_needs_no_flag_for_the_rows_of_its_revision(tied: CommandLine) -> None:
    place = place_of(tied)
    tuned(place / "base", place / "both", 1, tokens=2, head=True)
    tied.ok("commit", "../both", "-m", "both", "--extend-vocab", "--untie")
    start, before = check_out(tied), texts(tied.directory)
    write_file(tied.directory / "model.safetensors", moved(start, 3))
    tied.ok("commit", ".", "-m", "mine", "-n", "mine", "--onto", "HEAD")
    tied.ok("revert", "both")
    assert texts(tied.directory) == before
    assert len(check_out(tied)[EMBEDDING].bits) == TOKENS + 2
    answers(tied.directory)
    tied.ok("revert", "mine")
    assert texts(tied.directory) == texts(place / "base")


@pytest.mark.situation("biases of the vocabulary have new elements")
def test_biases_of_the_vocabulary_grow(families: Callable[[str], Path], tmp_path: Path) -> None:
    run = begun(families("phi"), tmp_path)
    model = tuned(tmp_path / "base", tmp_path / "grown", 1, tokens=2)
    assert model["lm_head.bias"].bits.shape == (TOKENS + 2,)
    follow(run, "commit", "../grown", "-m", "grown")
    assert same(check_out(run), model)
    assert same_answers(run.directory, tmp_path / "grown")


@pytest.mark.situation("the model shares its embedding under several names, and has new tokens")
@pytest.mark.parametrize("family", ["t5 with copies", "bart with copies"])
def test_all_names_of_an_embedding_grow(families: Callable[[str], Path], tmp_path: Path, family: str) -> None:
    run = begun(families(family), tmp_path)
    model = tuned(tmp_path / "base", tmp_path / "grown", 1, tokens=2)
    follow(run, "commit", "../grown", "-m", "grown")
    assert same(check_out(run), model)
    assert same_answers(run.directory, tmp_path / "grown")


def test_a_live_model_has_the_new_rows(tied: CommandLine) -> None:
    place = place_of(tied)
    tuned(place / "base", place / "both", 1, tokens=64, head=True)
    tied.ok("commit", "../both", "-m", "both", "--extend-vocab", "--untie")
    with persona.open(tied.directory) as repo:
        model = repo.load("HEAD")
        assert same_answers(model, place / "both")
        with repo.live(model, "HEAD") as live:
            live.set("both", alpha=0.5)
            repo.recipe.set("both", alpha=0.5)
            assert live.digest() == repo.digest().weights


@pytest.mark.parametrize("kind", [{"tokens": 1}, {"head": True}], ids=["tokens", "head"])
def test_a_live_model_stays_whole_where_a_revision_has_other_shapes(
    tied: CommandLine, kind: dict[str, int]
) -> None:
    place = place_of(tied)
    tuned(place / "base", place / "grown", 1, **kind)
    tied.ok("commit", "../grown", "-m", "grown", "--extend-vocab", "--untie")
    with persona.open(tied.directory) as repo:
        model = repo.load("HEAD~1")
        with repo.live(model, "HEAD~1") as live:
            with pytest.raises(InvalidInput) as caught:
                live.checkout("HEAD")
            assert "load the model with" in str(caught.value)
            assert live.digest() == repo.digest("HEAD~1").weights
            assert same_answers(model, place / "base")
