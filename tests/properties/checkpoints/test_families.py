"""Families of models: the fine-tune comes back as a model that transformers loads, and live models follow."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import persona
from persona.errors import InvalidInput
from tests.advice import follow
from tests.checkpoints import read_weights, same, write_model
from tests.cli.command_line import CommandLine
from tests.families import FAMILIES, SMALL, loaded, random_model, same_answers, train


@dataclass(frozen=True)
class Home:
    """A repository `bot` with one commit of the fine-tune `tuned`, checked out."""

    place: Path
    said: str
    """The notes of `init`, `commit` and `checkout`."""

    @property
    def bot(self) -> Path:
        return self.place / "bot"

    @property
    def tuned(self) -> Path:
        return self.place / "tuned"


def home(source: Path, place: Path) -> Home:
    place.mkdir(exist_ok=True)
    (place / "base").symlink_to(source)
    train(source, place / "tuned")
    said = [CommandLine(place)("init", "bot", "--base", "base")]
    run = CommandLine(place / "bot")
    said += [run("commit", "../tuned", "-m", "as it was trained"), run("checkout")]
    assert [result.exit_code for result in said] == [0, 0, 0], [result.output for result in said]
    return Home(place, "".join(result.stderr for result in said))


@pytest.fixture(scope="module")
def homes(families: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Home]:
    """The repository of a family, which is only read."""
    made: dict[str, Home] = {}

    def find(name: str) -> Home:
        if name not in made:
            made[name] = home(families(name), tmp_path_factory.mktemp("home"))
        return made[name]

    return find


@pytest.mark.parametrize("name", FAMILIES)
def test_the_fine_tune_comes_back(homes: Callable[[str], Home], name: str) -> None:
    found = homes(name)
    assert same(read_weights(found.bot), read_weights(found.tuned))
    assert same_answers(found.bot, found.tuned)
    assert not same_answers(found.bot, found.place / "base")
    with persona.open(found.bot) as repo:
        assert same_answers(repo.load("HEAD"), found.tuned)


@pytest.mark.situation(
    "the family's tensors have other names in memory than on disk (LLaVA, GPT-2 of the hub)",
    "experts lie one by one on disk and stacked in memory (Mixtral)",
    "the base holds a tied matrix under several names (T5, BART, Whisper)",
    "transformers keeps some parameters in float32, whatever the checkpoint has (T5 in half precision)",
    "the base holds tensors that transformers leaves out (masks of GPT-2, `position_ids`)",
)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_live_model_follows_the_recipe(homes: Callable[[str], Home], name: str) -> None:
    found = homes(name)
    with persona.open(found.bot) as repo:
        with repo.live(rev="HEAD") as live:
            assert same_answers(live.model, found.tuned)
            assert live.digest() == repo.digest("HEAD").weights
            live.set("tuned", alpha=0.5)
            half = live.digest()
            live.checkout("HEAD~1")
            assert same_answers(live.model, found.place / "base")
            assert live.digest() == repo.digest("HEAD~1").weights
        with repo.live(loaded(found.place / "base"), "HEAD") as live:
            assert same_answers(live.model, found.tuned)
            live.set("tuned", alpha=0.5)
            assert live.digest() == half


def test_one_tensor_of_a_joined_parameter_can_change(homes: Callable[[str], Home]) -> None:
    with persona.open(homes("mixtral").bot) as repo, repo.live(rev="HEAD") as live:
        everything = live.digest()
        assert live.set("tuned", only="*experts.1.w3*").tensors_computed
        other = live.digest()
        assert other != everything
        assert live.undo().tensors_computed
        assert live.digest() == everything


@pytest.mark.situation("the family computes other tensors when it loads a checkpoint (NomicBERT's fused qkv)")
def test_a_live_model_that_cannot_follow_is_refused(tmp_path: Path) -> None:
    without = ("num_key_value_heads", "bos_token_id", "eos_token_id")
    settings = {name: SMALL[name] for name in SMALL if name not in without}
    model = random_model("NomicBert", "float32", head="MaskedLM", **settings)
    model.save_pretrained(tmp_path / "nomic")
    found = home(tmp_path / "nomic", tmp_path / "home")
    assert same_answers(found.bot, found.tuned)
    with persona.open(found.bot) as repo:
        with pytest.raises(
            InvalidInput, match=r"NomicBert.*Wqkv.*is not supported\nhint: `repo.checkout\(\)`"
        ):
            repo.live(rev="HEAD")
        assert same_answers(repo.load("HEAD"), found.tuned)


@pytest.mark.situation("`consolidated.safetensors` beside the weights (Mistral)")
def test_native_weights_beside_the_model_are_left_out(homes: Callable[[str], Home]) -> None:
    found = homes("mistral with consolidated")
    assert "left out: consolidated.safetensors" in found.said
    assert not (found.bot / "consolidated.safetensors").exists()
    assert json.loads((found.bot / "params.json").read_text())["dim"] == 16


@pytest.mark.situation("the fine-tune is of another family than the base")
def test_a_fine_tune_of_another_family_is_refused(
    homes: Callable[[str], Home], families: Callable[[str], Path]
) -> None:
    run = CommandLine(homes("bart").bot)
    before = run.ok("log", "--oneline")
    assert "the base does not have" in run.refused(4, "commit", families("phi"), "-m", "x")
    assert run.ok("log", "--oneline") == before


def test_a_sentence_transformer_keeps_its_modules_and_names_weights_of_others(
    homes: Callable[[str], Home],
) -> None:
    found = homes("sentence-transformers")
    listed = [module["path"] for module in json.loads((found.bot / "modules.json").read_text())]
    assert listed == ["", "1_Pooling", "2_Dense"]
    for module in listed[1:]:
        config = f"{module}/config.json"
        assert (found.bot / config).read_bytes() == (found.tuned / config).read_bytes()
    assert "left out: 2_Dense/model.safetensors" in found.said
    assert not (found.bot / "2_Dense" / "model.safetensors").exists()


def test_another_model_of_the_family_is_remarked_on_beside_its_masks(
    homes: Callable[[str], Home], tmp_path: Path
) -> None:
    here = homes("gpt2 of the hub").place
    model = read_weights(here / "base")
    other = {re.sub(r"^h\.(\d)", lambda found: f"h.{1 - int(found[1])}", name): model[name] for name in model}
    write_model(tmp_path / "other", other)
    run = CommandLine(tmp_path)
    run.ok("init", "bot", "--base", here / "base")
    assert "is it a fine-tune of this base?" in run("-C", "bot", "add", "../other").stderr


LAYOUTS = {
    "gpt2 of the hub": "gpt2",
    "mixtral": "mixtral stacked",
    "mixtral stacked": "mixtral",
    "t5 with copies": "t5",
    "t5": "t5 with copies",
    "bart with copies": "bart",
    "bart": "bart with copies",
    "whisper with copies": "whisper",
    "whisper": "whisper with copies",
    "bert with gamma and beta": "bert",
    "bert": "bert with gamma and beta",
    "llava": "llava in memory",
    "llava in memory": "llava",
    "gpt2": "gpt2 of the hub",
}
"""The layout of a base → that of a fine-tune of the same model."""


@pytest.mark.parametrize("base", LAYOUTS)
def test_a_fine_tune_in_another_layout_is_the_same_model(
    families: Callable[[str], Path], tmp_path: Path, base: str
) -> None:
    train(families(LAYOUTS[base]), tmp_path / "tuned")
    CommandLine(tmp_path).ok("init", "bot", "--base", families(base))
    run = CommandLine(tmp_path / "bot")
    words = ["commit", "../tuned", "-m", "in another layout"]
    if run(*words).exit_code:
        follow(run, *words)
    run.ok("checkout")
    assert read_weights(run.directory).keys() == read_weights(families(base)).keys()
    assert same_answers(run.directory, tmp_path / "tuned")


@pytest.mark.situation("the fine-tune has new tokens, and other names or copies than the base")
@pytest.mark.parametrize(
    "name", ["gpt2 of the hub", "bert with gamma and beta", "t5 with copies", "bart with copies", "llava"]
)
def test_a_fine_tune_with_new_tokens_comes_back(
    families: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    model = loaded(train(families(name), tmp_path / "tuned"))
    model.resize_token_embeddings(model.get_input_embeddings().num_embeddings + 3, mean_resizing=False)
    model.save_pretrained(tmp_path / "grown")
    CommandLine(tmp_path).ok("init", "bot", "--base", families(name))
    run = CommandLine(tmp_path / "bot")
    follow(run, "commit", "../grown", "-m", "with new tokens")
    run.ok("checkout")
    assert same_answers(run.directory, tmp_path / "grown")
    with persona.open(run.directory) as repo, repo.live(rev="HEAD") as live:
        assert same_answers(live.model, tmp_path / "grown")
