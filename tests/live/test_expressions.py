"""A live model of a recipe with an expression holds the checkout, on the host and on a device."""

from __future__ import annotations

from typing import Any

import pytest

from persona.live import slots
from persona.live.model import LiveModel
from persona.repository import Repository
from tests.merge.devices.late import LateDevice

PLENTY = 1 << 20


@pytest.fixture
def derived(repo: Repository) -> Repository:
    """HEAD has the contrast `gap` of two vectors, a vector beside it, and `half`, which reaches one layer."""
    repo.vectors.derive("gap", "one - 2 * two")
    repo.vectors.derive("half", "three / 2", alpha="0.5")
    repo.recipe.remove("two", "three")
    repo.commit(message="a contrast")
    return repo


def right(repo: Repository, model: LiveModel) -> bool:
    """Whether the parameters are what the recipe says, by a checkout of it."""
    for name, vector in model.recipe.vectors.items():
        repo.recipe.set(name, alpha=vector.alpha, join=vector.join)
    repo.recipe.set_rules({**model.recipe.rules})
    return model.digest() == repo.digest(device="cpu").weights


@pytest.mark.parametrize("on_a_device", [False, True], ids=["host", "device"])
@pytest.mark.parametrize("cache", [0, 3000, PLENTY])
def test_it_holds_the_checkout_after_every_change(
    derived: Repository, monkeypatch: pytest.MonkeyPatch, cache: int, on_a_device: bool
) -> None:
    if on_a_device:
        device = LateDevice(seed=1)

        def device_of(tensor: Any) -> LateDevice | None:
            return device if tensor.ndim else None

        monkeypatch.setattr(slots, "device_of", device_of)
    model = derived.live(rev="HEAD", cache=cache)
    assert right(derived, model)
    for alpha in ("0.4", "-1.5", "0", "1"):
        model.set("gap", alpha=alpha)
        assert right(derived, model)
    model.set_rules({"density": "0.3"})
    assert right(derived, model)
    model.set("gap", alpha="0.7", join="add")
    model.set("one", alpha="0")
    assert right(derived, model)
    model.checkout("HEAD~1")
    assert model.digest() == derived.digest("HEAD~1").weights
    model.checkout("HEAD")
    assert model.digest() == derived.digest("HEAD").weights
