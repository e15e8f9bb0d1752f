"""The build of the package, without its slow part: the machine code itself is tried in tests/codec/native."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of what a build reads, so that it writes nothing into the source tree."""
    copy = tmp_path / "sources"
    shutil.copytree(
        ROOT / "persona", copy / "persona", ignore=shutil.ignore_patterns("__pycache__", "shipped")
    )
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


def test_a_build_without_a_working_compiler_makes_the_package_and_says_why(
    sources: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken" / "numba"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('numba is broken here')\n")
    built = tmp_path / "built"
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(built)],
        cwd=sources,
        env={**os.environ, "PYTHONPATH": str(broken.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (built / "persona" / "codec" / "kernels.py").is_file()
    assert (built / "persona" / "py.typed").is_file()
    assert not list(built.rglob("*.o"))
    assert "kernels are not compiled, and will be when they are first called" in done.stderr
    assert "numba is broken here" in done.stderr


def test_the_build_may_use_the_versions_of_numba_that_persona_may_use() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = project["project"]["dependencies"]
    for requirement in project["build-system"]["requires"][1:]:
        assert requirement in needed
    assert any(requirement.startswith("numba") and "<" in requirement for requirement in needed)
