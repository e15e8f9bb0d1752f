"""A callback of transformers that commits what anybody's own training changed.

`Trainer` takes it in `callbacks`, and so do its descendants, such as those of TRL and Axolotl. When the
training ends, the process of rank 0 makes a vector of the weights, as `commit PATH` does. What can be checked
before the training is checked then, so that no run of hours ends in a wrong option.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Final, Protocol, cast

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from persona.behaviour.training.compiling import named_as_in, thinned
from persona.behaviour.training.jobs import versions
from persona.behaviour.training.runs import FOLDER
from persona.behaviour.training.trainer import written
from persona.errors import Blank, Call, Keyword, NothingChanged, PersonaError, UsageError, pieces
from persona.history import note_refs
from persona.history.arguments import AnyPath
from persona.history.config import Config
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.options import ImportOptions
from persona.history.recipes.checked import checked_keys
from persona.history.results import CommitResult
from persona.history.vectors.onto import refuse_replacing
from persona.history.vectors.places import default_name
from persona.history.verbs import add as add_verb
from persona.history.verbs import commit as commit_verb
from persona.history.worktree import text_files
from persona.objects.names import check_vector_name
from persona.objects.note import Note
from persona.store import files
from persona.store.store import Store

_SETTINGS: Final = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "max_steps",
    "world_size",
    "seed",
    "bf16",
    "fp16",
)
"""The training arguments that the provenance of a vector has."""


class HoldsHistory(Protocol):
    """An open `Repository`."""

    @property
    def _history(self) -> History: ...


class CommitCallback(TrainerCallback):
    """Commits the weights when a training ends.

        trainer = Trainer(model, args, train_dataset=data, callbacks=[CommitCallback("mybot", "listening")])
        trainer.train()

    `repo`: an open `Repository`, or the directory of one. `name`: of the vector; by default the last part of
    `output_dir`, if no vector of `recipe.toml` has that name. `message`: of the commit. With `commit=False`,
    the vector is only named in `recipe.toml`, as by `add`. The other options are those of `commit`: `alpha`,
    `onto`, `density`, `only`, `except_`, and so on.

    A PEFT adapter is imported as an adapter. After the training, `result` is the result of `commit` or `add`;
    None if nothing changed. If the training fails or is interrupted, nothing is committed. If the import
    fails, the weights stay on the disk, and the error says where.

    When the training begins, this raises `UsageError` for a model that cannot be saved in one piece (FSDP,
    DeepSpeed), and the errors of `commit` for wrong options.
    """

    def __init__(
        self,
        repo: HoldsHistory | AnyPath,
        name: str | None = None,
        message: str | None = None,
        *,
        commit: bool = True,
        **options: Any,
    ) -> None:
        if unknown := sorted(options.keys() - ImportOptions.__annotations__.keys()):
            raise TypeError(f"CommitCallback takes no {', '.join(unknown)}")
        self.result: CommitResult | None = None
        self._repo: HoldsHistory | Path
        if isinstance(repo, (str, os.PathLike)):
            self._repo = files.resolved(Path(repo))  # now: a training may change the directory
        else:
            self._repo = repo
        self._name = name
        self._message = message
        self._commit = commit
        self._options = cast(ImportOptions, options)
        self._made: str | None = None
        self._onto: str | None = None
        self._base = ""
        self._began = monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        """Checks all that can be checked before the training."""
        self.result = None
        self._began = monotonic()
        _require_savable(more.get("model"), args)
        name = self._vector_name(args)
        with self._history() as history:
            history.store.require_writable()
            options = history.in_force(ImportOptions, self._options)
            checked_keys(options["alpha"], options["density"], options["only"], options["except_"])
            onto = options["onto"]
            self._onto = None if onto in (None, "base") else resolve(history, str(onto))
            recipe = text_files.recipe(history, to_edit=True).recipe
            if self._onto is not None:
                refuse_replacing(recipe, name, history.recipe_of(self._onto), str(onto))
            self._base = recipe.base
            if self._name is None and name in recipe.by_name and name != self._made:
                raise UsageError(
                    f"recipe.toml has a vector {name!r} already, and the callback has no name",
                    hint=("give one: ", Keyword(name=Blank("NAME"))),
                )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        """Saves the weights in `.persona`, imports and commits them, and removes what was saved."""
        preempted = getattr(args, "enable_jit_checkpoint", False) and state.global_step < state.max_steps
        if not state.is_world_process_zero or state.is_hyper_param_search or preempted:
            return
        name = self._vector_name(args)
        with self._history() as history:
            folder = history.store.root / FOLDER
            directory = folder / f"trained-{secrets.token_hex(8)}"
            files.mkdirs(directory, below=history.store.root)
            try:
                weights = self._save(history, more["model"], more.get("processing_class"), directory)
            except PersonaError as error:
                error.hint = "the model is still in memory: `trainer.save_model(DIRECTORY)` saves it"
                raise
            try:
                self.result = self._take(history, weights, name, state.global_step)
            except NothingChanged:
                history.notes.append("the training changed no weight, so there is nothing to commit")
            except PersonaError as error:
                error.message += f"; the trained weights are kept in {weights}"
                onto = {} if self._onto is None else {"onto": self._onto}
                again = Call("commit", str(weights), name=name, message=Blank("MESSAGE"), **onto)
                error.hint = (*pieces(error.hint), again, " imports them")
                raise
            except BaseException as error:
                error.add_note(f"the trained weights are kept in {weights}")
                raise
            files.remove_tree(directory)
            if self.result is not None:
                self._made = name
                self._keep_provenance(history, self.result, args, state, more)

    @contextmanager
    def _history(self) -> Iterator[History]:
        if not isinstance(self._repo, Path):
            yield self._repo._history
            return
        store = Store.open(self._repo)
        with closing(History(store, Config(store.config_path, None))) as history, store.shared():
            yield history

    def _vector_name(self, args: TrainingArguments) -> str:
        if self._name is not None:
            return check_vector_name(self._name)
        return default_name(Path(str(args.output_dir)))

    def _save(self, history: History, model: Any, processing: Any, directory: Path) -> Path:
        """Writes the weights of the model itself, without what wraps it. Returns where they are."""
        model = _unwrapped(model)
        adapter = getattr(model, "active_adapter", None)
        with written(directory):
            if isinstance(adapter, str):  # a PeftModel: other adapters than "default" get a directory each
                model.save_pretrained(str(directory), selected_adapters=[adapter])
                return directory if adapter == "default" else directory / adapter
            renamed = named_as_in(history.base(self._base), model)
            model.save_pretrained(str(directory), **({} if renamed is None else {"state_dict": renamed}))
            if self._takes_files and processing is not None:
                processing.save_pretrained(str(directory))
        if not self._takes_files:
            for name in ("config.json", "generation_config.json"):  # the work tree's hold
                files.remove(directory / name)
        return directory

    @property
    def _takes_files(self) -> bool:
        return any(self._options.get(key) for key in ("files", "extend_vocab", "untie"))

    def _take(self, history: History, weights: Path, name: str, steps: int) -> CommitResult:
        # save_pretrained leaves out a tensor that is tied to another one.
        options = cast(ImportOptions, {"missing": "zero", **self._options, "name": name, "onto": self._onto})
        if not self._commit:
            return add_verb.add(history, weights, **options)
        message = self._message or f"{name}: trained in {steps} steps"
        return commit_verb.commit(history, weights, message=message, **options)

    def _keep_provenance(
        self,
        history: History,
        result: CommitResult,
        args: TrainingArguments,
        state: TrainerState,
        more: Mapping[str, Any],
    ) -> None:
        losses = [(int(line["step"]), line["loss"]) for line in state.log_history if "loss" in line]
        optimizer = more.get("optimizer")
        optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        defaults: dict[str, Any] = getattr(optimizer, "defaults", {})
        data = {
            "name": result.vectors[0].name,
            "trainer": "transformers",
            "model": type(_unwrapped(more["model"])).__name__,
            "optimizer": type(optimizer).__name__,
            "optimizer_settings": {key: _plain(value) for key, value in defaults.items()},
            "base": text_files.recipe(history).recipe.base,
            "onto": self._onto,
            "settings": {key: _plain(getattr(args, key)) for key in _SETTINGS if hasattr(args, key)},
            "steps": state.global_step,
            "loss": [[step, loss] for step, loss in thinned(losses)],
            **versions(),
            "seconds": round(monotonic() - self._began),
        }
        note_refs.keep(history, Note(result.vectors[0].id, "vector", "provenance", data))


def _unwrapped(model: Any) -> Any:
    """The model without what trains it on several devices or compiles it."""
    from accelerate.utils import extract_model_from_parallel  # type: ignore[import-untyped]

    return extract_model_from_parallel(model, keep_torch_compile=False)


def _require_savable(model: Any, args: TrainingArguments) -> None:
    split = (
        "FSDP" if getattr(args, "fsdp", None) else "DeepSpeed" if getattr(args, "deepspeed", None) else None
    )
    if split is not None:
        raise UsageError(
            f"under {split} no process has all weights, so this callback cannot commit them",
            hint=("save the model after the training, then ", Call("commit", Blank("DIRECTORY"))),
        )
    if model is not None and not hasattr(_unwrapped(model), "save_pretrained"):
        raise UsageError(f"{type(model).__name__} has no save_pretrained, so its weights cannot be committed")


def _plain(value: Any) -> Any:
    """A training argument in canonical JSON."""
    if value is None or isinstance(value, (bool, int)):
        return value
    return repr(value) if isinstance(value, float) else str(getattr(value, "value", value))
