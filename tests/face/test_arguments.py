"""A call that cannot mean anything is refused at once, by the name of its parameter."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import persona
from persona.behaviour.talking import Conversation
from persona.errors import InvalidInput, PersonaError, UnknownRevision, UsageError
from persona.face.collection import Collection
from persona.face.recipe import WorkingRecipe
from persona.face.refs import Branches, Tags
from persona.face.revision import Revision
from persona.face.settings import Settings
from persona.face.vectors import Vectors
from persona.history.arguments import spell_out
from persona.live.model import LiveModel
from persona.repository import Repository
from tests.history.bots import Bot, at

UNCHECKED = {
    "str | float | Sequence[str | float] | None",  # α and densities
    "str | float | Sequence[str | float]",  # the α of a sweep
    "OverLayers",
    "float | None",
    "str | float | None",  # a learning rate
    "str | Sequence[str] | None",  # globs
    "Any",
    "Module | None",
}
"""Annotations whose values the calls themselves judge."""
MEANINGLESS: dict[str, list[object]] = {
    "int | None": ["2", 0.5, True, b"2"],
    "int": ["2", None, True],
    "float": ["2", None, True, [1.0]],
    "AnyPath": [None, b"here", 3, "a\0b", ""],
    "AnyPath | None": [b"here", 3, "a\0b", ""],
    "str": [None, b"HEAD", 3],
    "str | None": [b"HEAD", 3],
    "Signer": ["Ada <ada@example.org>"],
    "Progress | None": ["yes"],
    "NoteList | None": ["yes", 3],
    "bool": ["no", None, 3, b"", [True]],
    "bool | None": ["no", 3, b"", [True]],
    'Literal["soft", "mixed", "hard"]': ["bogus", None],
    "str | CommitEntry | None": [3, b"HEAD"],
    "str | Sequence[str]": [None, b"HEAD", [None]],
    "Mapping[str, str | float]": [None, "density=1", 3],
    "Mapping[str, Any] | None": ["pirate=1", 3],
    "Callable[[str], object] | None": ["print", 3],
    "Callable[[str], str] | None": ["print", 3],
    "Callable[[str], int] | None": ["print", 3],
    'Literal["ours", "theirs", "mean"] | None': ["bogus", 3],
}


class Anybody:
    """An open repository that no verb reaches."""

    id = "0" * 64

    @property
    def _history(self) -> Anybody:
        return self

    def require_open(self) -> None:
        """It is."""


ANYBODY = Anybody()
OWNERS = (Repository, Revision, WorkingRecipe, Vectors, Branches, Tags, Settings, LiveModel, Conversation)


def methods(cls: type) -> list[tuple[str, Callable[..., Any]]]:
    """The public methods of a class of the face, with every option in their signatures; those that all
    mappings have left out.
    """
    found = inspect.getmembers(cls, inspect.isfunction)
    spell_out()
    return [
        (name, method)
        for name, method in found
        if name[0] != "_" and not hasattr(dict, name) and not (cls is Revision and name == "to_json")
    ]


def annotation_of(parameter: inspect.Parameter) -> str:
    return str(parameter.annotation).replace("'", '"')


def test_every_annotation_of_a_public_parameter_is_checked_or_named_here() -> None:
    seen = {
        annotation_of(parameter)
        for cls in OWNERS
        for _, method in methods(cls)
        for parameter in inspect.signature(method).parameters.values()
        if parameter.name != "self"
    }
    assert seen - UNCHECKED - set(MEANINGLESS) == set()
    assert set(MEANINGLESS) - seen == set()


def calls() -> list[Any]:
    """Every parameter of every public method, with a value that it cannot have."""
    found = []
    for cls in OWNERS:
        for name, method in methods(cls):
            for parameter in inspect.signature(method).parameters.values():
                found += [
                    pytest.param(
                        cls,
                        name,
                        parameter.name,
                        value,
                        id=f"{cls.__name__}.{name}-{parameter.name}-{value!r:.20}",
                    )
                    for value in MEANINGLESS.get(annotation_of(parameter), [])
                ]
    assert len(found) > 200
    return found


@pytest.mark.parametrize(("cls", "name", "parameter", "value"), calls())
def test_every_method_refuses_what_a_parameter_cannot_be(
    cls: type, name: str, parameter: str, value: object
) -> None:
    function = getattr(cls, name)
    own = () if isinstance(inspect.getattr_static(cls, name), staticmethod) else (ANYBODY,)
    if inspect.signature(function).parameters[parameter].kind is inspect.Parameter.VAR_POSITIONAL:
        arguments: tuple[tuple[object, ...], dict[str, object]] = ((*own, "x", value), {})
    else:
        arguments = (own, {parameter: value})
    with pytest.raises(UsageError, match=f"^{parameter} must be ") as refused:
        function(*arguments[0], **arguments[1])
    assert repr(value)[:20] in refused.value.message


@pytest.mark.parametrize("parameter", ["threads", "memory", "device_memory", "max_shard_size"])
@pytest.mark.parametrize("value", [0, -1])
def test_what_is_counted_begins_with_one(bot: Bot, parameter: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"^{parameter} must be .* above 0, not {value}"):
        bot.repo.checkout(**{parameter: value})  # type: ignore[arg-type]


def test_whole_numbers_of_numpy_are_whole_numbers(grown: Bot) -> None:
    assert len(list(grown.repo.log(n=np.int64(2)))) == 2
    assert grown.repo.digest(threads=np.int32(1)) == grown.repo.digest()


def test_texts_come_in_any_collection_and_files_as_paths(grown: Bot) -> None:
    repo: Any = grown.repo
    assert len(list(repo.log({"HEAD~1"}))) == len(list(repo.log(rev for rev in ["HEAD~1"]))) == 3
    assert len(list(repo.log(paths=Path("recipe.toml")))) == len(list(repo.log(paths=["recipe.toml"]))) == 4
    repo.recipe.set("listening", only=np.array(["*mlp*"]))
    assert repo.status().recipe_changed
    assert repo.restore(iter([Path("recipe.toml")])) == ("recipe.toml",)


@pytest.mark.parametrize("call", [persona.open, persona.init])
@pytest.mark.parametrize("path", [None, b"here", "a\0b"])
def test_a_repository_is_at_a_path(call: Callable[..., object], path: object) -> None:
    with pytest.raises(UsageError, match=r"^path must be a path"):
        call(path)


@pytest.mark.parametrize(
    "change",
    [{"time": True}, {"offset": False}, {"time": 1.5}, {"time": "now"}, {"name": b"Ada"}, {"email": None}],
)
def test_a_person_that_could_not_be_read_again_is_not_recorded(grown: Bot, change: dict[str, Any]) -> None:
    head = grown.repo.head()
    person = persona.Person(**{**vars(at(1)), **change})
    with pytest.raises(InvalidInput, match="an author's"):
        grown.repo.commit(message="x", allow_empty=True, author=person)
    assert grown.repo.head() == head


def test_a_recipe_never_holds_more_globs_than_can_be_read(grown: Bot) -> None:
    globs = [f"model.layers.[01{number:04}]*" for number in range(4097)]
    with pytest.raises(InvalidInput, match="4097 globs"):
        grown.repo.recipe.set("listening", only=globs)
    grown.edit(lambda text: text.replace("[vectors.listening]", f"[vectors.listening]\nexcept = {globs}"))
    head = grown.repo.head()
    with pytest.raises(InvalidInput, match="4097 globs"):
        grown.commit()
    assert grown.repo.head() == head


def test_a_word_that_no_call_knows_is_refused_with_the_near_one(bot: Bot) -> None:
    repo: Any = bot.repo
    with pytest.raises(UsageError, match=r"^checkout takes no thread; did you mean threads\?"):
        repo.checkout(thread=1)
    with pytest.raises(UsageError, match=r"^create takes no forced; did you mean force\?"):
        repo.branches.create("x", forced=True)
    with pytest.raises(UsageError, match=r"^open takes no device_memry; did you mean device_memory\?"):
        persona.open(bot.root, device_memry=1)  # type: ignore[call-arg]


def test_a_revision_and_a_date_are_judged_at_the_call(bot: Bot) -> None:
    with pytest.raises(UnknownRevision):
        bot.repo.log("nope")
    with pytest.raises(UnknownRevision, match="is not a date"):
        bot.repo.log(since="the day before never")
    with pytest.raises(UnknownRevision):
        bot.repo.tensors("nope")


def test_missing_and_surplus_arguments_are_told_as_the_caller_sees_them(grown: Bot) -> None:
    repo: Any = grown.repo
    for call, message in (
        (lambda: repo.recipe.set(), "set needs name"),
        (lambda: repo.recipe.rename("listening"), "rename needs new"),
        (lambda: repo.checkout("HEAD", "x"), "checkout takes 1 argument without a keyword, not 2"),
        (lambda: repo.checkout("HEAD", rev="HEAD"), "checkout is given rev twice"),
        (lambda: repo["HEAD"].digest("HEAD"), "digest takes no arguments without a keyword, not 1"),
        (lambda: repo["HEAD"].digest(rev="HEAD"), "digest takes no rev; help"),
        (lambda: repo.head(1), "head takes no arguments without a keyword, not 1"),
    ):
        with pytest.raises(UsageError, match=f"^{message}"):
            call()


@pytest.mark.parametrize("rev", [0, None, b"HEAD", slice(1), Path("HEAD")])
def test_a_repository_is_asked_for_a_revision_by_text(bot: Bot, rev: Any) -> None:
    with pytest.raises(UsageError, match=r"^a revision must be text, not "):
        _ = bot.repo[rev]
    assert rev not in bot.repo


def test_a_repository_is_no_sequence_of_commits(bot: Bot) -> None:
    assert "HEAD" in bot.repo
    assert "HEAD~1" not in bot.repo
    with pytest.raises(TypeError, match="not iterable"):
        iter(bot.repo)  # type: ignore[call-overload]


def test_a_revision_in_place_of_its_name_is_told_its_id(grown: Bot) -> None:
    repo: Any = grown.repo
    with pytest.raises(UsageError, match="its id is text"):
        repo.checkout(repo["HEAD~1"])


def test_a_function_that_signs_has_to_give_a_person(bot: Bot) -> None:
    head = bot.repo.head()
    with pytest.raises(UsageError, match=r"an author must be a persona\.Person, not 3"):
        bot.repo.commit(message="x", allow_empty=True, author=lambda: 3)  # type: ignore[arg-type, return-value]
    assert bot.repo.head() == head


@pytest.mark.parametrize("call", [persona.open, persona.init])
def test_a_device_is_judged_when_a_repository_is_opened(tmp_path: Path, call: Callable[..., object]) -> None:
    with pytest.raises(UsageError, match="device 'tpu' is not one of auto, cpu, cuda"):
        call(tmp_path / "new", device="tpu")
    assert not (tmp_path / "new").exists()


def test_a_delete_names_something(bot: Bot) -> None:
    for delete in (bot.repo.branches.delete, bot.repo.tags.delete, bot.repo.vectors.delete):
        with pytest.raises(UsageError, match=r"^name at least one"):
            delete()


# -- a repository that is closed


def test_a_closed_repository_and_what_it_gave_out_answer_nothing(bot: Bot) -> None:
    repo = bot.repo
    values: dict[str, object] = {"axes": {"density": 1}, "paths": ["x"]}
    owners = [
        repo,
        repo["HEAD"],
        repo.recipe,
        repo.vectors,
        repo.graph,
        repo.branches,
        repo.tags,
        repo.config,
    ]
    repo.close()
    asked = 0
    for owner in owners:
        for name, method in methods(type(owner)):
            if name in ("close", "open", "init", "of", "at"):
                continue
            values["path"] = "x" if isinstance(owner, Revision) else Path("x")
            needed = [
                values.get(each.name, "x")
                for each in list(inspect.signature(method).parameters.values())[1:]
                if each.default is each.empty and each.kind is not each.VAR_KEYWORD
            ]
            with pytest.raises(UsageError, match="closed"):
                getattr(owner, name)(*needed)
            asked += 1
        if isinstance(owner, Collection):
            for ask in (len, list, lambda of: of["x"], lambda of: "x" in of, lambda of: of.get("x")):
                with pytest.raises(UsageError, match="closed"):
                    ask(owner)
        assert "closed" in repr(owner) or isinstance(owner, Revision)
    assert asked > 45


def test_properties_and_generators_of_a_closed_repository_raise(grown: Bot) -> None:
    log, tensors = grown.repo.log(), grown.repo.tensors()
    assert next(log).subject
    assert next(tensors)[0]
    grown.repo.close()
    grown.repo.close()
    for ask in (
        lambda: grown.repo.root,
        lambda: next(log),
        lambda: next(tensors),
        grown.repo.__enter__,
    ):
        with pytest.raises(UsageError, match="closed"):
            ask()


def test_what_another_repository_object_does_is_not_touched(grown: Bot) -> None:
    with persona.open(grown.root) as other:
        grown.repo.close()
        assert other.status().branch == "main"
    with pytest.raises(PersonaError), other:
        pass


# -- names


def test_a_star_import_leaves_open_alone_and_dir_lists_what_is_loaded_late() -> None:
    names: dict[str, object] = {}
    exec("from persona import *", names)
    assert "open" not in names
    assert {"Repository", "Person", "init", "Refused"} <= set(names)
    assert {"Repository", "Person", "merge", "open", "init"} <= set(dir(persona))
