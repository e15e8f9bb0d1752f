"""APOLLO against the paper's update written naively, and as an optimizer that runs are resumed with."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from persona.behaviour.training.apollo import MINI, Apollo, is_projected, projection

Array = np.ndarray[Any, Any]


# -- the update, from the formulas


class Naive:
    """One parameter and what APOLLO remembers of it, in float64, channel by channel."""

    def __init__(self, weight: Tensor, position: int, **settings: Any) -> None:
        self.weight = weight.double().numpy().copy()
        self.position = position
        self.settings = {
            "lr": 1e-3,
            "betas": (0.9, 0.999),
            "eps": 1e-8,
            "weight_decay": 0.0,
            "rank": 16,
            "scale": 1.0,
            "scale_type": "channel",
            "update_gap": 200,
            "norm_growth": 1.01,
            "seed": 0,
        } | settings
        self.t = 0
        self.first: Array | float = 0.0
        self.second: Array | float = 0.0
        self.last_norm = 0.0

    def step(self, grad: Tensor) -> None:
        s, self.t = self.settings, self.t + 1
        lr, (beta1, beta2) = s["lr"], s["betas"]
        old = self.weight.copy()
        g = grad.double().numpy()
        if g.ndim < 2 or min(g.shape) < s["rank"]:
            self.moments(g)
            m, v = self.first / (1 - beta1**self.t), self.second / (1 - beta2**self.t)
            self.weight = old - lr * m / (np.sqrt(v) + s["eps"]) - lr * s["weight_decay"] * old
            return
        scaled = self.scaled(g) if g.shape[0] <= g.shape[1] else self.scaled(g.T).T
        norm = math.sqrt(float((scaled**2).sum()))
        if self.last_norm > 0 and norm > s["norm_growth"] * self.last_norm:
            scaled = scaled / norm * s["norm_growth"] * self.last_norm
            norm = s["norm_growth"] * self.last_norm
        if norm > 0:
            self.last_norm = norm
        correction = math.sqrt(1 - beta2**self.t) / (1 - beta1**self.t)
        self.weight = old - lr * math.sqrt(s["scale"]) * correction * scaled - lr * s["weight_decay"] * old

    def moments(self, values: Array) -> None:
        beta1, beta2 = self.settings["betas"]
        self.first = beta1 * self.first + (1 - beta1) * values
        self.second = beta2 * self.second + (1 - beta2) * values**2

    def scaled(self, g: Array) -> Array:
        """The gradient, m × n with m ≤ n, times its scales."""
        s = self.settings
        redraws = (self.t - 1) // s["update_gap"]
        p = projection(s["seed"], self.position, redraws, s["rank"], g.shape[0]).double().numpy()
        r = p @ g
        self.moments(r)
        adapted = self.first / (np.sqrt(self.second) + s["eps"])
        out = np.zeros_like(g)
        for j in range(g.shape[1]):
            of = (r[:, j], adapted[:, j]) if s["scale_type"] == "channel" else (r, adapted)
            below, above = (math.sqrt(float((values**2).sum())) for values in of)
            out[:, j] = g[:, j] * (above / below if below > 0 else 0.0)
        return out


def gradients(shapes: Sequence[tuple[int, ...]], steps: int, seed: int = 0) -> list[list[Tensor]]:
    """Gradients of each step: a lasting direction, noise, and a size that jumps, so that the limiter acts."""
    draw = torch.Generator().manual_seed(seed)
    still = [torch.randn(shape, generator=draw) for shape in shapes]
    sizes = 10 ** torch.randn(steps, generator=draw)
    return [
        [size * (each + torch.randn(each.shape, generator=draw)) for each in still] for size in sizes.tolist()
    ]


def weights(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=draw).to(dtype)) for shape in shapes]


def run(optimizer: Apollo, steps: Sequence[Sequence[Tensor]]) -> None:
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    for grads in steps:
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad.to(parameter.dtype)
        optimizer.step()


SIDES = st.integers(1, 9)
SETTINGS = st.fixed_dictionaries(
    {
        "lr": st.sampled_from([1e-3, 0.1, 0.0]),
        "betas": st.sampled_from([(0.9, 0.999), (0.5, 0.9), (0.0, 0.99), (0.9, 0.0)]),
        "eps": st.sampled_from([1e-8, 1e-3]),
        "weight_decay": st.sampled_from([0.0, 0.1]),
        "rank": st.integers(1, 5),
        "scale": st.sampled_from([1.0, 128.0, 0.3]),
        "scale_type": st.sampled_from(["channel", "tensor"]),
        "update_gap": st.integers(1, 4),
        "norm_growth": st.sampled_from([1.01, 1.0, 1.5, math.inf]),
        "seed": st.integers(0, 3),
    }
)


@given(
    st.lists(st.one_of(st.tuples(SIDES, SIDES), st.tuples(SIDES), st.just(())), min_size=1, max_size=3),
    SETTINGS,
    st.integers(1, 9),
    st.integers(0, 1000),
)
def test_the_update_is_that_of_the_formulas(
    shapes: list[tuple[int, ...]], settings: dict[str, Any], steps: int, seed: int
) -> None:
    parameters = weights(shapes)
    expected = [Naive(each.data, position, **settings) for position, each in enumerate(parameters)]
    grads = gradients(shapes, steps, seed)
    run(Apollo(parameters, **settings), grads)
    for of_step in grads:
        for each, grad in zip(expected, of_step, strict=True):
            each.step(grad)
    for each, parameter in zip(expected, parameters, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), each.weight, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("settings", [{}, MINI], ids=["channel", "mini"])
def test_in_float32_it_is_the_formulas_within_rounding(settings: dict[str, Any]) -> None:
    shapes = [(24, 40), (40, 24), (16, 16), (40,)]
    parameters = weights(shapes, torch.float32)
    expected = [
        Naive(each.data, position, lr=1e-2, update_gap=7, **settings)
        for position, each in enumerate(parameters)
    ]
    grads = gradients(shapes, 20)
    grads[12] = [grad * 1e-25 for grad in grads[12]]  # its squares are zeros in float32
    run(Apollo(parameters, lr=1e-2, update_gap=7, **settings), grads)
    for of_step in grads:
        for each, grad in zip(expected, of_step, strict=True):
            each.step(grad)
    for each, parameter in zip(expected, parameters, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), each.weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(), (7,), (3, 40), (40, 3), (2, 3, 4)])
def test_a_parameter_that_is_not_projected_takes_the_adamw_of_torch(shape: tuple[int, ...]) -> None:
    mine, theirs = weights([shape, shape])
    theirs.data.copy_(mine.data)
    settings: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.99), "eps": 1e-4}
    optimizers = [Apollo([mine], rank=4, **settings), torch.optim.AdamW([theirs], **settings)]
    assert not is_projected(mine.shape, 4)
    for (grad,) in gradients([shape], 12):
        for parameter, optimizer in zip((mine, theirs), optimizers, strict=True):
            parameter.grad = grad.double()
            optimizer.step()
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("settings", [{"rank": 4}, MINI], ids=["channel", "mini"])
def test_a_stack_of_matrices_is_stepped_matrix_by_matrix(settings: dict[str, Any]) -> None:
    (stack,) = weights([(3, 5, 8)])
    singles = [nn.Parameter(each.clone()) for each in stack.data]
    grads = gradients([(3, 5, 8)], 6)
    grads[1][0][2] = 0  # an expert that saw no token
    run(Apollo([stack], **settings), grads)
    for number, single in enumerate(singles):
        run(Apollo([single], **settings), [[grad[number]] for (grad,) in grads])
        torch.testing.assert_close(stack.data[number], single.data, rtol=1e-12, atol=0)


# -- what the paper says of it


def test_projections_keep_norms_on_average_and_are_drawn_anew() -> None:
    drawn = [projection(0, position, redraws, 16, 500) for position in range(3) for redraws in range(3)]
    assert len({each.numpy().tobytes() for each in [*drawn, projection(1, 0, 0, 16, 500)]}) == 10
    assert all(abs(each.mean().item()) < 0.02 and abs(each.var().item() * 16 - 1) < 0.1 for each in drawn)


@pytest.mark.parametrize("settings", [{"rank": 4}, MINI], ids=["channel", "mini"])
@pytest.mark.parametrize("shape", [(6, 20), (20, 6)])
def test_each_channel_moves_against_its_gradient(shape: tuple[int, int], settings: dict[str, Any]) -> None:
    (weight,) = weights([shape])
    optimizer = Apollo([weight], lr=0.1, **settings)
    along = 0 if shape[0] < shape[1] else 1
    for grads in gradients([shape], 5):
        before = weight.data.clone()
        run(optimizer, [grads])
        cosine = torch.cosine_similarity(before - weight.data, grads[0].double(), dim=along)
        torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_the_norm_of_the_scaled_gradient_grows_by_one_percent_at_most() -> None:
    (weight,) = weights([(8, 30)])
    optimizer = Apollo([weight], rank=4)
    norms = []
    for grads in gradients([(8, 30)], 30):
        run(optimizer, [grads])
        norms.append(optimizer.state[weight]["norm"].item())
    growth = [after / before for before, after in pairwise(norms)]
    assert max(growth) == pytest.approx(1.01)
    assert min(growth) < 1


def test_the_state_is_two_moments_of_the_projected_gradient() -> None:
    wide, tall, small, vector = weights([(20, 50), (50, 20), (8, 50), (50,)], torch.bfloat16)
    optimizer = Apollo([wide, tall, small, vector], rank=16)
    run(optimizer, gradients([(20, 50), (50, 20), (8, 50), (50,)], 1))
    shapes = [
        {name: tuple(value.shape) for name, value in optimizer.state[each].items() if name != "step"}
        for each in (wide, tall, small, vector)
    ]
    assert shapes == [
        {"exp_avg": (16, 50), "exp_avg_sq": (16, 50), "norm": (1, 1)},
        {"exp_avg": (50, 16), "exp_avg_sq": (50, 16), "norm": (1, 1)},
        {"exp_avg": (8, 50), "exp_avg_sq": (8, 50)},
        {"exp_avg": (50,), "exp_avg_sq": (50,)},
    ]


# -- runs that stop and go on

SHAPES = [(20, 50), (50, 20), (4, 20, 30), (8, 50), (50,)]
GRADS = gradients(SHAPES, 12)


def groups(parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    """Two parameter groups with settings of their own."""
    return [
        {"params": list(parameters[:2]), "rank": 4, "weight_decay": 0.1},
        {"params": list(parameters[2:]), **MINI, "update_gap": 5},
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("stop", [1, 3, 5, 6])
def test_a_loaded_state_continues_as_if_it_had_never_stopped(dtype: torch.dtype, stop: int) -> None:
    whole = weights(SHAPES, dtype)
    optimizer = Apollo(groups(whole), lr=0.05, update_gap=3)
    run(optimizer, GRADS)

    stopped = weights(SHAPES, dtype)
    first = Apollo(groups(stopped), lr=0.05, update_gap=3)
    run(first, GRADS[:stop])
    file = io.BytesIO()
    torch.save({"optimizer": first.state_dict(), "weights": [each.data for each in stopped]}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    goes_on = [nn.Parameter(each) for each in saved["weights"]]
    second = Apollo(groups(goes_on))  # the settings come from the state
    second.load_state_dict(saved["optimizer"])
    run(second, GRADS[stop:])

    for expected, found in zip(whole, goes_on, strict=True):
        assert torch.equal(expected, found)
        for name, value in optimizer.state[expected].items():
            again = second.state[found][name]
            same = (
                torch.equal(value, again) and value.dtype == again.dtype if name != "step" else value == again
            )
            assert same, name


def test_what_was_loaded_is_not_changed_by_the_steps_that_follow() -> None:
    parameters = weights(SHAPES)
    first = Apollo(parameters, rank=4)
    run(first, GRADS[:3])
    saved = copy.deepcopy(first.state_dict())
    given = copy.deepcopy(saved)
    second = Apollo(weights(SHAPES), rank=4)
    second.load_state_dict(given)
    run(second, GRADS[3:])
    for number, state in saved["state"].items():
        assert all(
            torch.equal(value, given["state"][number][name])
            for name, value in state.items()
            if name != "step"
        )


def test_the_state_holds_no_projection_and_nothing_but_tensors_and_numbers() -> None:
    optimizer = Apollo(weights(SHAPES, torch.float32), rank=16)
    run(optimizer, GRADS)
    for state in optimizer.state_dict()["state"].values():
        assert {type(value) for value in state.values()} <= {Tensor, int}
        assert set(state) <= {"step", "exp_avg", "exp_avg_sq", "norm"}


def test_a_copy_of_the_optimizer_steps_like_the_original() -> None:
    optimizer = Apollo(weights(SHAPES), rank=4)
    run(optimizer, GRADS[:4])
    again = copy.deepcopy(optimizer)
    for each in (optimizer, again):
        run(each, GRADS[4:])
    pairs = zip(optimizer.param_groups[0]["params"], again.param_groups[0]["params"], strict=True)
    assert all(torch.equal(mine, copied) for mine, copied in pairs)


def test_the_seed_decides_the_steps() -> None:
    def after(seed: int) -> Tensor:
        (weight,) = weights([(20, 50)])
        run(Apollo([weight], rank=4, seed=seed), GRADS_OF_ONE)
        return weight.data

    torch.manual_seed(0)
    one = after(3)
    torch.manual_seed(1)
    assert torch.equal(one, after(3))
    assert not torch.equal(one, after(4))


GRADS_OF_ONE = gradients([(20, 50)], 3)


def test_stepping_leaves_the_random_numbers_of_the_program_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    run(Apollo(weights([(20, 50)])), GRADS_OF_ONE)
    assert torch.equal(torch.rand(3), expected)


# -- as an optimizer of torch


def test_a_group_that_is_added_has_settings_and_projections_of_its_own() -> None:
    first, second = weights([(20, 50), (20, 50)])
    expected = Naive(second.data, 1, rank=4, lr=0.5, scale=3.0)
    optimizer = Apollo([first], lr=0.1)
    run(optimizer, GRADS_OF_ONE[:1])
    optimizer.add_param_group({"params": [second], "rank": 4, "lr": 0.5, "scale": 3.0})
    first.grad = None
    for (grad,) in GRADS_OF_ONE:
        second.grad = grad.double()
        expected.step(grad)
        optimizer.step()
    np.testing.assert_allclose(second.detach().numpy(), expected.weight, rtol=1e-9)
    assert optimizer.state[first]["step"] == 1


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    first, second = weights([(20, 50), (20, 50)])
    before = first.data.clone()
    optimizer = Apollo([first, second], weight_decay=0.5)
    second.grad = GRADS_OF_ONE[0][0].double()
    optimizer.step()
    assert torch.equal(first.data, before)
    assert first not in optimizer.state


def test_the_closure_is_called_with_gradients_on_and_its_loss_is_returned() -> None:
    (weight,) = weights([(20, 50)])
    optimizer = Apollo([weight], lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (weight**2).mean()
        loss.backward()
        return loss.item()

    losses = [optimizer.step(closure) for _ in range(5)]
    assert losses == sorted(losses, reverse=True)


def test_tied_weights_are_stepped_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(30, 20)
            self.head = nn.Linear(20, 30, bias=False)
            self.head.weight = self.embed.weight

    model = Tied()
    optimizer = Apollo(model.parameters())
    model.head(model.embed(torch.tensor([3, 4]))).sum().backward()
    optimizer.step()
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]
    assert optimizer.state[model.embed.weight]["step"] == 1


@pytest.mark.parametrize("settings", [{"rank": 4}, MINI], ids=["channel", "mini"])
@pytest.mark.parametrize("size", [0.0, 1e-42, 1e-30, 1e-12, 1e12, 1e18])
def test_gradients_of_any_size_give_finite_weights(settings: dict[str, Any], size: float) -> None:
    (weight,) = weights([(20, 50)], torch.float32)
    optimizer = Apollo([weight], lr=0.1, **settings)
    ones = torch.ones(20, 50)
    ones[:, 3] = 0
    for factor in (size, 0.0, size, 1.0, size):
        run(optimizer, [[ones * factor]])
        assert weight.isfinite().all()
        assert all(torch.as_tensor(value).isfinite().all() for value in optimizer.state[weight].values())


def test_a_gradient_of_zeros_moves_nothing_and_the_limiter_forgets_nothing() -> None:
    (weight,) = weights([(20, 50)])
    optimizer = Apollo([weight], lr=0.1)
    run(optimizer, GRADS_OF_ONE[:1])
    before, norm = weight.data.clone(), optimizer.state[weight]["norm"].clone()
    run(optimizer, [[torch.zeros(20, 50)]])
    assert torch.equal(weight.data, before)
    assert torch.equal(optimizer.state[weight]["norm"], norm)


def test_the_size_of_the_gradient_does_not_decide_the_size_of_the_step() -> None:
    steps = []
    for size in (1e-6, 1.0, 1e6):
        (weight,) = weights([(20, 50)])
        before = weight.data.clone()
        run(Apollo([weight], lr=0.1, eps=0.0), [[grad * size] for (grad,) in GRADS_OF_ONE])
        steps.append(weight.data - before)
    torch.testing.assert_close(steps[0], steps[1])
    torch.testing.assert_close(steps[2], steps[1])


def test_bf16_weights_get_the_float32_step_rounded_once() -> None:
    (narrow,) = weights([(20, 50)], torch.bfloat16)
    wide = nn.Parameter(narrow.data.float())
    grads = [grad.bfloat16() for grad in GRADS_OF_ONE[0]]
    for each in (narrow, wide):
        run(Apollo([each], lr=0.05, weight_decay=0.1), [grads])
    assert narrow.dtype == torch.bfloat16
    assert torch.equal(narrow.data, wide.data.bfloat16())


def test_it_learns_a_linear_map() -> None:
    for settings in ({"rank": 4}, MINI):
        draw = torch.Generator().manual_seed(0)
        inputs, target = (torch.randn(shape, generator=draw) for shape in ((64, 24), (24, 10)))
        model = nn.Linear(24, 10)
        nn.init.zeros_(model.weight)
        optimizer = Apollo(model.parameters(), lr=0.03, **settings)  # type: ignore[arg-type]
        for _ in range(400):
            optimizer.zero_grad()
            loss = (model(inputs) - inputs @ target).square().mean()
            loss.backward()
            optimizer.step()
        assert loss.item() < 0.05 * (inputs @ target).square().mean().item()


@pytest.mark.parametrize("grad", [torch.ones(20, 50).to_sparse(), torch.ones(20, 50, dtype=torch.complex64)])
def test_sparse_and_complex_gradients_are_refused(grad: Tensor) -> None:
    weight = nn.Parameter(torch.ones(20, 50, dtype=grad.dtype))
    weight.grad = grad
    before = weight.data.clone()
    with pytest.raises(RuntimeError, match="sparse nor complex"):
        Apollo([weight]).step()
    assert torch.equal(weight.data, before)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": -1.0},
        {"lr": math.nan},
        {"betas": (0.9, 1.0)},
        {"betas": (0.9,)},
        {"eps": -1e-8},
        {"weight_decay": -0.1},
        {"rank": 0},
        {"rank": 1.5},
        {"scale": 0.0},
        {"scale_type": "row"},
        {"update_gap": 0},
        {"norm_growth": 0.9},
        {"seed": "x"},
    ],
    ids=str,
)
def test_a_setting_outside_its_range_is_refused_by_name(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} must be"):
        Apollo(weights([(3, 3)]), **wrong)
    optimizer = Apollo(weights([(3, 3)]))
    with pytest.raises(ValueError, match=f"{name} must be"):
        optimizer.add_param_group({"params": weights([(3, 3)]), **wrong})
    assert len(optimizer.param_groups) == 1
