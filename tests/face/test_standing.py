"""What is the same for all calls is said once, when a repository is opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, is_typeddict

import pytest

import persona
from persona.errors import InvalidInput, UsageError
from persona.history import options
from persona.merge.run import materialise
from persona.objects.commit import Person
from tests.history.bots import Bot, at


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options that computing weights was told, a dict a time."""
    calls: list[dict[str, Any]] = []
    compute: Callable[..., Any] = materialise.materialise

    def record(*arguments: Any, **options: Any) -> Any:
        calls.append(options)
        return compute(*arguments, **options)

    monkeypatch.setattr(materialise, "materialise", record)
    return calls


def test_a_call_comes_before_open_and_open_before_the_setting(grown: Bot, told: list[dict[str, Any]]) -> None:
    grown.repo.config.set("checkout.threads", "3")
    grown.repo.digest()
    with persona.open(grown.root, threads=2) as repo:
        repo.digest()
        repo["HEAD"].digest(threads=1)
        repo.checkout("HEAD~1")
    assert [call["threads"] for call in told] == [3, 2, 1, 2]


@pytest.mark.parametrize("kind", [kind for kind in vars(options).values() if is_typeddict(kind)])
def test_every_option_with_a_name_of_a_setting_follows_it(grown: Bot, kind: Any) -> None:
    """Those that share a name, such as `device_memory` of `checkout` and of `live`, share the setting."""
    given = {"threads": 3, "memory": 10**6, "device_memory": 10**7, "max_shard_size": 10**8, "device": "cpu"}
    for name, value in given.items():
        grown.repo.config.set(f"checkout.{name.replace('_', '-')}", str(value))
    found = grown.repo._history.in_force(kind, {})
    assert {name: found[name] for name in given if name in found} == {
        name: value for name, value in given.items() if name in found
    }


def test_init_follows_the_settings_of_the_user(bot: Bot, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[checkout]\nthreads = 'many'\n")
    with pytest.raises(InvalidInput, match=r"checkout\.threads: 'many' is not a number of threads"):
        persona.init(tmp_path / "new", base=bot.models / "tiny", user_config=tmp_path / "config")
    assert not (tmp_path / "new").exists()


def test_memory_and_progress_and_device_hold_for_every_call(grown: Bot, told: list[dict[str, Any]]) -> None:
    seen: list[str] = []

    def progress(label: str, done: int, total: int) -> None:
        seen.append(label)

    with persona.open(grown.root, memory=1 << 28, device="cpu", progress=progress) as repo:
        repo.digest()
        repo.fsck(full=True)
    assert told[0]["memory"] == 1 << 28
    assert told[0]["device"].device == "cpu"
    assert "checking" in seen


def test_a_signature_asks_who_signs(bot: Bot) -> None:
    asked: list[str] = []

    def person(name: str) -> Callable[[], Person]:
        return lambda: asked.append(name) or at(name=name)  # type: ignore[func-returns-value]

    with persona.open(bot.root, author=person("Ada"), committer=person("Grace")) as repo:
        repo.status()
        assert asked == []
        repo.commit(message="x", allow_empty=True)
        assert repo["HEAD"].author.name == "Ada"
        assert repo["HEAD"].commit.committer.name == "Grace"
        repo.commit(message="y", allow_empty=True, author=at(name="Eve"))
        assert repo["HEAD"].author.name == "Eve"
        repo.tags.create("v1", message="one")
        assert asked == ["Ada", "Grace", "Grace", "Grace"]


def test_init_gives_the_repository_and_the_first_commit(bot: Bot, tmp_path: Path) -> None:
    with persona.Repository.init(tmp_path / "new", base=bot.models / "tiny", author=at()) as repo:
        assert repo.made.id == repo.head().id
        assert repo.made.subject == "Begin with tiny"
    with pytest.raises(UsageError, match="opened"):
        _ = bot.repo.made


def test_a_note_without_a_result_is_a_warning_at_the_line_of_the_caller(grown: Bot) -> None:
    with pytest.warns(UserWarning, match="only goes back") as warnings:
        list(grown.repo.log("main@{2001-01-01}"))
    assert {warning.filename for warning in warnings} == {__file__}


def test_notes_go_where_open_says(grown: Bot) -> None:
    noted: list[str] = []
    with persona.open(grown.root, notes=noted) as repo:
        assert repo["main@{2001-01-01}"].id == repo.resolve("HEAD~3")
        assert repo.switch("main").notes == ()
    (note,) = noted
    assert "only goes back" in note
