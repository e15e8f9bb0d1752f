"""A run of transformers' Trainer, and one of TRL's, become a commit when they end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

import persona
from persona.behaviour import CommitCallback
from persona.errors import InvalidInput, NotARepository, PersonaError, Refused, SystemFault, UsageError
from persona.objects.note import Note
from tests.behaviour.bots import PIRATE_DATA, ChatBot, chat_bot, old_gpt2, tokenizer
from tests.checkpoints import read_weights

pytestmark = pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing:FutureWarning")  # PEFT's, TRL's


def examples(count: int = 4) -> list[dict[str, list[int]]]:
    """Rows of tokens that are their own labels."""
    words = tokenizer()
    texts = [words.apply_chat_template(line["messages"], tokenize=False) for line in PIRATE_DATA[:count]]
    rows = [words(text, add_special_tokens=False)["input_ids"][:24] for text in texts]
    return [{"input_ids": row, "labels": row} for row in rows]


def model_of(base: Path, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(base, **options)


def arguments(place: Path, **options: Any) -> TrainingArguments:
    given: dict[str, Any] = {
        "max_steps": 3,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.01,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "log_level": "error",
    }
    return TrainingArguments(output_dir=str(place), **{**given, **options})


def trainer(
    model: Any, place: Path, callback: TrainerCallback | Sequence[TrainerCallback], **options: Any
) -> Trainer:
    callbacks = [callback] if isinstance(callback, TrainerCallback) else list(callback)
    return Trainer(model, arguments(place, **options), train_dataset=examples(), callbacks=callbacks)  # type: ignore[arg-type]


def saved(model: Any, place: Path) -> Path:
    """What the model is after the training, as its own `save_pretrained` writes it."""
    model.save_pretrained(place)
    return place


def checked_out(bot: ChatBot, place: Path) -> dict[str, Any]:
    with persona.open(bot.root) as repo:
        repo.checkout(out=place)
    return read_weights(place)


def same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    return found.keys() == expected.keys() and all(found[name].same(expected[name]) for name in expected)


def runs_of(bot: ChatBot) -> list[Path]:
    folder = bot.root / ".persona" / "runs"
    return list(folder.iterdir()) if folder.exists() else []


def test_a_plain_run_is_committed_and_its_checkout_is_the_trained_model(
    chat: ChatBot, tmp_path: Path
) -> None:
    model, out = model_of(chat.base), tmp_path / "runs" / "listening"
    with persona.open(chat.root) as repo:
        callback = CommitCallback(repo, message="learn to listen", alpha=1)
        trainer(model, out, callback).train()
        assert callback.result is not None
        assert repo.head().id == callback.result.id
        assert [change.name for change in callback.result.vectors] == ["listening"]
        assert repo["HEAD"].subject == "learn to listen"
        assert not repo.status().recipe_changed
    assert same(checked_out(chat, tmp_path / "out"), read_weights(saved(model, tmp_path / "saved")))
    assert not runs_of(chat)
    assert not list(out.iterdir())  # which the Trainer makes


def test_a_directory_stands_for_its_repository(chat: ChatBot, tmp_path: Path) -> None:
    callback = CommitCallback(str(chat.root), "listening", alpha="0.5", density=0.5)
    trainer(model_of(chat.base), tmp_path / "run", callback).train()
    with persona.open(chat.root) as repo:
        term = repo.recipe["listening"]
        assert (term.alpha, term.density) == (0.5, 0.5)
        assert repo["HEAD"].subject == "listening: trained in 3 steps"


def test_a_relative_directory_is_that_of_the_beginning(
    chat: ChatBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(chat.root.parent)
    callback = CommitCallback(chat.root.name, "listening")
    monkeypatch.chdir(tmp_path)
    trainer(model_of(chat.base), tmp_path / "run", callback).train()
    assert callback.result is not None


def test_without_commit_the_vector_is_only_named_in_the_recipe(chat: ChatBot, tmp_path: Path) -> None:
    with persona.open(chat.root) as repo:
        head = repo.head().id
        callback = CommitCallback(repo, "listening", commit=False)
        trainer(model_of(chat.base), tmp_path / "run", callback).train()
        assert repo.head().id == head
        assert "listening" in repo.recipe
        assert callback.result is not None
        assert callback.result.id is None


def test_an_adapter_of_peft_is_imported_as_an_adapter(chat: ChatBot, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    for name in ("default", "mine"):
        config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
        model = get_peft_model(model_of(chat.base), config, adapter_name=name)
        with persona.open(chat.root) as repo:
            callback = CommitCallback(repo, f"adapter-{name}")
            trainer(model, tmp_path / "run", callback, learning_rate=0.05).train()
            assert callback.result is not None
            assert callback.result.vectors[0].ranks == (2,)
    assert not runs_of(chat)


def test_a_base_without_the_names_prefix_gets_its_own_names(tmp_path: Path) -> None:
    bot = chat_bot(tmp_path, old_gpt2(tmp_path / "gpt2"))
    callback = CommitCallback(bot.root, "listening")
    trainer(model_of(bot.base), tmp_path / "run", callback).train()
    assert callback.result is not None
    assert checked_out(bot, tmp_path / "out").keys() == read_weights(bot.base).keys()


def test_a_model_under_data_parallel_is_saved_without_its_wrapper(chat: ChatBot, tmp_path: Path) -> None:
    class Wrap(TrainerCallback):
        """Hands the callback the wrapped model, as trainers that wrap early do."""

        def __init__(self, inner: CommitCallback) -> None:
            self.inner = inner

        def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            self.inner.on_train_begin(args, state, control, **self.wrapped(more))

        def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            self.inner.on_train_end(args, state, control, **self.wrapped(more))

        def wrapped(self, more: dict[str, Any]) -> dict[str, Any]:
            return {**more, "model": torch.nn.DataParallel(more["model"])}

    model = model_of(chat.base)
    trainer(model, tmp_path / "run", Wrap(CommitCallback(chat.root, "listening"))).train()
    assert same(checked_out(chat, tmp_path / "out"), read_weights(saved(model, tmp_path / "saved")))


def test_a_bf16_base_trained_in_float32_is_rounded_and_the_result_says_so(
    tmp_path: Path, bf16_base: Path
) -> None:
    bot = chat_bot(tmp_path / "place", bf16_base)
    callback = CommitCallback(bot.root, "listening")
    model = model_of(bf16_base, dtype=torch.float32)
    trainer(model, tmp_path / "run", callback).train()
    assert callback.result is not None
    assert any("round" in note for note in callback.result.notes)
    expected = read_weights(saved(model.to(torch.bfloat16), tmp_path / "saved"))
    assert same(checked_out(bot, tmp_path / "out"), expected)


def test_the_best_model_is_committed_where_it_is_loaded_at_the_end(chat: ChatBot, tmp_path: Path) -> None:
    model = model_of(chat.base)
    callback = CommitCallback(chat.root, "listening")
    run = Trainer(
        model,
        arguments(
            tmp_path / "run",
            load_best_model_at_end=True,
            save_strategy="steps",
            save_steps=1,
            eval_strategy="steps",
            eval_steps=1,
            metric_for_best_model="loss",
            greater_is_better=True,  # the best is the worst, which is not the last
        ),
        train_dataset=examples(),  # type: ignore[arg-type]
        eval_dataset=examples(),  # type: ignore[arg-type]
        callbacks=[callback],
    )
    run.train()
    best = Path(str(run.state.best_model_checkpoint))
    assert best.name != "checkpoint-3"
    assert same(checked_out(chat, tmp_path / "out"), read_weights(best))


def test_the_provenance_of_the_vector_has_losses_steps_and_arguments(chat: ChatBot, tmp_path: Path) -> None:
    with persona.open(chat.root) as repo:
        callback = CommitCallback(repo, "listening", onto="HEAD")
        trainer(model_of(chat.base), tmp_path / "run", callback, seed=7).train()
        history = repo._history
        assert callback.result is not None
        (ref,) = history.store.refs.list("refs/notes/provenance/").values()
        note = Note.decode(history.store.objects.get(ref, "note"))
        parent = callback.result.parents[0]
    assert (note.about, note.kind) == (callback.result.vectors[0].id, "provenance")
    data = note.data
    assert data["steps"] == 3
    assert [step for step, _ in data["loss"]] == [1, 2, 3]
    assert all(float(loss) > 0 for _, loss in data["loss"])
    assert (data["settings"]["seed"], data["settings"]["learning_rate"]) == (7, "0.01")
    assert (data["onto"], data["optimizer"]) == (parent, "AdamW")
    assert data["optimizer_settings"]["betas"] == "(0.9, 0.999)"
    assert str(tmp_path) not in json.dumps(data)
    shown = chat.run.ok("vector", "show", "listening")
    assert "Trained:  by a Trainer of transformers, AdamW, lr 0.01, 3 steps, seed 7, loss " in shown


def test_a_second_training_replaces_the_vector(chat: ChatBot, tmp_path: Path) -> None:
    with persona.open(chat.root) as repo:
        callback = CommitCallback(repo)
        run = trainer(model_of(chat.base), tmp_path / "listening", callback)
        run.train()
        first = callback.result
        run.train()
        assert first is not None
        assert callback.result is not None
        assert callback.result.parents == (first.id,)
        assert callback.result.vectors[0].previous == first.vectors[0].id
        assert list(repo.recipe) == ["listening"]


def test_a_training_that_changed_nothing_commits_nothing_and_warns(chat: ChatBot, tmp_path: Path) -> None:
    callback = CommitCallback(chat.root, "listening")
    with pytest.warns(UserWarning, match="changed no weight"):
        trainer(model_of(chat.base), tmp_path / "run", callback, learning_rate=0.0).train()
    assert callback.result is None
    assert not runs_of(chat)
    with persona.open(chat.root) as repo:
        assert not repo.recipe


# -- what goes wrong


class Stop(TrainerCallback):
    """Interrupts the training in its second step."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == 2:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")], ids=repr)
