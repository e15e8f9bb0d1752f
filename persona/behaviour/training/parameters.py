"""The parameters that a run trains: whole weights, chosen by globs, or the factors of LoRA."""

from __future__ import annotations

from typing import Any, Final

from persona.behaviour.graph.pattern import TrainSettings
from persona.errors import InvalidInput, UsageError, listed, quoted
from persona.objects import globs

FROZEN: Final = "embeddings are frozen unless embeddings = true"


def choose(model: Any, settings: TrainSettings) -> Any:
    """The model to train: `model` with the other parameters frozen, or with LoRA around it.

    Embeddings, tied or not, are frozen unless `settings.embeddings`. Raises `InvalidInput` for a glob that
    reaches nothing.
    """
    if settings.method == "lora":
        return _with_lora(model, settings)
    frozen = set() if settings.embeddings else _embeddings(model)
    names = [name for name, parameter in model.named_parameters() if parameter not in frozen]
    chosen = set(_reached(names, settings, "parameter"))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    return model


def _embeddings(model: Any) -> set[Any]:
    """The parameters of the input and output embeddings."""
    modules = (model.get_input_embeddings(), model.get_output_embeddings())
    return {parameter for module in modules if module is not None for parameter in module.parameters()}


def _reached(names: list[str], settings: TrainSettings, what: str) -> list[str]:
    """The names that the globs of `modules` match, or all of them if there are none."""
    if not settings.modules:
        return names
    matchers = {glob: globs.matcher(glob) for glob in settings.modules}
    for glob, matches in matchers.items():
        if not any(map(matches, names)):
            raise InvalidInput(
                f"modules: {quoted(glob)} matches no {what} that is trained; their names are like"
                f" {listed(names, 3)}",
                hint=None if settings.embeddings or what != "parameter" else FROZEN,
            )
    return [name for name in names if any(matches(name) for matches in matchers.values())]


def _with_lora(model: Any, settings: TrainSettings) -> Any:
    """LoRA of peft around the linear layers that the globs reach."""
    try:
        import peft
    except ImportError:
        raise UsageError(
            "method lora needs peft; install it with: pip install 'persona-vcs[train]'"
        ) from None
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    if settings.embeddings:
        raise InvalidInput("embeddings = true: LoRA trains linear layers only; use method full")
    output = model.get_output_embeddings()
    kinds = {
        f"{name}.weight": type(module)
        for name, module in model.named_modules()
        if isinstance(module, (Linear, Conv1D)) and module is not output
    }
    chosen = _reached(list(kinds), settings, "weight of a linear layer")
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=0.0,
        target_modules=[name.removesuffix(".weight") for name in chosen],
        fan_in_fan_out=all(issubclass(kinds[name], Conv1D) for name in chosen),
        task_type=peft.TaskType.CAUSAL_LM,
    )
    found = peft.get_peft_model(model, config)
    config.base_model_name_or_path = ""  # peft writes "None" there: the model comes from no directory
    return found
