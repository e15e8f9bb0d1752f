"""APOLLO: an optimizer with a small state, for training whole weights.

The algorithm is Algorithm 1 of Zhu et al. 2024, "APOLLO: SGD-like Memory, AdamW-level Performance"
(arXiv 2412.05270), written from its formulas. AdamW keeps two numbers for each weight. APOLLO keeps two
numbers for each element of a projected gradient, and learns from them only how *long* the step of a channel
is. The direction of the step is that of the gradient.

One step, for a weight W of m × n with m ≤ n, its gradient G, and the rank r. A channel is a column. If
m > n, the same happens to the transposed matrix: R is m × r, and a channel is a row.

    P ~ N(0, 1/r), r × m                         drawn anew in every `update_gap` steps          step 1
    R = P G                                      the projected gradient, r × n
    M = β₁ M + (1 − β₁) R                        Adam's moments of R                             step 2
    V = β₂ V + (1 − β₂) R²
    R̃ = M / (√V + ε)
    s_j = ‖R̃[:, j]‖ / ‖R[:, j]‖                  `scale_type` "channel": APOLLO                  step 3
    s   = ‖R̃‖ / ‖R‖                              `scale_type` "tensor": APOLLO-Mini
    G̃ = G diag(s)
    G̃ = G̃ · γ‖G̃'‖ / ‖G̃‖  if ‖G̃‖ > γ‖G̃'‖        the norm-growth limiter; G̃' is that of the step before
    W = W − η α b G̃ − η λ W                      α = √scale; b = √(1 − β₂ᵗ) / (1 − β₁ᵗ)          step 4

b is Adam's bias correction, which the paper's formulas leave out. It comes after the limiter, as a part of
the step size. The paper keeps the moments when P is redrawn, and so does this module.

Choices of this module:

- P is never stored. It is drawn on the CPU from (seed, position of the parameter, number of redraws) in every
  step, so it is the same on every device, and a loaded state continues as if the run had never stopped.
- Moments and arithmetic are float32, or float64 for float64 weights, whatever the dtype of the weights.
- Where G is zero, G̃ is zero, whatever the moments are. A G of zeros leaves the limiter's norm as it is.
- A parameter with fewer than two dimensions, and one whose smaller side is less than r, takes AdamW.
- A parameter with more than two dimensions is a stack of matrices, such as the experts of a layer: m and n
  are its last two dimensions. Each matrix has its own channels, its own limiter and, in APOLLO-Mini, its own
  s. All share P. The kernels of a convolution are usually smaller than r, and take AdamW then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, Final, overload

import torch
from blake3 import blake3
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from persona.behaviour.training.settings import RATES

MINI: Final[dict[str, Any]] = {"rank": 1, "scale": 128.0, "scale_type": "tensor"}
"""The settings of APOLLO-Mini: `Apollo(parameters, lr, **MINI)`."""


class Apollo(Optimizer):
    """APOLLO and APOLLO-Mini (arXiv 2412.05270).

    `lr`: η, a number. `betas`: β₁ and β₂. `eps`: ε. `weight_decay`: λ, decoupled as in AdamW. `rank`: r.
    `scale`: α². `scale_type`: "channel", or "tensor" for one scale for each matrix. `update_gap`: the steps
    between two redraws of P. `norm_growth`: γ; `math.inf` switches the limiter off. `seed`: decides P. Each
    may differ between parameter groups.

    For each parameter the state holds `step` (an int), `exp_avg` and `exp_avg_sq` (the moments, r × max(m, n)
    elements each), and `norm` (‖G̃‖ of the last step), so that `torch.load(..., weights_only=True)` reads it.

    Raises `ValueError` for a setting outside its range, and `RuntimeError` for a sparse or complex gradient,
    as torch's own optimizers do.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = RATES["apollo"],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        rank: int = 16,
        scale: float = 1.0,
        scale_type: str = "channel",
        update_gap: int = 200,
        norm_growth: float = 1.01,
        seed: int = 0,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "rank": rank,
            "scale": scale,
            "scale_type": scale_type,
            "update_gap": update_gap,
            "norm_growth": norm_growth,
            "seed": seed,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters, with settings of their own where these are given."""
        _check({**self.defaults, **param_group})
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes a state that `state_dict` gave, bit for bit."""
        super().load_state_dict(dict(state_dict))
        saved = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        for key, parameter in zip(saved, self._parameters(), strict=True):
            for name, value in state_dict["state"].get(key, {}).items():
                if isinstance(value, Tensor):  # torch has cast it to the dtype of the weights
                    self.state[parameter][name] = value.to(parameter.device, copy=True)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Updates every parameter that has a gradient. Returns the loss that `closure` gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        position = 0
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group, position)
                position += 1
        return loss

    def _parameters(self) -> chain[Tensor]:
        return chain.from_iterable(group["params"] for group in self.param_groups)

    def _update(self, parameter: Tensor, group: dict[str, Any], position: int) -> None:
        assert parameter.grad is not None
        if parameter.grad.layout != torch.strided or parameter.grad.is_complex():
            raise RuntimeError("Apollo takes neither sparse nor complex gradients")
        grad = parameter.grad.to(torch.promote_types(parameter.dtype, torch.float32))
        state: dict[str, Any] = self.state[parameter]
        step = state["step"] = state.get("step", 0) + 1
        if is_projected(parameter.shape, group["rank"]):
            update = _apollo(grad, state, group, position)
        else:
            update = _adamw(grad, state, group)
        lr = float(group["lr"])
        update.mul_(lr * _bias_correction(step, group["betas"]))
        if group["weight_decay"]:
            update.add_(parameter, alpha=lr * group["weight_decay"])
        parameter.sub_(update)


