"""**task** — a benchmark of lm-evaluation-harness (`lm_eval`), run on the scoring model.

The harness computes the metrics; `persona-vcs[eval]` installs it. A task is measured like a probe set: its
results are kept under a key of the weights, the task, the files of its directory and the harness's version.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3

from persona.errors import InvalidInput, UnknownName, UsageError, quoted
from persona.frozen import dataclass
from persona.history.score_results import TaskScore
from persona.limits import MAX_TEXT_FILE_BYTES
from persona.objects import canonical
from persona.store import files

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers import PreTrainedTokenizerBase as Tokenizer

RESAMPLES: Final = 1000
"""Bootstrap samples for the standard errors of metrics that have no formula."""

Row = list[Any]
"""[task, metric, value, standard error or None, items]; the numbers are canonical decimals."""


@dataclass(frozen=True)
class Task:
    """A task by name. `directory`: of tasks besides those of the harness. `limit`: only the first items."""

    name: str
    directory: Path | None
    limit: int | None
    harness: str
    content: str | None

    @property
    def key(self) -> dict[str, Any]:
        """All that decides its results, besides the weights."""
        return {"content": self.content, "lm_eval": self.harness, "limit": self.limit, "task": self.name}


def tasks_of(names: Sequence[str], directory: Path | None, limit: int | None) -> tuple[Task, ...]:
    """Tasks by name. Raises `UsageError` if the harness is not installed."""
    if not names:
        return ()
    try:
        harness = version("lm_eval")
    except PackageNotFoundError:
        raise UsageError(
            "tasks need lm-evaluation-harness; install it with: pip install 'persona-vcs[eval]'"
        ) from None
    if limit is not None and limit < 1:
        raise InvalidInput(f"the limit of items must be 1 or more, not {limit}")
    content = None if directory is None else _digest(directory)
    return tuple(Task(name, directory, limit, harness, content) for name in names)


def _digest(directory: Path) -> str:
    """A digest of the files of a directory."""
    if not directory.is_dir():
        raise InvalidInput(f"{directory} is not a directory of tasks")
    found = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder) / name
            if (data := files.read_file(path, limit=MAX_TEXT_FILE_BYTES)) is not None:
                found[path.relative_to(directory).as_posix()] = blake3(data).hexdigest()
    return blake3(canonical.encode(found)).hexdigest()


class Harness:
    """The harness, with the tasks of all names known. Raises `UnknownName` for a task that does not exist."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._managers: dict[Path | None, Any] = {}
        for task in tasks:
            if task.directory not in self._managers:
                self._managers[task.directory] = _manager(task.directory, [each.name for each in tasks])
            if not self._managers[task.directory].match_tasks([task.name]):
                raise UnknownName(
                    f"lm-evaluation-harness {task.harness} has no task {quoted(task.name)}",
                    hint="`lm_eval --tasks list` lists its tasks; a directory may add others",
                )

    def run(self, task: Task, model: PreTrainedModel, tokenizer: Tokenizer) -> list[Row]:
        """The results of a task."""
        import lm_eval  # type: ignore[import-not-found]
        from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found]

        try:
            with _silence():
                found = lm_eval.simple_evaluate(
                    HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=1),
                    tasks=[task.name],
                    task_manager=self._managers[task.directory],
                    limit=task.limit,
                    log_samples=False,
                    bootstrap_iters=RESAMPLES,
                )
        except Exception as error:  # a task is a program of its author
            reason = f"{type(error).__name__}: {error}"
            raise InvalidInput(f"lm-evaluation-harness fails on the task {task.name}: {reason}") from error
        return _rows(found)


def _manager(directory: Path | None, names: Sequence[str]) -> Any:
    """The index of tasks. That of the harness has thousands and is read only if it is needed."""
    from lm_eval.tasks import TaskManager  # type: ignore[import-not-found]

    with _silence():
        if directory is not None:
            own = TaskManager(include_path=str(directory), include_defaults=False)
            if all(own.match_tasks([name]) for name in names):
                return own
        return TaskManager(include_path=None if directory is None else str(directory))


def _rows(found: Any) -> list[Row]:
    """The metrics of all tasks in the harness's results, those of groups included."""
    rows: list[Row] = []
    for name, metrics in found["results"].items():
        items = found.get("n-samples", {}).get(name, {}).get("effective", 0)
        for key, value in metrics.items():
            metric, _, kind = key.partition(",")
            if not kind or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = metrics.get(f"{metric}_stderr,{kind}")
            shown = metric if kind == "none" else key
            rows.append([name, shown, _decimal(value), _decimal(error), items])
    return rows


def _decimal(value: Any) -> str | None:
    """A number rounded to 1e-6; None for anything else, such as the harness's "N/A"."""
    return canonical.decimal(round(float(value), 6)) if isinstance(value, int | float) else None


def compared(before: Sequence[Row], after: Sequence[Row]) -> Iterator[TaskScore]:
    """The metrics of the base beside those of other weights."""
    base = {(task, metric): (value, error) for task, metric, value, error, _ in before}
    for task, metric, value, error, items in after:
        old, old_error = base[task, metric]
        yield TaskScore(task, metric, float(old), _optional(old_error), float(value), _optional(error), items)


def _optional(number: str | None) -> float | None:
    return None if number is None else float(number)


@contextmanager
def _silence() -> Iterator[None]:
    """Takes what the harness prints, and what the programs print that it starts."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
