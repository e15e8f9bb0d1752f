"""A live model holds the checkout of what it was told, to the bit, whatever happens."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import persona
from persona.errors import BusyError, IntegrityError, InvalidInput, Refused, UnknownName, UsageError
from persona.live.model import LiveModel
from persona.repository import Repository
from tests.checkpoints import Tensor, digest_of_files, same
from tests.llamas import DTYPES, LlamaBot, llama

LAYER = "model.layers.1."
NORM = "model.norm.weight"
WORDS = torch.arange(6).reshape(1, 6)


@pytest.fixture
def live(repo: Repository) -> LiveModel:
    return repo.live(rev="HEAD")


def bits(model: torch.nn.Module) -> dict[str, Tensor]:
    """The parameters as the bits they hold."""
    held = {}
    names = {torch.bfloat16: ("BF16", torch.int16, np.uint16), torch.float16: ("F16", torch.int16, np.uint16)}
    names[torch.float32] = ("F32", torch.int32, np.uint32)
    for name, tensor in model.state_dict().items():
        dtype, integer, unsigned = names[tensor.dtype]
        held[name] = Tensor(dtype, tensor.clone().contiguous().view(integer).numpy().view(unsigned))
    return held


def state(live: LiveModel) -> dict[str, torch.Tensor]:
    return dict(live.model.state_dict(keep_vars=True))


class Stop(Exception):
    """What a progress callback raises here."""


class Cut:
    """A progress callback that raises in the middle of each of the next merges, as often as it was told."""

    def __init__(self, error: type[BaseException] = Stop) -> None:
        self.error = error
        self.times = 0

    def __call__(self, label: str, done: int, total: int) -> None:
        if label == "merging" and self.times and 2 * done > total:
            self.times -= 1
            raise self.error("cut short")


@pytest.fixture
def cut() -> Cut:
    return Cut()


@pytest.fixture
def cuttable(repo: Repository, cut: Cut) -> LiveModel:
    return repo.live(rev="HEAD", progress=cut)


# -- load


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_load_gives_what_from_pretrained_gives_of_the_checkout(
    begin: Callable[..., LlamaBot], dtype: str, tied: bool
) -> None:
    bot = begin(dtype=dtype, tied=tied)
    bot.tune("one", 1)
    bot.run.ok("commit", "../one", "--alpha", "0.7", "-m", "one")
    bot.checkout()
    expected = transformers.AutoModelForCausalLM.from_pretrained(bot.root, dtype="auto")
    with persona.open(bot.root) as repo:
        model = repo.load("HEAD")
        assert type(model) is type(expected)
        assert not model.training
        assert same(bits(model), bits(expected))
        assert model.generation_config.to_dict() == expected.generation_config.to_dict()
        with torch.no_grad():
            assert torch.equal(model(WORDS).logits, expected(WORDS).logits)
        assert repo.load("HEAD", dtype=torch.float32).dtype == torch.float32


def test_load_computes_the_recipe_as_it_stands(repo: Repository) -> None:
    repo.recipe.set("one", alpha=0.25)
    live = repo.live(repo.load())
    assert (live.revision, live.digest()) == (None, repo.digest().weights)
    assert repo.live(rev="HEAD").digest() == repo.digest("HEAD").weights != live.digest()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('{"model_type": "tiny"}', "'tiny'"),
        ('{"model_type": "vit", "architectures": ["Nothing"]}', "Nothing"),
        ("[1, 2]", "not a JSON object"),
        ("{", "not a JSON object"),
        (None, "no config.json"),
    ],
)
def test_a_config_without_a_class_is_refused_by_name(
    grown: LlamaBot, repo: Repository, config: str | None, said: str
) -> None:
    path = grown.root / "config.json"
    path.unlink()
    if config is not None:
        path.write_text(config)
    with pytest.raises(InvalidInput, match=said):
        repo.load()


def test_code_that_comes_with_a_model_is_never_run(repo: Repository) -> None:
    with pytest.raises(UsageError, match="trust_remote_code"):
        repo.load("HEAD", trust_remote_code=True)


def test_a_base_that_lacks_tensors_of_its_class_is_refused_by_name(grown: LlamaBot, repo: Repository) -> None:
    config = grown.root / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(InvalidInput, match=r"needs tensor model\.layers\.2\."):
        repo.load()


# -- what is set is what a checkout computes

STRENGTHS = st.sampled_from(["-1.5", "-0.5", "0", "0.001", "0.4", "1", "2"])
CHANGES = st.one_of(
    st.tuples(st.just("set"), st.sampled_from(["one", "two", "three"]), STRENGTHS),
    st.tuples(st.just("rules"), st.just("density"), st.sampled_from(["0.05", "0.2", "0.5", "1"])),
    st.tuples(st.just("rules"), st.just("preset"), st.sampled_from(["ties", "paper", "peft", "mergekit"])),
    st.tuples(st.just("rules"), st.just("lambda"), st.sampled_from(["0.5", "1"])),
    st.tuples(st.just("checkout"), st.sampled_from(["main", "main~1", "main~2", "main~3"]), st.just("")),
)


@pytest.mark.parametrize(
    ("dtype", "cache"), [(dtype, cache) for dtype in DTYPES for cache in (0, 20_000, 1 << 20)]
)
def test_any_changes_leave_the_weights_of_the_recipe_that_they_make(
    begin: Callable[..., LlamaBot], dtype: str, cache: int
) -> None:
    bot = begin(dtype=dtype, tied=dtype == "BF16")
    for seed, name in enumerate(("one", "two", "three")):
        bot.tune(name, seed, LAYER if name == "three" else "")
        bot.run.ok("commit", f"../{name}", "-m", name)
    with persona.open(bot.root) as repo:
        live = repo.live(repo.load("main"), "main", cache=cache)

        @settings(max_examples=6)
        @given(st.lists(CHANGES, min_size=1, max_size=6))
        def check(changes: list[tuple[str, str, str]]) -> None:
            live.checkout("main")
            repo.checkout("main", weights=False, force=True)
            for what, name, value in changes:
                if what == "checkout":
                    live.checkout(name)
                    repo.checkout(name, weights=False, force=True)
                elif what == "rules":
                    live.set_rules({name: value})
                    repo.recipe.set_rules({name: value})
                elif name in live.recipe.vectors:
                    live.set(name, alpha=value)
                    repo.recipe.set(name, alpha=value)
                else:
                    with pytest.raises(UnknownName, match=name):
                        live.set(name, alpha=value)
            assert live.digest() == repo.digest().weights

        check()


def test_two_hundred_changes_in_a_row_leave_no_drift(repo: Repository, live: LiveModel) -> None:
    before, expected = bits(live.model), repo.digest("HEAD").weights
    random = np.random.default_rng(0)
    for _ in range(200):
        name = str(random.choice(["one", "two", "three"]))
        if random.random() < 0.1:
            live.checkout(f"HEAD~{random.integers(1, 4)}")
        elif name in live.recipe.vectors:
            live.set(name, alpha=float(random.normal()))
    assert live.digest() != expected
    live.checkout("HEAD")
    assert live.digest() == expected == repo.digest("HEAD").weights
    assert same(bits(live.model), before)


def test_the_digest_is_that_of_the_files_of_the_checkout(grown: LlamaBot, repo: Repository) -> None:
    live = repo.live(repo.load("HEAD~2"), "HEAD")
    result = live.set("two", alpha=0.4, density=0.3, only=["*mlp*"], join="add")
    assert result.revision is None
    assert live.revision is None
    grown.run.ok("set", "two", "--alpha", "0.4", "--density", "0.3", "--only", "*mlp*", "--join", "add")
    grown.checkout()
    assert live.digest() == digest_of_files(grown.root)
    live.set("two", only=())
    grown.run.ok("set", "two", "--only", "")
    assert live.digest() == repo.digest().weights


def test_set_back_to_what_a_commit_has_it_is_that_commit_again(repo: Repository, live: LiveModel) -> None:
    head = repo.resolve("HEAD")
    assert live.revision == head
    assert live.set("one", alpha=0.5).revision is None
    assert live.set("one", alpha=1).revision == live.revision == head
    assert live.checkout().revision == head  # recipe.toml as HEAD has it


def test_a_density_is_taken_back(live: LiveModel) -> None:
    before = live.digest()
    live.set("one", density=np.float32(0.25))
    with pytest.raises(InvalidInput, match="remove it"):
        live.set_rules({"preset": "linear"})
    live.set("one", density="default")
    assert live.recipe.vectors["one"].density is None
    assert live.digest() == before
    live.set_rules({"preset": "linear"})


def test_undo_takes_back_one_change_after_another_to_the_bit(repo: Repository, live: LiveModel) -> None:
    states = [(live.revision, live.recipe, live.digest())]
    for change in (
        lambda: live.set("one", alpha=0.25),
        lambda: live.set_rules({"density": 0.5}),
        lambda: live.checkout("HEAD~1"),
        lambda: live.set("one", alpha=-1),
    ):
        change()
        states.append((live.revision, live.recipe, live.digest()))
    live.set("one", alpha=-1)  # no change
    for state in states[-2::-1]:
        live.undo()
        assert (live.revision, live.recipe, live.digest()) == state
    with pytest.raises(Refused, match="nothing to undo"):
        live.undo()
    assert live.revision == repo.resolve("HEAD")


def test_an_edit_that_gives_the_former_recipe_after_undo_is_the_revision_again(live: LiveModel) -> None:
    live.checkout("HEAD~1")
    live.undo()
    before = live.recipe.vectors["one"].alpha
    live.set("one", alpha=0.25)
    assert live.revision is None
    live.set("one", alpha=before)
    assert live.revision is not None


@pytest.mark.parametrize("rescale", [True, False, "norm"])
@pytest.mark.parametrize("preset", ["dare_ties", "della", "breadcrumbs"])
def test_a_filter_is_that_of_the_checkout_and_alpha_moves(
    repo: Repository, live: LiveModel, preset: str, rescale: bool | str
) -> None:
    axes: dict[str, Any] = {"preset": preset, "density": 0.5}
    if preset != "breadcrumbs":
        axes |= {"seed": 7, "rescale": rescale}
    live.set_rules(axes)
    repo.recipe.set_rules(axes)
    assert live.digest() == repo.digest().weights
    before = live.digest()
    for alpha in (0.4, -1.5):
        live.set("one", alpha=alpha)
        repo.recipe.set("one", alpha=alpha)
        assert live.digest() == repo.digest().weights != before
    if preset != "breadcrumbs":
        live.set_rules({"seed": 8})
        assert live.digest() != repo.digest().weights
        live.set_rules({"seed": 7})
        assert live.digest() == repo.digest().weights
        for other in (True, "norm", False):
            live.set_rules({"rescale": other})
            repo.recipe.set_rules({"rescale": other})
            assert live.digest() == repo.digest().weights


def test_a_number_of_numpy_or_torch_is_a_number(live: LiveModel) -> None:
    live.set("one", alpha=np.linspace(0, 1, 5)[2])  # type: ignore[arg-type]
    assert live.recipe.vectors["one"].alpha == 0.5
    live.set("one", alpha=torch.tensor(0.25))  # type: ignore[arg-type]
    assert live.recipe.vectors["one"].alpha == 0.25


def test_a_list_is_spread_over_the_layers(grown: LlamaBot, repo: Repository, live: LiveModel) -> None:
    live.set("one", alpha=torch.linspace(0, 1, 3), density=[0.5, 1])  # type: ignore[arg-type]
    assert live.recipe.vectors["one"].alpha == (0, 0.5, 1)
    grown.run.ok("set", "one", "--alpha", "0,0.5,1", "--density", "0.5,1")
    assert live.digest() == repo.digest().weights
    live.set("one", alpha=(0, 0.5, 1, 1), density="default")
    grown.run.ok("set", "one", "--alpha", "0,0.5,1,1", "--no-density")
    assert live.digest() == repo.digest().weights
    with pytest.raises(InvalidInput, match=r"^alpha: the list has no number"):
        live.set("one", alpha=[])


def test_what_cannot_be_set_changes_nothing(repo: Repository, live: LiveModel) -> None:
    def refused(error: type[Exception], said: str, call: Callable[[], object]) -> None:
        with pytest.raises(error, match=said):
            call()
        assert live.digest() == repo.digest("HEAD").weights

    refused(UnknownName, "'four'.*one", lambda: live.set("four", alpha=1))
    refused(UsageError, "nothing to set", lambda: live.set("one"))
    refused(UsageError, "nothing to set", lambda: live.set_rules({}))
    refused(InvalidInput, "alpha", lambda: live.set("one", alpha="nan"))
    refused(InvalidInput, "alpha", lambda: live.set("one", alpha=True))
    refused(InvalidInput, "density", lambda: live.set("one", density=0))
    refused(InvalidInput, "join", lambda: live.set("one", join="glue"))
    refused(InvalidInput, r"^only: 'layers\.0\.\*' matches none", lambda: live.set("one", only="layers.0.*"))
    refused(InvalidInput, "^except_: .*leaves none", lambda: live.set("one", except_=["*"]))
    refused(UsageError, "^name must be text", lambda: live.set(None))  # type: ignore[arg-type]
    refused(InvalidInput, "colour", lambda: live.set_rules({"colour": "red"}))
    refused(persona.UnknownRevision, "nowhere", lambda: live.checkout("nowhere"))


def test_neither_the_recipe_nor_head_moves(grown: LlamaBot, repo: Repository, live: LiveModel) -> None:
    before, head = grown.recipe.read_bytes(), repo.head()
    live.set("one", alpha=0.1)
    live.checkout("HEAD~1")
    assert (grown.recipe.read_bytes(), repo.head()) == (before, head)


# -- changed tensors only


def test_only_tensors_whose_inputs_changed_are_written(grown: LlamaBot, live: LiveModel) -> None:
    versions = {name: tensor._version for name, tensor in state(live).items()}
    result = live.set("three", alpha=0.5)
    inside = [name for name in grown.base if name.startswith(LAYER)]
    assert result.tensors_computed == len(inside)
    assert result.tensors_reused == len(grown.base) - len(inside)
    changed = {name for name, tensor in state(live).items() if tensor._version != versions[name]}
    assert changed == set(inside)
    again = live.set("three", alpha=0.5)
    assert (again.tensors_computed, again.bytes_written) == (0, 0)


def test_the_parameters_stay_where_they_are(live: LiveModel) -> None:
    places = {name: tensor.data_ptr() for name, tensor in state(live).items()}
    live.checkout("HEAD~2")
    assert places == {name: tensor.data_ptr() for name, tensor in state(live).items()}


def test_a_fresh_model_is_computed_once(repo: Repository) -> None:
    merged = []
    repo.live(rev="HEAD", progress=lambda label, done, total: merged.append((label, done == total)))
    assert merged.count(("merging", True)) == 1


def test_autograd_notices_a_merge_between_forward_and_backward(live: LiveModel) -> None:
    loss = live.model(WORDS).logits.float().sum()
    live.set("one", alpha=0.3)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_files_that_a_model_is_mapped_from_stay_as_they_are(grown: LlamaBot, repo: Repository) -> None:
    before = {path: path.read_bytes() for path in (grown.place / "base").iterdir()}
    model = transformers.AutoModelForCausalLM.from_pretrained(grown.place / "base", dtype="auto")
    live = repo.live(model, "HEAD")
    live.set("one", alpha=2)
    assert live.model is model
    assert before == {path: path.read_bytes() for path in before}


def test_a_model_of_anything_is_filled_from_nothing(
    grown: LlamaBot, repo: Repository, tmp_path: Path
) -> None:
    llama(tmp_path / "other", seed=9)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "other", dtype="auto")
    assert repo.live(model, "HEAD~1").digest() == repo.digest("HEAD~1").weights


# -- tied weights, dtypes, memory of other kinds


def test_a_tied_head_follows_its_embedding(begin: Callable[..., LlamaBot]) -> None:
    bot = begin(tied=True)
    bot.tune("one", 1)
    bot.run.ok("commit", "../one", "-m", "one")
    with persona.open(bot.root) as repo:
        live = repo.live(rev="HEAD~1")
        head, before = live.model.get_output_embeddings(), bits(live.model)["lm_head.weight"]
        live.checkout("HEAD")
        assert head.weight.data_ptr() == state(live)["model.embed_tokens.weight"].data_ptr()
        assert not before.same(bits(live.model)["lm_head.weight"])
        assert live.digest() == repo.digest("HEAD").weights
        with torch.no_grad():
            head.weight = torch.nn.Parameter(head.weight.clone())
        with pytest.raises(InvalidInput, match=r"lm_head\.weight.*tie_weights"):
            live.checkout("HEAD~1")
        live.model.tie_weights()
        live.checkout("HEAD~1")
        assert live.digest() == repo.digest("HEAD~1").weights


def test_tensors_that_share_memory_but_not_in_the_base_are_refused(live: LiveModel) -> None:
    live.model.lm_head.weight = live.model.model.embed_tokens.weight
    with pytest.raises(InvalidInput, match=r"lm_head\.weight.*share memory"):
        live.set("one", alpha=0.5)


def transposed(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.t().contiguous().t()


def misaligned(tensor: torch.Tensor) -> torch.Tensor:
    room = torch.empty(tensor.nbytes + 1, dtype=torch.uint8)[1:]
    odd = torch.frombuffer(room.numpy(), dtype=tensor.dtype).view(tensor.shape)
    return odd.copy_(tensor.detach())


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("lay", [transposed, misaligned])
def test_memory_that_is_laid_out_otherwise_is_filled_all_the_same(
    repo: Repository, lay: Callable[[torch.Tensor], torch.Tensor], inference: bool
) -> None:
    with torch.inference_mode(inference):
        model = repo.load("HEAD~1")
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.data = lay(parameter.data)
    odd = dict(model.named_parameters())[f"{LAYER}mlp.up_proj.weight"]
    place = odd.data_ptr()
    live = repo.live(model, "HEAD")
    assert live.digest() == repo.digest("HEAD").weights
    live.set("one", alpha=0.3)
    live.checkout("HEAD~2")
    assert live.digest() == repo.digest("HEAD~2").weights
    assert odd.data_ptr() == place
    assert odd.is_contiguous() == (lay is misaligned)


def spoil(model: Any, what: str) -> torch.nn.Module:
    """A model that no longer fits, in one of several ways."""
    if what == "dtype":
        model.model.norm.float()
    elif what == "shape":
        model.resize_token_embeddings(40)
    elif what == "meta":
        model.model.norm.to("meta")
    elif what == "part":
        return model.model  # type: ignore[no-any-return]
    elif what == "wrapped":
        return torch.nn.DataParallel(model)
    elif what == "more":
        model.extra = torch.nn.Linear(2, 2)
    elif what == "sparse":
        weight = model.lm_head.weight.detach().float().to_sparse()
        model.lm_head.weight = torch.nn.Parameter(weight, requires_grad=False)
    return model  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("dtype", r"tensor model\.norm\.weight is float32 in the model and bfloat16 in the base"),
        (
            "shape",
            r"tensor lm_head\.weight has the shape \[40, 16\] in the model and \[37, 16\].*of this revision",
        ),
        ("meta", r"tensor model\.norm\.weight of the model is on the meta device"),
        ("part", r"no tensor lm_head\.weight: give the whole model"),
        ("wrapped", r"no tensor lm_head\.weight and 20 more.*whole model"),
        ("more", r"parameter extra\.(weight|bias) that is none of the base's"),
        ("sparse", r"tensor lm_head\.weight of the model is a Tensor \(torch\.sparse"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # what spoils a model may say so
def test_a_model_that_does_not_fit_is_refused_by_the_tensor(repo: Repository, what: str, said: str) -> None:
    model = repo.load("HEAD~1")
    with pytest.raises(InvalidInput, match=said):
        repo.live(spoil(model, what), "HEAD")
    live = repo.live(repo.load("HEAD"), "HEAD")
    if what not in ("part", "wrapped"):
        spoil(live.model, what)
        with pytest.raises(InvalidInput, match=said):
            live.checkout("HEAD~1")


def test_what_is_no_model_is_no_model(repo: Repository) -> None:
    with pytest.raises(UsageError, match="str"):
        repo.live("HEAD")  # type: ignore[arg-type]


# -- changed by somebody else


def test_training_in_between_is_not_thrown_away_unasked(repo: Repository, live: LiveModel) -> None:
    with torch.no_grad():
        state(live)[NORM].add_(1)
    trained = bits(live.model)
    assert live.digest() != repo.digest("HEAD").weights
    with pytest.raises(Refused, match=r"model\.norm\.weight.*force"):
        live.set("three", alpha=0.5)
    assert same(bits(live.model), trained)
    live.set("three", alpha=1, force=True)
    assert live.digest() == repo.digest("HEAD").weights


def test_tensors_that_moved_are_computed_again(repo: Repository, live: LiveModel) -> None:
    state(live)[NORM].data = torch.zeros(16, dtype=torch.bfloat16)
    result = live.set("three", alpha=0.5)
    assert result.tensors_computed == 1 + sum(name.startswith(LAYER) for name in state(live))
    live.set("three", alpha=1)
    assert live.digest() == repo.digest("HEAD").weights


# -- cut short


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, MemoryError])
def test_a_change_that_is_cut_short_never_happened(
    cuttable: LiveModel, cut: Cut, error: type[BaseException]
) -> None:
    before = bits(cuttable.model)
    cut.error, cut.times = error, 1
    with pytest.raises(error, match="cut short"):
        cuttable.set("one", alpha=0.2)
    assert cut.times == 0
    assert not cuttable.half_done
    assert same(bits(cuttable.model), before)
    assert cuttable.recipe.vectors["one"].alpha == 1
    assert cuttable.model(WORDS).logits.isfinite().all()


@pytest.mark.parametrize("way", ["resume", "abort", "checkout"])
def test_a_change_that_is_cut_short_twice_is_half_done_until_somebody_says_what(
    repo: Repository, cuttable: LiveModel, cut: Cut, way: str
) -> None:
    head = repo.digest("HEAD").weights
    cut.error, cut.times = KeyboardInterrupt, 2
    with pytest.raises(KeyboardInterrupt) as caught:
        cuttable.checkout("HEAD~1")
    assert any("half way" in note for note in caught.value.__notes__)
    assert cuttable.half_done
    assert cuttable.revision == repo.resolve("HEAD")
    said = r"half way from [0-9a-f]{8} to [0-9a-f]{8}: live\.resume\(\).*live\.abort\(\)"
    for use in (lambda: cuttable.model(WORDS), cuttable.digest, lambda: cuttable.set("one", alpha=1)):
        with pytest.raises(Refused, match=said):
            use()
    with pytest.raises(Refused, match="half way"), cuttable.using():
        pass
    if way == "checkout":
        cuttable.checkout("HEAD~2")
        assert cuttable.digest() == repo.digest("HEAD~2").weights
    else:
        getattr(cuttable, way)()
        assert cuttable.digest() == (head if way == "abort" else repo.digest("HEAD~1").weights)
    assert not cuttable.half_done
    cuttable.model(WORDS)
    cuttable.checkout("HEAD")
    assert cuttable.digest() == head


def test_what_makes_it_whole_may_be_cut_short_as_well(
    repo: Repository, cuttable: LiveModel, cut: Cut
) -> None:
    cut.times = 2
    with pytest.raises(Stop):
        cuttable.set("one", alpha=0.2)
    for call in (cuttable.abort, cuttable.abort):
        cut.times = 1
        with pytest.raises(Stop) as caught:
            call()
        assert cuttable.half_done
        assert "half way back" in caught.value.__notes__[0]
    cuttable.abort()
    assert cuttable.digest() == repo.digest("HEAD").weights
    for call in (cuttable.abort, cuttable.resume):
        with pytest.raises(UsageError, match="no change was interrupted"):
            call()


def test_a_model_that_was_never_whole_stays_shut_until_it_is(repo: Repository, cut: Cut) -> None:
    model = repo.load("HEAD~3")
    cut.times = 1
    with pytest.raises(Stop):
        repo.live(model, "HEAD", progress=cut)
    with pytest.raises(Refused, match=r"repo\.live\(model"):
        model(WORDS)
    live = repo.live(model, "HEAD", progress=cut)
    assert live.digest() == repo.digest("HEAD").weights
    model(WORDS)


def test_damage_in_the_store_ends_half_done_and_is_healed_to_the_bit(
    grown: LlamaBot, repo: Repository
) -> None:
    live = repo.live(rev="HEAD", cache=0)
    before = bits(live.model)
    pack = max((grown.root / ".persona" / "packs").glob("*.pack"), key=lambda path: path.stat().st_mtime_ns)
    whole = pack.read_bytes()
    pack.write_bytes(whole[:64] + bytes(b ^ 255 for b in whole[64:-2048]) + whole[-2048:])
    with pytest.raises(IntegrityError):
        live.set("three", alpha=0.5)
    assert live.half_done
    with pytest.raises(Refused):
        live.model(WORDS)
    pack.write_bytes(whole)
    live.abort()
    assert same(bits(live.model), before)


def test_what_is_kept_in_memory_is_not_read_again(repo: Repository, live: LiveModel) -> None:
    live.set("one", alpha=0.5)
    expected = repo.digest("HEAD").weights
    objects = repo._history.store.objects
    for pack in objects.open_packs().values():
        data = bytearray(pack.path.read_bytes())
        for entry in pack.index():
            if entry.kind in ("chunk", "delta"):
                data[entry.offset : entry.offset + entry.length] = bytes(entry.length)
        pack.path.write_bytes(data)
    with pytest.raises(IntegrityError):
        repo.digest("HEAD")
    live.set("one", alpha=1)
    assert live.digest() == expected


def test_a_cache_is_a_number_of_bytes(repo: Repository) -> None:
    for wrong in (-1, "1GB", 1.5, None):
        with pytest.raises(UsageError, match="bytes"):
            repo.live(rev="HEAD", cache=wrong)  # type: ignore[arg-type]


def test_weights_that_are_not_finite_leave_the_model_as_it_was(repo: Repository, live: LiveModel) -> None:
    beyond = {"preset": "linear", "lambda": "3e38"}
    live.set("one", alpha="3e38")
    before = bits(live.model)
    with pytest.raises(InvalidInput, match=r"(?s)tensor .*not finite.*allow_nonfinite"):
        live.set_rules(beyond)
    assert same(bits(live.model), before)
    assert not live.half_done
    live.close()
    allowed = repo.live(live.model, "HEAD", allow_nonfinite=True)
    allowed.set("one", alpha="3e38")
    assert any("not finite" in note for note in allowed.set_rules(beyond).notes)
    assert not all(bool(tensor.isfinite().all()) for tensor in allowed.model.parameters())
    allowed.checkout("HEAD")
    assert allowed.digest() == repo.digest("HEAD").weights


# -- the lock


def test_a_forward_pass_waits_until_the_weights_are_whole(repo: Repository) -> None:
    merging, asked = threading.Event(), threading.Event()
    answers: list[torch.Tensor] = []

    def ask() -> None:
        merging.wait()
        asked.set()
        with torch.no_grad():
            answers.append(live.model(WORDS).logits)

    seen: list[int] = []

    def progress(label: str, done: int, total: int) -> None:
        if thread.ident and label == "merging":
            merging.set()
            asked.wait()
            seen.append(len(answers))

    thread = threading.Thread(target=ask)
    live = repo.live(rev="HEAD", progress=progress)
    thread.start()
    live.checkout("HEAD~1")
    thread.join()
    assert seen
    assert not any(seen)
    with torch.no_grad():
        assert torch.equal(answers[0], repo.load("HEAD~1")(WORDS).logits)


def test_a_thread_does_not_wait_for_itself(repo: Repository, live: LiveModel) -> None:
    with live.using() as model:
        model(WORDS)
        with pytest.raises(BusyError, match=r"live\.using\(\)"):
            live.set("one", alpha=0.5)
    seen: list[BaseException] = []

    def inside(*_: object) -> None:
        try:
            live.set("one", alpha=0.5)
        except BusyError as error:
            seen.append(error)

    hook = live.model.model.norm.register_forward_hook(inside)
    live.model(WORDS)
    hook.remove()
    assert seen

    def progress(label: str, done: int, total: int) -> None:
        if label == "merging":
            busy.model(WORDS)

    live.close()
    busy = live
    with pytest.raises(BusyError, match="this thread"):
        repo.live(live.model, "HEAD~1", progress=progress)


def test_a_forward_pass_that_was_interrupted_keeps_nobody_waiting(live: LiveModel) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    hook = live.model.model.norm.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        live.model(WORDS)
    hook.remove()
    live.set("one", alpha=0.5)
    live.model(WORDS)


def test_a_change_gives_up_when_the_model_is_used_for_too_long(repo: Repository, live: LiveModel) -> None:
    changes: list[Callable[[], object]] = [
        lambda: live.set("one", alpha=0.5, timeout=0),
        lambda: live.set_rules({"density": 0.5}, timeout=0),
        lambda: live.checkout("HEAD~1", timeout=0),
        lambda: live.close(timeout=0),
    ]
    refused: list[str] = []

    def change() -> None:
        for call in changes:
            try:
                call()
            except BusyError as error:
                refused.append(error.message)

    with live.using():
        thread = threading.Thread(target=change)
        thread.start()
        thread.join()
    assert len(refused) == len(changes)
    assert all("timeout=SECONDS" in message for message in refused)
    assert live.digest() == repo.digest("HEAD").weights
    assert live.set("one", alpha=0.5, timeout=None).tensors_computed


def test_changes_from_many_threads_take_turns(repo: Repository, live: LiveModel) -> None:
    def change(seed: int) -> None:
        for step in range(5):
            live.set("one", alpha=str((seed + step) / 8))
            with live.using():
                live.model(WORDS)

    threads = [threading.Thread(target=change, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    repo.recipe.set("one", alpha=live.recipe.vectors["one"].alpha)
    assert live.digest() == repo.digest().weights


def test_a_copy_of_the_model_is_free(cuttable: LiveModel, cut: Cut) -> None:
    copies = [copy.deepcopy(cuttable.model), pickle.loads(pickle.dumps(cuttable.model))]
    before = bits(cuttable.model)
    cut.times = 2
    with pytest.raises(Stop):
        cuttable.set("one", alpha=0.2)
    for model in copies:
        model(WORDS)
        assert same(bits(model), before)


# -- beginning and end


def test_a_model_is_live_once(repo: Repository, live: LiveModel) -> None:
    with pytest.raises(Refused, match="live model already"):
        repo.live(live.model, "HEAD~1")
    live.close()
    with repo.live(live.model, "HEAD~1") as second:
        assert second.digest() == repo.digest("HEAD~1").weights
    assert not live.model._forward_pre_hooks
    assert not live.model._forward_hooks
    with pytest.raises(UsageError, match="closed"):
        second.set("one", alpha=1)


def test_a_model_that_could_not_be_filled_is_free_again(repo: Repository) -> None:
    model, packs = repo.load("HEAD"), list((repo.root / ".persona" / "packs").glob("*.pack"))
    for pack in packs:
        pack.rename(pack.with_suffix(".away"))
    with persona.open(repo.root) as other:
        for _ in range(2):
            with pytest.raises(IntegrityError):
                other.live(model, "HEAD~1")
    assert not model._forward_pre_hooks
    for pack in packs:
        pack.with_suffix(".away").rename(pack)
    assert repo.live(model, "HEAD~1").digest() == repo.digest("HEAD~1").weights


def test_a_live_model_whose_model_was_taken_over_is_closed(cuttable: LiveModel, cut: Cut) -> None:
    cut.times = 2
    with pytest.raises(Stop):
        cuttable.set("one", alpha=0.2)
    with persona.open(cuttable._history.root) as repo:
        second = repo.live(cuttable.model, "HEAD~1")
        with pytest.raises(UsageError, match="closed"):
            cuttable.abort()
        assert second.digest() == repo.digest("HEAD~1").weights


def test_when_the_repository_is_closed_the_weights_stay(grown: LlamaBot) -> None:
    with persona.open(grown.root) as repo:
        live = repo.live(rev="HEAD")
        expected = repo.digest("HEAD").weights
    for call in (lambda: live.set("one", alpha=0.5), lambda: live.checkout("HEAD"), live.abort):
        with pytest.raises(UsageError, match="closed"):
            call()
    live.model(WORDS)
    assert live.digest() == expected
