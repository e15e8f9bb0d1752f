"""transformers' `Trainer` with the losses, the optimizers and the checkpoints of this project.

The loop is the Trainer's. Dropout is off: what a vector learns depends on its data and its seed alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from persona.behaviour.graph.pattern import TrainSettings
from persona.behaviour.training.examples import IGNORED, Collator, Example
from persona.behaviour.training.losses import Loss
from persona.behaviour.training.runs import Run
from persona.behaviour.training.warming import WarmSteps
from persona.errors import Blank, InvalidInput, Keyword, SystemFault
from persona.store import files

Told = Callable[[int, float], None]
"""Called after each step with its number and its loss."""


class VectorTrainer(Trainer):
    """A Trainer over examples that are in order already, on one device.

    Its checkpoints are sealed when they are whole. `tell` hears of every step. The steps of `warm` come
    first, and count.
    """

    def __init__(
        self,
        model: Any,
        examples: Sequence[Example],
        loss: Loss,
        run: Run,
        settings: TrainSettings,
        *,
        device: str,
        padding: int,
        save_every: int,
        tell: Told,
        warm: WarmSteps | None = None,
    ) -> None:
        self._warm = warm
        steps = settings.steps + (warm.steps if warm else 0)
        arguments = _arguments(settings, steps, run.directory, device, save_every)
        super().__init__(
            model,
            arguments,
            data_collator=Collator(padding),
            train_dataset=_Ordered([*(warm.examples if warm else ()), *examples]),
            callbacks=[_Watch(run, tell)],
            optimizer_cls_and_kwargs=_optimizer(settings),
        )
        self.remove_callback(PrinterCallback)
        self._loss = loss
        self.model_accepts_loss_kwargs = True  # the losses divide by the tokens of the whole step

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The examples as they are, without a sampler that shuffles them."""
        loader: DataLoader[Any] = DataLoader(
            self.train_dataset,  # type: ignore[arg-type]
            batch_size=self.args.train_batch_size,
            collate_fn=self.data_collator,
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of one batch, divided by the answer tokens of the whole step."""
        count = (inputs["labels"] != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        model.eval()
        loss = self._warm.loss if self._warm and self.state.global_step < self._warm.steps else self._loss
        return loss(model, inputs, count)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The learning rates: those of the warm start, then those of a training without one."""
        warm = self._warm
        if warm is None:
            return super().create_scheduler(num_training_steps, optimizer)
        later: Any = super().create_scheduler(num_training_steps - warm.steps, optimizer)
        rate = later.lr_lambdas[0]  # the same one for every group
        self.lr_scheduler = LambdaLR(
            later.optimizer, lambda step: warm.rate if step < warm.steps else rate(step - warm.steps)
        )
        return self.lr_scheduler

    def _save_checkpoint(self, *arguments: Any, **named: Any) -> None:
        """As the Trainer does; a failure to write is `SystemFault`, and leaves no half checkpoint."""
        path = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        with written(path):
            super()._save_checkpoint(*arguments, **named)


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Turns a failure to write a directory into `SystemFault`, and removes what is there of it."""
    try:
        yield
    except BaseException as error:
        files.remove_tree(path)
        if isinstance(error, OSError):
            raise files.system_fault("write", path, error) from error
        if isinstance(error, (RuntimeError, SafetensorError)):  # torch words a full disk in many ways
            raise SystemFault(
                f"cannot write {path} whole: the disk may be full; make room and run the command again"
            ) from error
        raise


class _Ordered(Dataset[Example]):
    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


class _Watch(TrainerCallback):
    """Seals checkpoints, tells of steps, and stops a run whose loss is no number."""

    def __init__(self, run: Run, tell: Told) -> None:
        self._run = run
        self._tell = tell

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        """After each step, before anything is saved."""
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        if not (math.isfinite(loss) and math.isfinite(logs.get("grad_norm") or 0.0)):
            raise InvalidInput(
                f"the loss is {loss} at step {state.global_step}: the training went astray",
                hint=("try a smaller learning rate: ", Keyword(lr=Blank("X"))),
            )
        self._tell(state.global_step, loss)

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """A checkpoint was written."""
        path = self._run.directory / f"checkpoint-{state.global_step}"
        with written(path):
            self._run.seal(path)


def _arguments(
    settings: TrainSettings, steps: int, directory: Path, device: str, save_every: int
) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(directory),
        max_steps=steps,
        per_device_train_batch_size=settings.batch,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.lr or 0.0,
        warmup_steps=int(settings.warmup * settings.steps),
        lr_scheduler_type="constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        use_cpu=device == "cpu",
        save_strategy="steps",
        save_steps=save_every,
        save_total_limit=2,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        log_level="error",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        label_names=["labels"],
    )
    arguments._setup_devices  # noqa: B018 - finds the devices
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _optimizer(settings: TrainSettings) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """The class of the optimizer and its settings; the weight decay comes with the parameters."""
    if settings.optimizer == "adamw":
        return torch.optim.AdamW, {"lr": settings.lr}
    from persona.behaviour.training.apollo import MINI, Apollo

    if settings.optimizer == "apollo-mini":
        return Apollo, {"lr": settings.lr, "seed": settings.seed, **MINI}
    return Apollo, {"lr": settings.lr, "seed": settings.seed, "rank": settings.optimizer_rank}
