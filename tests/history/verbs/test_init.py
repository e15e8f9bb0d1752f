"""How a repository begins."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from persona.errors import BusyError, InvalidInput, Refused
from persona.history.base_names import default_base_name
from persona.history.examples import example_files
from persona.history.verbs import init
from persona.repository import Repository
from persona.store.store import Store
from tests.checkpoints import write_model
from tests.history.bots import at, base_tensors


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("models/SmolLM2-135M", "SmolLM2-135M"),
        ("hub/models--org--My-Model/snapshots/0123abcd", "My-Model"),
        ("plain/snapshots/0123abcd", "0123abcd"),
        ("a model", "a-model"),
    ],
)
def test_a_base_is_named_after_its_model(tmp_path: Path, path: str, name: str) -> None:
    (tmp_path / path).mkdir(parents=True)
    assert default_base_name(tmp_path / path) == name


@pytest.mark.parametrize("in_place", [True, False])
def test_a_repository_is_made_in_the_directory_that_a_link_leads_to(tmp_path: Path, in_place: bool) -> None:
    model = write_model(tmp_path / "tiny", base_tensors())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("tiny" if in_place else "elsewhere")
    Repository.init(tmp_path / "link", base=None if in_place else model, author=at())
    assert (tmp_path / "link" / ".persona" / "format").is_file()
    with Repository.open(tmp_path / "link") as repo:
        assert 'base = "tiny"' in (repo.root / "recipe.toml").read_text()
        assert repo.fsck().ok


@pytest.mark.parametrize("name", ["file", "dangling", "file/below"])
def test_what_is_in_the_way_of_a_repository_is_named(tmp_path: Path, name: str) -> None:
    model = write_model(tmp_path / "tiny", base_tensors())
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(Refused, match=f"{name.split('/')[0]} is in the way"):
        Repository.init(tmp_path / name, base=model, author=at())
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_of_two_inits_at_once_the_second_is_refused_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "tiny", base_tensors())
    lock, todo = Store.worktree_lock, [1]

    def waiting(store: Store) -> AbstractContextManager[None]:
        if todo:
            todo.pop()
            Repository.init(tmp_path / "bot", base=tmp_path / "tiny", name="first", author=at(), chunk=64)
            (tmp_path / "bot" / "recipe.toml").write_text("# edited at once\n")
        return lock(store)

    monkeypatch.setattr(Store, "worktree_lock", waiting)
    with pytest.raises(Refused, match="already"):
        Repository.init(tmp_path / "bot", base=tmp_path / "tiny", name="second", author=at(), chunk=64)
    assert (tmp_path / "bot" / "recipe.toml").read_text() == "# edited at once\n"
    with Repository.open(tmp_path / "bot") as repo:
        assert repo.fsck().ok
        assert repo["HEAD"].subject == "Begin with first"


def test_an_init_that_fails_takes_away_what_it_made_before_another_may_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "tiny", base_tensors())
    held: list[bool] = []

    def removed(root: Path) -> None:
        with pytest.raises(BusyError):
            Store.open(root.parent).worktree_lock().__enter__()
        held.append(True)

    monkeypatch.setattr(init, "remove_tree", removed)
    monkeypatch.setattr(init, "_first_commit", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Repository.init(tmp_path / "bot", base=tmp_path / "tiny", author=at(), chunk=64)
    assert held


def test_an_example_becomes_the_graph_of_the_first_commit(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny", base_tensors())
    with Repository.init(tmp_path / "bot", base=model, example="companion", author=at()) as repo:
        example = example_files("companion")
        assert {path: (repo.root / path).read_bytes() for path in example} == example
        assert example.keys() <= set(repo["HEAD"].files)
        assert repo.status().files_changed == ()


def test_an_unknown_example_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny", base_tensors())
    with pytest.raises(InvalidInput, match=r"no example is named 'compagnon'; there is only companion"):
        Repository.init(tmp_path / "bot", base=model, example="compagnon", author=at())
    assert not (tmp_path / "bot").exists()


@pytest.mark.parametrize("in_place", [True, False])
def test_an_example_overwrites_no_file_of_the_graph(tmp_path: Path, in_place: bool) -> None:
    model = write_model(tmp_path / "tiny", base_tensors())
    place = model if in_place else tmp_path / "bot"
    (place / "graph").mkdir(parents=True)
    (place / "graph" / "voice.md").write_text("mine")
    with pytest.raises(Refused, match=r"graph/voice.md is in the way"):
        Repository.init(place, base=None if in_place else model, example="companion", author=at())
    assert [path.name for path in (place / "graph").iterdir()] == ["voice.md"]
    assert (place / "graph" / "voice.md").read_text() == "mine"


def test_an_example_joins_a_graph_that_is_there(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny", base_tensors())
    (model / "graph").mkdir()
    (model / "graph" / "mine.md").write_text('+++\nkey = "mine"\n+++\n')
    (model / "graph" / "voice.md").write_bytes(example_files("companion")["graph/voice.md"])
    with Repository.init(model, example="companion", author=at()) as repo:
        assert example_files("companion").keys() <= set(repo["HEAD"].files)
        assert repo.status().files_changed == ("graph/mine.md",)


def test_the_recipe_of_a_base_is_left_out_and_named(tmp_path: Path) -> None:
    base = write_model(tmp_path / "tiny", base_tensors(), **{"recipe.toml": "another's"})
    with Repository.init(tmp_path / "bot", base=base, author=at()) as repo:
        assert repo.made is not None
        assert repo.made.notes == ("left out: recipe.toml (a repository begins with its own)",)
        assert 'base = "tiny"' in (repo.root / "recipe.toml").read_text()
