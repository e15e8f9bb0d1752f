"""The tokenizer of a revision, what its model takes, and its device, for training and for measuring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from persona.errors import InvalidInput, Keyword, SystemFault
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.vectors.model_config import fit
from persona.history.worktree import text_files, tracking
from persona.store import files

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

    from persona.objects.base import Base


def model_files(history: History, rev: str | None) -> dict[str, bytes]:
    """The text files that a model loads with, of a revision or of the work tree (None), by name."""
    if rev is None:
        known = tracking.tracked(history).paths
        found = {path: text_files.read(history.root, path) for path in known if tracking.is_model_file(path)}
        return {path: data for path, data in found.items() if data is not None}
    blobs = history.files_of(resolve(history, rev))
    return {path: history.blob(id) for path, id in blobs.items() if tracking.is_model_file(path)}


def tokenizer_of(history: History, rev: str | None = None) -> Tokenizer:
    """The tokenizer that a revision tracks. Raises `InvalidInput` if there is none that loads."""
    where = "the work tree" if rev is None else rev
    found = model_files(history, rev)
    if not _has_tokenizer(found):
        raise InvalidInput(
            f"{where}: no tokenizer is tracked, so texts cannot become tokens; put tokenizer.json and"
            " tokenizer_config.json beside config.json, and commit them"
        )
    return _tokenizer(found, where)


def tokenizer_of_base(history: History, base: str, own: Tokenizer) -> Tokenizer:
    """The tokenizer that came with a base, with the chat template of `own`; `own` if none came with it."""
    blobs = history.base(base).files
    found = {path: history.blob(id) for path, id in blobs.items() if tracking.is_model_file(path)}
    if not _has_tokenizer(found):
        return own
    tokenizer: Any = _tokenizer(found, "the base")
    tokenizer.chat_template = own.chat_template
    return tokenizer  # type: ignore[no-any-return]


def _has_tokenizer(found: Mapping[str, bytes]) -> bool:
    return any(name.startswith(("tokenizer", "vocab.", "spiece")) for name in found)


def _tokenizer(found: Mapping[str, bytes], where: str) -> Tokenizer:
    """The tokenizer of some files. Raises `InvalidInput` if transformers cannot load it."""
    from transformers import AutoTokenizer

    with files.scratch_directory() as directory:
        for name, data in found.items():
            if "/" not in name:
                files.write_file(directory / name, data, durable=False)
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError, TypeError) as error:
            raise InvalidInput(f"{where}: transformers cannot load the tokenizer: {error}") from error
    return tokenizer  # type: ignore[no-any-return]


def context_of(history: History, rev: str | None = None) -> int | None:
    """The most tokens that the model of a revision takes; None if its config.json does not say."""
    return _number(_config_of(history, rev), "max_position_embeddings")


def vocabulary_of(history: History, rev: str | None, base: Base, extended: Base) -> int | None:
    """How many tokens weights have rows for; None if the config.json of a revision does not say.

    `extended`: the base as the weights have it (`persona.objects.growth`).
    """
    return _number(fit(history, _config_of(history, rev), base, extended), "vocab_size")


def refuse_unknown(
    place: str, tokenizer: Tokenizer, vocabulary: int | None, *texts: Sequence[int], hint: Any = None
) -> None:
    """Raises `InvalidInput` for a token beyond the `vocabulary` of the weights, None if it is not known."""
    highest = max((max(ids) for ids in texts if ids), default=0)
    if vocabulary is not None and highest >= vocabulary:
        token = tokenizer.convert_ids_to_tokens(highest)
        raise InvalidInput(
            f"{place}: this text has the token {token!r}, number {highest + 1:,}, and the weights have rows"
            f" for {vocabulary:,} tokens only",
            hint=hint
            or "put the tokenizer of these weights into the work tree, or add the vector that has its tokens",
        )


def _config_of(history: History, rev: str | None) -> dict[str, Any]:
    """The config.json of a revision or of the work tree; empty if there is none."""
    from persona.live import load

    return load.json_of(history, None if rev is None else resolve(history, rev), load.CONFIG) or {}


def _number(config: dict[str, Any], key: str) -> int | None:
    """A positive number of the part of a config that is about text; None if it has none."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if config.get("model_type") not in CONFIG_MAPPING:
        return None
    parsed = CONFIG_MAPPING[config["model_type"]].from_dict(config)
    found = getattr(parsed.get_text_config(), key, None)
    return found if isinstance(found, int) and found > 0 else None


def device_of(device: str | None) -> str:
    """cpu or cuda. auto and None are a GPU if the driver reports one; torch is not imported to find out.

    Raises `UsageError` for another word, `SystemFault` if a GPU that was asked for cannot be used.
    """
    from persona.merge.devices.choose import DeviceChoice, ask_driver
    from persona.merge.devices.device import NoDevice

    word = "auto" if device is None else device
    DeviceChoice(word).check()
    if word != "auto":
        return word
    try:
        ask_driver()
    except NoDevice:
        return "cpu"
    return "cuda"


def moved(model: Any, device: str) -> Any:
    """The model on a device. Raises `SystemFault` if torch cannot use the GPU that the driver reports."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise SystemFault(
            "the driver reports a GPU, but torch cannot use it", hint=("use ", Keyword(device="cpu"))
        )
    return model.to(device)