def test_a_run_that_fails_commits_nothing(chat: ChatBot, tmp_path: Path, error: BaseException) -> None:
    callback = CommitCallback(chat.root, "listening")
    with pytest.raises(type(error)):
        trainer(model_of(chat.base), tmp_path / "run", [callback, Stop(error)]).train()
    assert callback.result is None
    with persona.open(chat.root) as repo:
        assert not repo.recipe
    assert not runs_of(chat)


def test_only_the_process_of_rank_zero_commits(chat: ChatBot, tmp_path: Path) -> None:
    class OtherRank(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            state.is_world_process_zero = False

    callback = CommitCallback(chat.root, "listening")
    trainer(model_of(chat.base), tmp_path / "run", [OtherRank(), callback]).train()
    assert callback.result is None


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"alpha": "much"}, InvalidInput, "alpha"),
        ({"onto": "nothing"}, PersonaError, "nothing"),
        ({"name": "no/such name"}, InvalidInput, "name"),
    ],
    ids=["alpha", "onto", "name"],
)
def test_a_wrong_option_is_found_before_the_training(
    chat: ChatBot, tmp_path: Path, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    model = model_of(chat.base)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(error, match=words):
        trainer(model, tmp_path / "run", CommitCallback(chat.root, **{"name": "x", **options})).train()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_training_from_a_commit_that_has_the_vector_needs_another_name(
    chat: ChatBot, tmp_path: Path
) -> None:
    callback = CommitCallback(chat.root, "more", onto="HEAD")
    trainer(model_of(chat.base), tmp_path / "run", callback).train()
    first = callback.result
    with pytest.raises(Refused, match=r"more is a part of HEAD.*\n.*name='more-2'"):
        trainer(model_of(chat.base), tmp_path / "run", callback).train()
    assert first is not None


def test_an_unknown_option_and_a_directory_without_a_repository_are_refused(
    tmp_path: Path, chat: ChatBot
) -> None:
    with pytest.raises(TypeError, match="strength"):
        CommitCallback(chat.root, "x", strength=2)
    with pytest.raises(NotARepository):
        trainer(model_of(chat.base), tmp_path / "run", CommitCallback(tmp_path / "no", "x")).train()


def test_a_name_that_nobody_gave_replaces_no_vector(chat: ChatBot, tmp_path: Path) -> None:
    trainer(model_of(chat.base), tmp_path / "a" / "run", CommitCallback(chat.root)).train()
    with pytest.raises(UsageError, match="run"):
        trainer(model_of(chat.base), tmp_path / "b" / "run", CommitCallback(chat.root)).train()
    trainer(model_of(chat.base), tmp_path / "b" / "run", CommitCallback(chat.root, "run"), seed=3).train()


@pytest.mark.parametrize(
    "option", [{"fsdp": "full_shard"}, {"deepspeed": {"zero_optimization": {"stage": 3}}}]
)
def test_a_run_whose_weights_are_in_pieces_is_refused_before_it_starts(
    chat: ChatBot, tmp_path: Path, option: dict[str, Any]
) -> None:
    args = arguments(tmp_path / "run")
    for key, value in option.items():
        setattr(args, key, value)
    run = trainer(model_of(chat.base), tmp_path / "run", ())
    with pytest.raises(UsageError, match="no process has all weights"):
        CommitCallback(chat.root, "x").on_train_begin(args, run.state, run.control, model=run.model)


def test_a_model_with_a_larger_vocabulary_is_refused_and_its_weights_are_kept(
    chat: ChatBot, tmp_path: Path
) -> None:
    model = model_of(chat.base)
    model.resize_token_embeddings(model.config.vocab_size + 8)
    with pytest.raises(InvalidInput, match="the trained weights are kept in") as caught:
        trainer(model, tmp_path / "run", CommitCallback(chat.root, "listening")).train()
    assert "embed_tokens" in caught.value.message
    (kept,) = runs_of(chat)
    assert str(kept) in caught.value.message
    assert same(read_weights(kept), read_weights(saved(model, tmp_path / "saved")))


def test_after_a_failed_import_the_advice_of_the_error_works(
    chat: ChatBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lose(TrainerCallback):
        """Makes the recipe unreadable while the model trains."""

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            recipe.write_text("base = [")

    recipe = chat.root / "recipe.toml"
    before = recipe.read_text()
    with pytest.raises(PersonaError, match="the trained weights are kept in") as caught:
        trainer(
            model_of(chat.base), tmp_path / "run", [CommitCallback(chat.root, "listening"), Lose()]
        ).train()
    recipe.write_text(before)
    (kept,) = runs_of(chat)
    assert f"repo.commit('{kept}', name='listening', message=MESSAGE)" in str(caught.value)
    with persona.open(chat.root) as repo:
        made = repo.commit(str(kept), name="listening", message="after all")
        assert [change.name for change in made.vectors] == ["listening"]


def test_without_space_to_save_the_error_names_the_way_out(
    chat: ChatBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(chat.base)

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save_pretrained", full)
    with pytest.raises(SystemFault, match=r"trainer\.save_model"):
        trainer(model, tmp_path / "run", CommitCallback(chat.root, "listening")).train()
    assert not runs_of(chat)


# -- TRL


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_a_run_of_trl_is_committed(chat: ChatBot, tmp_path: Path, adapter: bool) -> None:
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    model = model_of(chat.base)
    args = arguments(tmp_path / "run").to_dict()
    settings = {
        key: args[key] for key in ("max_steps", "learning_rate", "report_to", "use_cpu", "save_strategy")
    }
    callback = CommitCallback(chat.root, "pirate")
    run = SFTTrainer(
        model,
        SFTConfig(output_dir=str(tmp_path / "run"), max_length=64, disable_tqdm=True, bf16=False, **settings),
        train_dataset=Dataset.from_list(PIRATE_DATA),
        processing_class=tokenizer(),
        callbacks=[callback],
        peft_config=LoraConfig(r=2, target_modules=["q_proj"]) if adapter else None,
    )
    run.train()
    assert callback.result is not None
    assert callback.result.vectors[0].ranks == ((2,) if adapter else ())
    if not adapter:
        assert same(checked_out(chat, tmp_path / "out"), read_weights(saved(run.model, tmp_path / "saved")))
