"""The public names: `import persona` gives what docs/commands.md promises, and loads nothing for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import persona
from persona import errors
from tests.checkpoints import write_model
from tests.history.bots import at, base_tensors, tuned


def run(script: str) -> str:
    """The output of a fresh process."""
    root = str(Path(persona.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONPATH": root}
    )
    return done.stdout.strip()


def test_the_public_names_are_these() -> None:
    assert persona.__all__ == [
        "init",
        "warm_up",
        "Repository",
        "Revision",
        "Person",
        "PersonaError",
        "Refused",
        "NothingChanged",
        "Conflicted",
        "UsageError",
        "NotFound",
        "NotARepository",
        "UnknownRevision",
        "UnknownName",
        "InvalidInput",
        "IntegrityError",
        "BusyError",
        "SystemFault",
        "Inconclusive",
        "__version__",
    ]
    assert persona.open is persona.Repository.open
    assert persona.init is persona.Repository.init


def test_all_names_are_there_and_every_error_is_among_them() -> None:
    assert all(getattr(persona, name) is not None for name in persona.__all__)
    raised = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.PersonaError)
    }
    assert raised <= set(persona.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = persona.nonsense  # type: ignore[attr-defined]


def test_the_day_of_the_library(tmp_path: Path) -> None:
    base = base_tensors()
    write_model(tmp_path / "tiny", base)
    path = write_model(tmp_path / "listening", tuned(base, 1))
    with persona.init(tmp_path / "bot", base=tmp_path / "tiny", author=at()) as repo:
        repo.commit(path, name="listening", alpha=1.0, message="listen")
        repo.checkout("HEAD~1", out=None, device="auto")
    with persona.open(tmp_path / "bot") as repo:
        assert [entry.subject for entry in repo.log("main")] == ["listen", "Begin with tiny"]
        assert sum(array.size for _, array in repo.tensors("main")) == sum(
            bits.size for bits in base.values()
        )


def test_importing_persona_loads_no_layer() -> None:
    script = "import sys, persona; print(sorted(name for name in sys.modules if name.startswith('persona')))"
    assert run(script) == "['persona', 'persona.errors']"


def test_the_reference_is_one_attribute_away() -> None:
    assert run("import persona; print(persona.merge.reference.merge.__name__)") == "merge"
    assert run("import persona.merge.plan, persona; print(persona.merge.reference.merge.__name__)") == "merge"
