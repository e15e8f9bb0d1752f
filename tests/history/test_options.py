"""Calls are checked against the declaration of their options; settings and defaults fill in the rest."""

from __future__ import annotations

import inspect
from typing import Any, Unpack

import pytest

from persona.behaviour import options as behaviour_options
from persona.errors import InvalidInput, UsageError
from persona.history import options
from persona.history.arguments import checks_arguments, spell_out
from persona.history.options import ImportOptions, LiveOptions, RunOptions, complete, declared, defaults
from persona.history.settings import SETTINGS

DECLARATIONS = list(
    dict.fromkeys(
        kind
        for module in (options, behaviour_options)
        for kind in vars(module).values()
        if getattr(kind, "__total__", None) is False
    )
)


@checks_arguments
class Machine:
    """Takes declarations as the methods of a repository do."""

    def run(self, rev: str, **options: Unpack[RunOptions]) -> RunOptions:
        """What the body is given."""
        return options

    def add(self, **options: Unpack[ImportOptions]) -> ImportOptions:
        """The same."""
        return options

    def load(self, **options: Any) -> dict[str, Any]:
        """Takes anything."""
        return options


def test_what_a_call_gives_arrives_as_it_is() -> None:
    given: Any = {"threads": 2, "device": "cpu", "weights": False}
    assert Machine().run("HEAD", **given) == given
    assert Machine().load(threads="two", nonsense=1) == {"threads": "two", "nonsense": 1}


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("threads", "2"), ("threads", 0), ("memory", 0.5), ("device", 3), ("progress", "yes"), ("dtype", b"x")],
)
def test_a_value_that_the_declaration_does_not_admit_is_refused_by_name(keyword: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"^{keyword} must be "):
        Machine().run("HEAD", **{keyword: value})  # type: ignore[arg-type]


def test_globs_of_a_declaration_are_one_text_or_several() -> None:
    assert Machine().add(missing="zero") == {"missing": "zero"}
    assert Machine().add(leave=("a", "b")) == {"leave": ["a", "b"]}
    with pytest.raises(UsageError, match=r"^missing must be text, or a list of texts, not 3"):
        Machine().add(missing=3)  # type: ignore[typeddict-item]


def test_a_keyword_that_is_not_declared_is_refused_with_the_nearest_that_is() -> None:
    with pytest.raises(UsageError, match="run takes no thread; did you mean threads"):
        Machine().run("HEAD", thread=2)  # type: ignore[call-arg]


def test_a_signature_is_spelled_out_for_help_and_notebooks() -> None:
    spell_out()
    shown = inspect.signature(Machine.run).parameters
    assert list(shown) == ["self", "rev", *RunOptions.__annotations__]
    assert (shown["threads"].annotation, shown["threads"].default) == ("int | None", None)
    assert (shown["weights"].annotation, shown["weights"].default) == ("bool", True)
    assert "options" in inspect.signature(Machine.load).parameters


@pytest.mark.parametrize("kind", DECLARATIONS, ids=lambda kind: kind.__name__)
def test_every_keyword_has_a_default_of_its_type(kind: type) -> None:
    assert len(DECLARATIONS) > 6
    spelled = options.annotations(kind)
    for keyword, value in defaults(kind).items():
        admitted = spelled[keyword]
        assert (
            "None" in admitted
            if value is None
            else type(value).__name__ in admitted or repr(value)[1:-1] in admitted
        )


@pytest.mark.parametrize("kind", DECLARATIONS, ids=lambda kind: kind.__name__)
def test_every_flag_has_a_line_of_help_and_its_setting_exists(kind: type) -> None:
    for option in declared(kind).values():
        assert option.help.endswith(".")
        assert all(flag.startswith("-") for flag in option.flags)
        assert option.setting is None or option.setting in SETTINGS


def test_the_call_comes_before_the_repository_and_both_before_the_setting_and_the_default() -> None:
    set_to = {"checkout.threads": 3, "checkout.memory": 30, "checkout.device": "cpu"}
    found = complete(
        RunOptions, {"threads": 1, "device": None}, {"threads": 2, "memory": 20, "unknown": 1}, set_to.get
    )
    assert (found["threads"], found["memory"], found["device"]) == (1, 20, "cpu")
    assert (found["weights"], found["force"], found["dtype"]) == (True, False, None)
    assert set(found) == set(RunOptions.__annotations__)


def test_a_false_that_is_given_counts_as_given() -> None:
    assert complete(RunOptions, {"weights": False})["weights"] is False
    assert complete(LiveOptions, {"cache": 0})["cache"] == 0


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("checkout.threads", "many"),
        ("checkout.memory", "0"),
        ("checkout.device", "tpu"),
        ("commit.checkout", "maybe"),
        ("merge.preset", "soup"),
        ("merge.density", "2"),
    ],
)
def test_a_setting_that_cannot_be_taken_is_named(key: str, text: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^config {key}: "):
        SETTINGS[key].read(text)