def is_projected(shape: torch.Size, rank: int) -> bool:
    """Whether a parameter of this shape takes APOLLO; the others take AdamW."""
    return len(shape) >= 2 and min(shape[-2:]) >= rank


def projection(seed: int, position: int, redraws: int, rank: int, side: int) -> Tensor:
    """P of a parameter: rank × side, float32, on the CPU.

    position: the parameter's number among all parameters of the optimizer. redraws: how often P was drawn
    before.
    """
    digest = blake3(f"{seed} {position} {redraws}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:4], "little"))
    drawn = torch.randn(rank, side, generator=generator, dtype=torch.float32, device="cpu")
    return drawn.div_(math.sqrt(rank))


def _apollo(grad: Tensor, state: dict[str, Any], group: dict[str, Any], position: int) -> Tensor:
    """α G̃, as a new tensor; moments and norm of `state` move on."""
    rows, columns = grad.shape[-2:]
    redraws = (state["step"] - 1) // group["update_gap"]
    drawn = projection(group["seed"], position, redraws, group["rank"], min(rows, columns)).to(grad)
    projected = drawn @ grad if rows <= columns else grad @ drawn.mT
    adapted = _moments(projected, state, group["betas"])
    adapted = adapted / (state["exp_avg_sq"].sqrt() + group["eps"])
    along = (-2, -1) if group["scale_type"] == "tensor" else (-2,) if rows <= columns else (-1,)
    # 1 / s, not s: where the projected gradient nearly vanishes, s overflows.
    divisor = _norm(projected, along) / _norm(adapted, along)
    update = grad / torch.where(divisor > 0, divisor, math.inf)
    norm = torch.linalg.vector_norm(update, dim=(-2, -1), keepdim=True)
    before = state.get("norm", torch.zeros_like(norm))
    bound = group["norm_growth"] * before
    limit = torch.where((before > 0) & (norm > bound), bound / norm, 1.0)
    state["norm"] = torch.where(norm > 0, norm * limit, before)
    return update.mul_(limit * math.sqrt(group["scale"]))


def _adamw(grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """AdamW's step, as a new tensor, before the bias correction of `_bias_correction`."""
    first = _moments(grad, state, group["betas"])
    correction = math.sqrt(1 - group["betas"][1] ** state["step"])
    return first.div(state["exp_avg_sq"].sqrt() + group["eps"] * correction)


def _moments(values: Tensor, state: dict[str, Any], betas: tuple[float, float]) -> Tensor:
    """Moves both moments on. Returns the first."""
    if "exp_avg" not in state:
        state["exp_avg"] = torch.zeros_like(values, memory_format=torch.contiguous_format)
        state["exp_avg_sq"] = torch.zeros_like(values, memory_format=torch.contiguous_format)
    first: Tensor = state["exp_avg"]
    first.mul_(betas[0]).add_(values, alpha=1 - betas[0])
    state["exp_avg_sq"].mul_(betas[1]).addcmul_(values, values, value=1 - betas[1])
    return first


def _bias_correction(step: int, betas: tuple[float, float]) -> float:
    return math.sqrt(1 - float(betas[1]) ** step) / (1 - float(betas[0]) ** step)


def _norm(values: Tensor, along: tuple[int, ...]) -> Tensor:
    """2-norms that stay finite, and above 0, for values whose squares are neither."""
    largest = values.abs().amax(along, keepdim=True)
    scaled = values / torch.where(largest > 0, largest, 1.0)
    norms: Tensor = torch.linalg.vector_norm(scaled, dim=along, keepdim=True)
    return norms * largest


def _check(group: Mapping[str, Any]) -> None:
    """Raises `ValueError` for a setting outside its range."""
    rules: dict[str, tuple[Callable[[Any], bool], str]] = {
        "lr": (lambda value: 0 <= value < math.inf, "a number from 0"),
        "betas": (lambda value: len(value) == 2 and all(0 <= x < 1 for x in value), "two from 0 to below 1"),
        "eps": (lambda value: 0 <= value < math.inf, "a number from 0"),
        "weight_decay": (lambda value: 0 <= value < math.inf, "a number from 0"),
        "rank": (lambda value: isinstance(value, int) and value >= 1, "a whole number from 1"),
        "scale": (lambda value: 0 < value < math.inf, "a number above 0"),
        "scale_type": (lambda value: value in ("channel", "tensor"), '"channel" or "tensor"'),
        "update_gap": (lambda value: isinstance(value, int) and value >= 1, "a whole number from 1"),
        "norm_growth": (lambda value: value >= 1, "a number from 1, or math.inf for no limit"),
        "seed": (lambda value: isinstance(value, int), "a whole number"),
    }
    for name, (allowed, wanted) in rules.items():
        if not allowed(group[name]):
            raise ValueError(f"{name} must be {wanted}, not {group[name]!r}")
