"""`verify --tasks`, with a stand-in for lm-evaluation-harness: the calls that persona makes of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from persona.behaviour.measuring import tasks
from persona.errors import InvalidInput, UnknownName
from tests.behaviour.bots import ChatBot

HARNESS = '''
"""A harness with the task `length`: the mean length of its texts in tokens, and the size of the weights."""
import sys
from pathlib import Path

CALLS = Path(__file__).parent / "calls"

def simple_evaluate(model, *, tasks, task_manager, limit, log_samples, bootstrap_iters):
    print("noise"), print("noise", file=sys.stderr)
    (name,) = tasks
    with CALLS.open("a") as file:
        file.write(name + "\\n")
    if name == "broken":
        raise ValueError("no such column")
    texts = task_manager.texts(name)[:limit]
    sizes = [len(model.tokenizer(text)["input_ids"]) for text in texts]
    weight = model.pretrained.get_input_embeddings().weight
    results = {
        "name": name,
        "alias": name,
        "length,none": sum(sizes) / len(sizes),
        "length_stderr,none": "N/A",
        "norm,strict": float(weight.norm()),
        "norm_stderr,strict": 0.25,
    }
    return {"results": {name: results}, "n-samples": {name: {"original": 9, "effective": len(texts)}}}
'''
MODELS = """
class HFLM:
    def __init__(self, *, pretrained, tokenizer, backend, batch_size):
        assert (backend, batch_size) == ("causal", 1)
        self.pretrained, self.tokenizer = pretrained, tokenizer
"""
MANAGER = """
from pathlib import Path

class TaskManager:
    def __init__(self, include_path=None, include_defaults=True):
        self.names = {"length": ["one"], "broken": []} if include_defaults else {}
        if include_path is not None:
            self.names |= {
                path.stem: path.read_text().split() for path in Path(include_path).glob("*.yaml")
            }

    def match_tasks(self, names):
        return [name for name in names if name in self.names]

    def texts(self, name):
        return self.names[name]
"""


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in can be imported and has a version. Returns the file that lists the tasks that were run."""
    place = tmp_path / "site"
    for name, text in {
        "lm_eval/__init__.py": HARNESS,
        "lm_eval/models/__init__.py": "",
        "lm_eval/models/huggingface.py": MODELS,
        "lm_eval/tasks.py": MANAGER,
        "lm_eval-0.4.13.dist-info/METADATA": "Metadata-Version: 2.1\nName: lm_eval\nVersion: 0.4.13\n",
    }.items():
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(place)
    for name in [name for name in sys.modules if name.split(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    calls = place / "lm_eval" / "calls"
    calls.touch()
    return calls


@pytest.fixture
def tuned(chat: ChatBot, pirate_tune: Path) -> ChatBot:
    """A repository whose recipe has the vector `pirate`, and no pattern."""
    chat.run.ok("commit", pirate_tune, "-m", "talk like a pirate")
    return chat


def verified(bot: ChatBot, *words: Any) -> dict[str, Any]:
    answer = bot.run("--json", "verify", "HEAD", *words)
    assert answer.exit_code == 8, answer.output
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def test_a_task_is_run_on_the_base_and_on_the_recipe_and_shown(tuned: ChatBot, harness: Path) -> None:
    answer = tuned.run("verify", "HEAD", "--tasks", "length")
    assert "noise" not in answer.output
    lines = answer.stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("TASK"))
    assert lines[place + 1].split() == ["length", "length", "3.000", "→", "3.000", "of", "1"]
    task, metric, before, error, _, after, other, *_ = lines[place + 2].split()
    assert (task, metric, error, other) == ("length", "norm,strict", "±0.250", "±0.250")
    assert before != after
    assert harness.read_text() == "length\nlength\n"
    assert "length  norm,strict" in tuned.run.ok("show")
    tuned.run("verify", "HEAD")
    assert "length  norm,strict" in tuned.run.ok("show")


def test_a_task_is_not_run_twice(tuned: ChatBot, harness: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "words.yaml").write_text("one three eleven")
    given = ("--tasks", "length,words", "--tasks-dir", folder)
    first = verified(tuned, *given)
    assert [row["task"] for row in first["tasks"]] == ["length", "length", "words", "words"]
    assert not first["measured_before"]
    again = verified(tuned, *given)
    assert again == first | {"measured_before": True}
    assert tuned.run.json("show")["scores"] == first
    assert len(harness.read_text().split()) == 4
    limited = verified(tuned, *given, "--task-limit", "2")
    assert [row["items"] for row in limited["tasks"]] == [1, 1, 2, 2]
    (folder / "words.yaml").write_text("one")
    assert verified(tuned, *given)["tasks"][2]["after"] == 3
    assert tuned.run("fsck").exit_code == 0


def test_a_task_that_does_not_exist_is_refused_before_one_is_run(tuned: ChatBot, harness: Path) -> None:
    told = tuned.run.refused(3, "verify", "HEAD", "--tasks", "length,nothing")
    assert "has no task 'nothing'" in told
    assert harness.read_text() == ""


def test_a_task_that_fails_is_named_with_its_reason(tuned: ChatBot, harness: Path) -> None:
    told = tuned.run.refused(4, "verify", "HEAD", "--tasks", "broken")
    assert "fails on the task broken: ValueError: no such column" in told


def test_without_the_harness_it_says_what_to_install(chat: ChatBot, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise tasks.PackageNotFoundError(name)

    monkeypatch.setattr(tasks, "version", missing)
    assert "pip install 'persona-vcs[eval]'" in chat.run.refused(2, "verify", "--tasks", "length")


@pytest.mark.usefixtures("harness")
def test_a_wrong_limit_or_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="1 or more"):
        tasks.tasks_of(["length"], None, 0)
    with pytest.raises(InvalidInput, match="not a directory"):
        tasks.tasks_of(["length"], tmp_path / "nowhere", None)
    (task,) = tasks.tasks_of(["nothing"], None, None)
    with pytest.raises(UnknownName):
        tasks.Harness([task])
    assert tasks.tasks_of([], None, None) == ()
