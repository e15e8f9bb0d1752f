"""Which files are tracked, and that every command has the same answer."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from persona.errors import (
    IntegrityError,
    InvalidInput,
    Refused,
    SystemFault,
    UnknownName,
    UnknownRevision,
    UsageError,
)
from persona.history.worktree import tracking
from persona.limits import MAX_TEXT_FILE_BYTES
from persona.repository import Repository
from tests.campaign import rounds
from tests.checkpoints import write_model
from tests.history.bots import Bot, at, base_tensors

TEMPLATE = "chat_template.jinja"


def seen(bot: Bot) -> tuple[str, ...]:
    """The files that the next commit changes: `status`, `diff` and the commit itself have to agree."""
    by_status, by_diff = bot.repo.status().files_changed, bot.repo.diff().files
    try:
        made = bot.commit()
        by_commit = bot.repo.show()[1].files
        assert made.id is not None
        bot.repo.reset("HEAD~1", "soft")
    except Refused:
        by_commit = ()
    assert by_status == by_diff == by_commit
    return by_status


def make(bot: Bot, path: str, text: str = "text\n") -> Path:
    """Writes a file of the work tree."""
    place = bot.root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    return place


@pytest.mark.parametrize("name", [TEMPLATE, "README.md", "train.log"])
def test_a_file_of_the_base_that_was_deleted_and_is_made_again_is_seen(tmp_path: Path, name: str) -> None:
    base = base_tensors()
    write_model(tmp_path / "tiny", base, **{name: "hello\n"})
    Repository.init(tmp_path / "bot", base=tmp_path / "tiny", author=at(), chunk=64)
    with Repository.open(tmp_path / "bot", author=at()) as repo:
        bot = Bot(repo, tmp_path, base)
        (bot.root / name).unlink()
        assert seen(bot) == (name,)
        bot.commit()
        assert seen(bot) == ()
        make(bot, name, "mine\n")
        assert (seen(bot), repo.status().untracked) == ((name,), ())
        with pytest.raises(Refused, match=name):
            repo.switch("HEAD~1", detach=True)
        repo.reset("HEAD", "hard")
        assert not (bot.root / name).exists()
        assert repo.restore([name], "HEAD~1") == (name,)
        assert seen(bot) == (name,)


@pytest.mark.parametrize("path", ["tokenizer.json", "vocab.txt", "graph/listening.md", "notes.md"])
def test_a_new_tracked_file_is_in_the_next_commit_and_gone_after_a_hard_reset(bot: Bot, path: str) -> None:
    make(bot, path)
    if path == "notes.md":
        bot.repo.add(bot.root / path)
    assert seen(bot) == (path,)
    assert bot.repo.status().untracked == ()
    with pytest.raises(Refused, match="mode='hard'"):
        bot.repo.revert("HEAD")
    with pytest.raises(UnknownName, match="is new: delete it"):
        bot.repo.restore([path])
    bot.repo.restore(["."])
    assert seen(bot) == (path,)
    (note,) = bot.repo.reset("HEAD", "hard").notes
    assert not (bot.root / path).exists()
    assert path in note
    (printed, _) = note.hint  # type: ignore[attr-defined]
    assert bot.repo.cat_file(*printed.arguments).text == b"text\n"
    make(bot, "other.md")
    assert bot.repo.status().files_changed == ()


@pytest.mark.parametrize("way", ["switch", "checkout"])
def test_a_new_tracked_file_goes_along_and_stays_tracked_unless_forced(bot: Bot, way: str) -> None:
    move: Callable[..., object] = bot.repo.switch
    if way == "checkout":
        move = lambda name, **how: bot.repo.checkout(name, weights=False, **how)  # noqa: E731
    bot.repo.branches.create("other")
    make(bot, "notes.md")
    make(bot, "graph/a.md")
    bot.repo.add(bot.root / "notes.md")
    move("other")
    assert seen(bot) == ("graph/a.md", "notes.md")
    move("main", force=True)
    assert not (bot.root / "notes.md").exists()
    assert not (bot.root / "graph").exists()
    make(bot, "notes.md")
    assert seen(bot) == ()


def test_an_untracked_file_stays_where_it_is_unless_it_is_in_the_way(bot: Bot) -> None:
    place = make(bot, "notes.md", "one\n")
    bot.commit(place)
    bot.repo.switch("HEAD~1", detach=True)
    assert not place.exists()
    make(bot, "notes.md", "mine\n")
    make(bot, "other.md", "mine\n")
    assert bot.repo.status().untracked == ("notes.md", "other.md")
    with pytest.raises(Refused, match=r"(?s)nothing to commit.*notes\.md, other\.md\nhint: `repo\.add"):
        bot.commit()
    with pytest.raises(Refused, match=r"(?s)untracked files would be overwritten: notes\.md.*force=True"):
        bot.repo.switch("main")
    bot.repo.reset("HEAD", "hard")
    assert place.read_text() == "mine\n"
    bot.repo.switch("main", force=True)
    assert place.read_text() == "one\n"
    assert (bot.root / "other.md").read_text() == "mine\n"


def test_untracked_files_are_listed_and_a_directory_of_them_once(bot: Bot) -> None:
    make(bot, "train.log")
    make(bot, "runs/a/events")
    make(bot, "runs/b/events")
    make(bot, "docs/kept.md")
    make(bot, "docs/other.md")
    make(bot, "weights-only/model.safetensors")
    (bot.root / "empty").mkdir()
    make(bot, "optimizer.pt")
    make(bot, ".git/config")
    bot.repo.add(bot.root / "docs" / "kept.md")
    bot.checkout()
    status = bot.repo.status()
    assert status.untracked == ("docs/other.md", "runs/", "train.log")
    assert status.files_changed == ("docs/kept.md",)


def test_weights_that_checkout_will_not_write_beside_are_said(bot: Bot) -> None:
    make(bot, "other.safetensors")
    status = bot.repo.status()
    assert (status.weights.state, status.in_the_way) == ("absent", ("other.safetensors",))
    with pytest.raises(Refused, match=r"other\.safetensors"):
        bot.checkout()


# -- add and restore -----------------------------------------------------------------------------------------


def test_text_files_and_directories_of_them_can_be_added(bot: Bot) -> None:
    for path in ("README.md", "LICENSE", "docs/a.md", "docs/deep/.hidden"):
        make(bot, path)
    made = bot.repo.add(bot.root / "README.md", bot.root / "LICENSE", bot.root / "docs")
    everything = ("LICENSE", "README.md", "docs/a.md", "docs/deep/.hidden")
    assert (made.id, tuple(sorted(made.files))) == (None, everything)
    assert bot.repo.add(bot.root / "docs").files == ()
    assert seen(bot) == everything
    bot.commit()
    make(bot, "docs/a.md", "other\n")
    (bot.root / "LICENSE").unlink()
    assert seen(bot) == ("LICENSE", "docs/a.md")
    bot.commit()
    make(bot, "LICENSE")
    assert (seen(bot), bot.repo.status().untracked) == ((), ("LICENSE",))


def test_a_text_file_is_added_and_committed_at_once(bot: Bot) -> None:
    made = bot.commit(make(bot, "notes.md"))
    assert made.files == bot.repo.show()[1].files == ("notes.md",)
    with pytest.raises(Refused, match="nothing to commit"):
        bot.commit(bot.root / "notes.md")


def test_an_added_file_travels_with_an_export(bot: Bot, tmp_path: Path) -> None:
    bot.commit(make(bot, "README.md", "a card\n"))
    bot.repo.checkout("HEAD", out=tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text() == "a card\n"


def test_a_reset_that_is_not_soft_forgets_what_was_added(bot: Bot) -> None:
    bot.repo.add(make(bot, "notes.md"))
    bot.repo.reset("HEAD", "soft")
    assert seen(bot) == ("notes.md",)
    bot.repo.reset()
    assert (seen(bot), bot.repo.status().untracked) == ((), ("notes.md",))


def test_a_soft_reset_keeps_the_files_of_the_commits_that_it_takes_back(bot: Bot) -> None:
    bot.commit(make(bot, "notes.md"))
    bot.commit(make(bot, "more.md"))
    bot.repo.reset("HEAD~2", "soft")
    assert seen(bot) == ("more.md", "notes.md")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a\\b.md", "backslash"),
        ("caf\udce9.md", "Unicode"),
        ("big.md", "larger than 64 MiB"),
        ("pipe", "not a regular file"),
        ("loop", "cannot be read"),
        ("dangling", "leads nowhere"),
        ("state.md", "pickle"),
        ("README.MD", r"README\.md is tracked already"),
        ("cafe\u0301.md", "is tracked already"),
    ],
)
def test_what_no_commit_can_hold_is_refused_by_add_with_the_reason(bot: Bot, name: str, why: str) -> None:
    bot.repo.add(make(bot, "README.md"), make(bot, "caf\u00e9.md"))
    place = bot.root / "sub" / name if "\udce9" in name else bot.root / name
    place.parent.mkdir(exist_ok=True)
    if name == "pipe":
        os.mkfifo(place)
    elif name in ("loop", "dangling"):
        place.symlink_to("loop" if name == "loop" else "nothing")
    else:
        place.write_bytes(b"\x80\x04pickled" if name == "state.md" else b"text")
    if name == "big.md":
        os.truncate(place, MAX_TEXT_FILE_BYTES + 1)
    with pytest.raises(InvalidInput, match=why):
        bot.repo.add(place)
    assert bot.repo.status().files_changed == ("README.md", "caf\u00e9.md")


def test_a_file_can_be_added_under_a_name_that_differs_by_case_alone(bot: Bot) -> None:
    bot.repo.add(make(bot, "notes.md"))
    bot.commit()
    (bot.root / "notes.md").rename(bot.root / "Notes.md")
    bot.repo.add(bot.root / "Notes.md")
    bot.commit()
    history = bot.repo._history
    assert [path for path in history.last_files() if path.casefold() == "notes.md"] == ["Notes.md"]
    (bot.root / "notes.md").write_text("another\n")
    with pytest.raises(InvalidInput, match=r"Notes\.md is tracked already"):
        bot.repo.add(bot.root / "notes.md")


def test_an_import_is_told_from_text_by_what_lies_there(bot: Bot) -> None:
    inside = write_model(bot.root / "checkpoint-500", bot.base)
    with pytest.raises(Refused, match="no element"):
        bot.repo.add(inside, name="x")
    with pytest.raises(UsageError, match="in a separate command"):
        bot.repo.add(make(bot, "notes.md"), inside)
    with pytest.raises(InvalidInput, match="weights are not tracked"):
        bot.repo.add(make(bot, "runs/notes.md"), make(bot, "runs/last/model.bin").parents[1])
    with pytest.raises(InvalidInput, match="no such file or directory"):
        bot.repo.add(bot.root / "pirate")
    with pytest.raises(UsageError, match=r"no fine-tune to import\nhint: .*leave out alpha;"):
        bot.repo.add(bot.root / "notes.md", alpha=0.5)


def test_a_damaged_list_of_added_files_is_named(bot: Bot) -> None:
    bot.repo._history.store.state("added").write(["../../etc/passwd"])
    with pytest.raises(IntegrityError, match=r"added\.json"):
        bot.repo.status()


def test_restore_removes_the_files_that_the_revision_lacks_and_tells_what_it_changed(bot: Bot) -> None:
    bot.commit(make(bot, "notes.md"))
    make(bot, "graph/new.md")
    assert bot.repo.restore(["."]) == ()
    assert bot.repo.restore(["."], "HEAD~1") == ("notes.md",)
    assert not (bot.root / "notes.md").exists()
    assert (bot.root / "graph" / "new.md").exists()
    assert bot.repo.restore(["."]) == ("notes.md",)


def test_a_file_that_is_restored_from_another_revision_is_tracked(bot: Bot) -> None:
    bot.commit(make(bot, "notes.md"))
    (bot.root / "notes.md").unlink()
    bot.commit()
    bot.repo.restore(["notes.md"], "HEAD~1")
    assert seen(bot) == ("notes.md",)


def test_a_file_that_a_revert_brings_back_is_tracked(bot: Bot) -> None:
    bot.commit(make(bot, "notes.md"))
    (bot.root / "notes.md").unlink()
    bot.commit()
    bot.repo.revert("HEAD", no_commit=True)
    assert seen(bot) == ("notes.md",)


# -- files that no commit can hold ---------------------------------------------------------------------------


def backslash(root: Path) -> str:
    make_at(root / "graph" / "a\\b.md")
    return "graph/a\\b.md"


def no_text(root: Path) -> str:
    make_at(root / "graph" / os.fsdecode(b"caf\xe9.md"))
    return os.fsdecode(b"graph/caf\xe9.md")


def large(root: Path) -> str:
    os.truncate(make_at(root / "tokenizer.model"), MAX_TEXT_FILE_BYTES + 1)
    return "tokenizer.model"


def loop(root: Path) -> str:
    (root / "tokenizer.json").symlink_to("tokenizer.json")
    return "tokenizer.json"


def pipe(root: Path) -> str:
    make_at(root / "graph" / "a.md")
    os.mkfifo(root / "graph" / "pipe")
    return "graph/pipe"


def linked_directory(root: Path) -> str:
    (root / "graph").symlink_to(root.parent)
    return "graph"


def make_at(place: Path) -> Path:
    place.parent.mkdir(exist_ok=True)
    place.write_text("junk\n")
    return place


def weights(root: Path) -> str:
    make_at(root / "graph" / "model.safetensors").write_bytes(b"weights")
    return "graph/model.safetensors"


def pickled(root: Path) -> str:
    (root / "tokenizer.pkl").write_bytes(b"state")
    return "tokenizer.pkl"


def twin(root: Path) -> str:
    """A name that some file systems take for that of a tracked file."""
    (root / "Tokenizer_config.json").write_text("{}\n")
    make_at(root / "graph" / "Note.md").write_text("one\n")
    (root / "graph" / "note.md").write_text("two\n")
    return "graph/note.md"


@pytest.mark.parametrize(
    "junk", [backslash, no_text, large, loop, pipe, linked_directory, weights, pickled, twin]
)
def test_a_file_that_no_commit_can_hold_is_reported_and_stops_nothing(
    grown: Bot, junk: Callable[[Path], str]
) -> None:
    path = junk(grown.root)
    status = grown.repo.status()
    assert [file.path for file in status.left_out] == [path]
    assert path not in status.files_changed
    grown.repo.diff()
    grown.repo.recipe.set("listening", alpha=0.1)
    made = grown.commit()
    assert any(note.startswith("left out:") for note in made.notes)
    grown.repo.revert("HEAD")
    grown.repo.switch("HEAD~1", detach=True)
    grown.repo.restore(["recipe.toml"], "main~1")
    grown.repo.reset("HEAD", "hard")
    grown.checkout("main")
    assert os.path.lexists(grown.root / path)


def test_a_tracked_file_that_grew_too_large_is_named_and_can_be_put_back(bot: Bot) -> None:
    os.truncate(bot.root / TEMPLATE, MAX_TEXT_FILE_BYTES + 1)
    assert bot.repo.status().files_changed == (TEMPLATE,)
    with pytest.raises(InvalidInput, match=TEMPLATE):
        bot.commit()
    bot.repo.restore([TEMPLATE])
    assert (bot.root / TEMPLATE).read_text() == "hello\n"


@pytest.mark.parametrize("path", ["graph/mine.md", "tokenizer.json", "graph/closed/"])
def test_a_new_file_that_may_not_be_read_is_reported_and_stops_nothing(
    grown: Bot, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make(grown, path + "x" if path.endswith("/") else path)
    closed = place.parent if path.endswith("/") else place
    for module, name in ((os, "open"), (os, "scandir")):
        real = getattr(module, name)

        def refusing(where: str | Path, *more: int, real: Callable[..., object] = real, **how: int) -> object:
            if os.fspath(where) == str(closed):
                raise PermissionError(13, "Permission denied", str(closed))
            return real(where, *more, **how)

        monkeypatch.setattr(module, name, refusing)
    (left_out,) = grown.repo.status().left_out
    assert (left_out.path, "Permission denied" in left_out.why) == (path, True)
    grown.repo.switch("HEAD~1", detach=True)
    grown.repo.recipe.set("listening", alpha=0.1)
    assert any("left out" in note for note in grown.commit().notes)


NAMES = (TEMPLATE, "config.json", "tokenizer.json", "graph/a", "graph/a/b.md", "notes.md", "docs/x.md")


def act_at_random(bot: Bot, random: Random, branches: list[str]) -> None:
    """One thing that somebody does to files, or one command that moves or records them."""
    place = bot.root / random.choice(NAMES)
    repo, _ = bot.repo, bot.now()
    match random.randrange(14):
        case 0 | 1 | 2 | 3:
            with suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(f"{random.randrange(3)}\n")
        case 4 | 5:
            if place.is_file():
                place.unlink()
        case 6:
            repo.add(place)
        case 7 | 8:
            bot.commit()
        case 9:
            repo.reset(f"HEAD~{random.randrange(2)}", random.choice(("soft", "mixed", "hard")))
        case 10:
            branches.append(f"b{len(branches)}")
            repo.checkout(branch=branches[-1])
        case 11:
            repo.switch(random.choice(branches), force=random.random() < 0.3)
        case 12:
            repo.restore([random.choice((".", *NAMES))], random.choice(("HEAD", *branches)))
        case 13:
            repo.revert(random.choice(("HEAD", *branches)), no_commit=random.random() < 0.5)


@pytest.mark.parametrize("seed", range(rounds(6)))
def test_every_command_agrees_whatever_was_done_before(bot: Bot, seed: int) -> None:
    random, branches = Random(seed), ["main"]
    for _ in range(30):
        with suppress(Refused, InvalidInput, UnknownName, UnknownRevision):
            act_at_random(bot, random, branches)
        status, diff = bot.repo.status(), bot.repo.diff()
        assert status.files_changed == diff.files
        assert {change.path for change in diff.file_changes if change.change != "removed"} == {
            path for path in status.files_changed if (bot.root / path).is_file()
        }
        tracked_now = {*tracking.tracked(bot.repo._history).paths}
        assert not tracked_now.intersection(status.untracked)
        if random.random() < 0.2:
            head = bot.repo.resolve("HEAD")
            with suppress(Refused):
                bot.commit()
            assert (bot.repo.resolve("HEAD") == head) is (status.files_changed == ())
            assert bot.repo.status().files_changed == ()
    bot.repo.reset("HEAD", "hard")
    assert bot.repo.status().files_changed == ()
    with suppress(Refused):
        bot.repo.revert("HEAD")
    assert bot.repo.status().files_changed == ()


@pytest.mark.parametrize("junk", ["loop", "dangling", "pipe", "directory"])
def test_what_stands_in_place_of_a_tracked_file_counts_as_its_deletion(bot: Bot, junk: str) -> None:
    place = bot.root / TEMPLATE
    place.unlink()
    if junk == "pipe":
        os.mkfifo(place)
    elif junk == "directory":
        place.mkdir()
    else:
        place.symlink_to(TEMPLATE if junk == "loop" else "nothing")
    assert seen(bot) == (TEMPLATE,)
    assert bot.repo.restore([TEMPLATE]) == (TEMPLATE,)
    assert place.read_text() == "hello\n"
    assert not place.is_symlink()


def test_a_file_that_cannot_be_read_stops_only_commands_that_need_it(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bot.root / TEMPLATE).write_text("mine\n")
    real = os.open

    def refusing(where: str | Path, *more: int, **how: int) -> int:
        if os.fspath(where) == str(bot.root / "config.json"):
            raise PermissionError(13, "Permission denied", str(where))
        return real(where, *more, **how)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(SystemFault, match=r"config\.json"):
        bot.commit()
    assert bot.repo.restore([TEMPLATE]) == (TEMPLATE,)


@pytest.mark.parametrize("no_commit", [False, True])
def test_a_revert_names_the_untracked_file_that_it_would_overwrite(bot: Bot, no_commit: bool) -> None:
    place = make(bot, "notes.md")
    bot.commit(place)
    place.unlink()
    bot.commit()
    make(bot, "notes.md", "mine\n")
    with pytest.raises(Refused, match=r"untracked files would be overwritten: notes\.md\nhint: move"):
        bot.repo.revert("HEAD", no_commit=no_commit)
    assert place.read_text() == "mine\n"
    place.unlink()
    bot.repo.revert("HEAD", no_commit=no_commit)
