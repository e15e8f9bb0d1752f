"""A file that cannot be looked at is not one that was deleted."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persona.errors import SystemFault
from persona.repository import Repository
from tests.history.bots import Bot


@pytest.fixture
def kept(grown: Bot) -> Bot:
    (grown.root / "graph" / "sub").mkdir(parents=True)
    (grown.root / "graph" / "sub" / "b.md").write_text("b\n")
    grown.commit()
    return grown


def unreadable(monkeypatch: pytest.MonkeyPatch, path: Path, code: int, names: tuple[str, ...]) -> None:
    """The system refuses calls on what lies at or below a path, as for a directory of another user."""

    def refuse(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(place: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(place, (str, Path)) and path in (Path(place), *Path(place).parents):
                raise OSError(code, os.strerror(code), str(place))
            return call(place, *arguments, **options)

        return wrapped

    for name in names:
        monkeypatch.setattr(os, name, refuse(getattr(os, name)))


COMMANDS: dict[str, Callable[[Repository], object]] = {
    "commit": lambda repo: repo.commit(message="x", allow_empty=True),
    "switch": lambda repo: repo.switch("HEAD~1", detach=True),
    "reset": lambda repo: repo.reset("HEAD~1", "hard"),
    "revert": lambda repo: repo.revert("HEAD"),
    "checkout": lambda repo: repo.checkout("HEAD~1", weights=False),
}


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ENOMEM])
@pytest.mark.parametrize("where", ["graph/sub/b.md", "graph/sub"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_cannot_be_looked_at_stops_what_would_take_it_for_deleted(
    kept: Bot, command: str, where: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = kept.repo.resolve("HEAD")
    with monkeypatch.context() as patch:
        unreadable(patch, kept.root / where, code, ("stat", "open", "scandir", "listdir"))
        with pytest.raises(SystemFault, match=r"b\.md"):
            COMMANDS[command](kept.repo)
    assert kept.repo.resolve("HEAD") == head
    assert (kept.root / "graph" / "sub" / "b.md").read_text() == "b\n"
    assert kept.repo.status().files_changed == ()


def test_a_recipe_that_cannot_be_read_is_not_missing(kept: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    unreadable(monkeypatch, kept.recipe, errno.EACCES, ("stat", "open"))
    with pytest.raises(SystemFault, match=r"recipe\.toml"):
        kept.repo.recipe.set("listening", alpha=0.5)


PATHS: dict[str, Callable[[Bot, Path], object]] = {
    "add": lambda bot, path: bot.repo.add(path),
    "commit": lambda bot, path: bot.commit(path),
    "checkout": lambda bot, path: bot.repo.checkout(out=path, force=True),
    "init": lambda bot, path: Repository.init(path, base=bot.models / "tiny"),
    "init base": lambda bot, path: Repository.init(bot.models / "new", base=path),
    "open": lambda bot, path: Repository.open(path),
}


@pytest.mark.parametrize("call", PATHS)
def test_a_path_that_cannot_be_looked_at_is_a_fault_of_the_system(
    grown: Bot, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(grown.models.rglob("*"))
    with pytest.raises(SystemFault, match="too long"):
        PATHS[call](grown, grown.models / ("n" * 300))
    closed = grown.models / "closed"
    with monkeypatch.context() as patch:
        unreadable(patch, closed, errno.EACCES, ("stat", "lstat"))
        with pytest.raises(SystemFault, match="closed/there"):
            PATHS[call](grown, closed / "there")
    assert sorted(grown.models.rglob("*")) == before
