"""Files that are the user's own keep what the user gave them: their links and their permissions."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from persona.errors import IntegrityError, InvalidInput, Refused
from persona.repository import Repository
from persona.store import files
from tests.checkpoints import write_model
from tests.disks import Syncing
from tests.history.bots import Bot, at, base_tensors


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_user_config_is_read_and_written_where_its_link_leads(bot: Bot, tmp_path: Path) -> None:
    kept = tmp_path / "dotfiles" / "persona"
    kept.parent.mkdir()
    kept.write_text("[user]\nname = 'Everywhere'\n")
    kept.chmod(0o600)
    link = tmp_path / "home" / "config"
    link.parent.mkdir()
    link.symlink_to(os.path.relpath(kept, link.parent))
    with Repository.open(bot.root, user_config=link) as repo:
        assert repo.config.get("user.name") == "Everywhere"
        repo.config.set("user.email", "e@x", user=True)
        repo.config.unset("user.name", user=True)
    assert link.is_symlink()
    assert "e@x" in kept.read_text()
    assert "Everywhere" not in kept.read_text()
    assert mode_of(kept) == 0o600


def test_a_link_whose_target_is_not_there_yet_is_an_empty_config(bot: Bot, tmp_path: Path) -> None:
    link = tmp_path / "config"
    link.symlink_to(tmp_path / "later" / "persona")
    with Repository.open(bot.root, user_config=link) as repo:
        assert repo.config.get("user.name") is None
        repo.config.set("user.name", "Ada", user=True)
    assert "Ada" in (tmp_path / "later" / "persona").read_text()
    assert link.is_symlink()


@pytest.mark.parametrize("kind", ["loop", "pipe", "directory"])
def test_a_user_config_that_is_no_file_is_refused_as_the_users_own(
    bot: Bot, tmp_path: Path, kind: str
) -> None:
    place = tmp_path / "config"
    {"loop": lambda: place.symlink_to(place), "pipe": lambda: os.mkfifo(place), "directory": place.mkdir}[
        kind
    ]()
    with Repository.open(bot.root, user_config=place) as repo, pytest.raises(InvalidInput, match="config"):
        dict(repo.config)


def test_a_link_in_the_place_of_the_repositorys_config_is_not_followed(bot: Bot, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("[user]\nname = 'Mallory'\n")
    config = bot.root / ".persona" / "config"
    config.unlink()
    config.symlink_to(tmp_path / "elsewhere")
    with Repository.open(bot.root) as repo, pytest.raises(IntegrityError):
        repo.config.get("user.name")


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_an_edited_recipe_keeps_its_permissions(grown: Bot, mode: int) -> None:
    grown.recipe.chmod(mode)
    grown.repo.recipe.set("listening", alpha="0.3")
    assert mode_of(grown.recipe) == mode
    grown.repo.restore(["recipe.toml"])
    assert mode_of(grown.recipe) == mode


def committed(bot: Bot) -> dict[str, str]:
    """The tracked files of HEAD: path → blob id."""
    history = bot.repo._history
    return history.files_of(history.head_commit())


ALIKE = [("notes.md", "NOTES.md"), ("caf\u00e9.md", "cafe\u0301.md")]


@pytest.mark.parametrize("names", ALIKE)
def test_of_files_whose_names_are_one_on_other_machines_one_is_committed(
    bot: Bot, names: tuple[str, str]
) -> None:
    (bot.root / "graph").mkdir()
    for name in names:
        (bot.root / "graph" / name).write_text(name)
    both = {f"graph/{name}" for name in names}
    made = bot.commit(message="both")
    (left_out,) = both - set(committed(bot))
    assert [note.startswith("left out:") and left_out in note for note in made.notes] == [True]
    bot.root.joinpath(left_out).rename(bot.root / "graph" / "other.md")
    bot.commit(message="under another name")
    assert set(committed(bot)) & {*both, "graph/other.md"} == {*both, "graph/other.md"} - {left_out}


def test_a_model_with_such_names_is_not_taken_in(tmp_path: Path) -> None:
    write_model(tmp_path / "tiny", base_tensors(), **{"README.md": "one", "Readme.md": "two"})
    with pytest.raises(InvalidInput, match=r"README.md and Readme.md differ only in case"):
        Repository.init(tmp_path / "bot", base=tmp_path / "tiny", author=at())
    (tmp_path / "tiny" / "Readme.md").unlink()
    Repository.init(tmp_path / "bot", base=tmp_path / "tiny", author=at())


def test_a_file_with_a_long_name_of_wide_letters_can_be_restored(bot: Bot) -> None:
    name = "\u6587" * 80 + ".md"
    (bot.root / "graph").mkdir()
    (bot.root / "graph" / name).write_text("text")
    bot.commit(message="a long name")
    (bot.root / "graph" / name).write_text("edited")
    bot.repo.restore([f"graph/{name}"])
    assert (bot.root / "graph" / name).read_text() == "text"


def test_directories_that_an_earlier_command_made_are_synced_before_a_file_in_them_counts(bot: Bot) -> None:
    (bot.root / "graph" / "deep").mkdir(parents=True)
    (bot.root / "graph" / "deep" / "a.md").write_text("text")
    bot.commit(message="a file")
    (bot.root / "graph" / "deep" / "a.md").write_text("edited")
    syncing = Syncing()
    with files.replaced_calls(syncing):
        bot.repo.restore(["graph/deep/a.md"])
    assert syncing.synced >= {bot.root, bot.root / "graph", bot.root / "graph" / "deep"}


def in_the_way(place: Path, kind: str) -> None:
    """Puts something at a place that no commit can hold."""
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to({"nowhere": "nowhere", "loop": place.name, "directory": "."}[kind])


@pytest.mark.parametrize("kind", ["nowhere", "loop", "directory", "pipe"])
def test_no_command_puts_a_new_file_in_the_place_of_a_link_or_a_pipe(grown: Bot, kind: str) -> None:
    repo, place = grown.repo, grown.root / "NOTES.md"
    repo.switch(create="topic")
    place.write_text("theirs\n")
    repo.add(place)
    grown.commit(message="notes")
    place.write_text("stashed\n")
    repo.reset("HEAD~1", mode="soft")
    repo.stash.push()
    repo.reset("topic@{1}", mode="hard")
    repo.switch("main")
    repo.recipe.set("listening", alpha="0.5")
    grown.commit(message="ours")
    in_the_way(place, kind)
    before = os.lstat(place).st_ino
    commands: list[Callable[[], object]] = [
        lambda: repo.switch("topic"),
        lambda: repo.checkout("topic", weights=False),
        lambda: repo.merge("topic"),
        lambda: repo.merge("topic", no_commit=True),
        lambda: repo.cherry_pick("topic"),
        lambda: repo.cherry_pick("topic", no_commit=True),
        lambda: repo.rebase("topic"),
        repo.stash.pop,
    ]
    head = repo.resolve("HEAD")
    for command in commands:
        with pytest.raises(Refused, match=r"untracked files would be overwritten: NOTES\.md"):
            command()
        assert (os.lstat(place).st_ino, repo.resolve("HEAD"), repo.status().sequence) == (before, head, None)
    repo.switch("topic", force=True)
    assert place.read_text() == "theirs\n"
