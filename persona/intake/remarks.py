"""**remark** — a sentence on a checkpoint's directory or on the form of its weights, beside its import.

`refuse_quantised` stops an import that no option can help.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from persona.errors import Blank, Call, Hint, InvalidInput, Note, listed
from persona.objects.base import Base
from persona.weights import folder, quantised
from persona.weights.adapters import Adapter
from persona.weights.checkpoint import Checkpoint
from persona.weights.index import ADAPTER_FILES, ADAPTER_WEIGHTS, INDEX_NAME, read_index
from persona.weights.inputs import list_directory
from persona.weights.patches import is_patch

_NOT_READ: Final = (folder.OTHER_WEIGHTS, folder.INNER_WEIGHTS)
UNQUANTISED: Final = (
    "give the weights from before the quantisation, or the adapter that was trained; else load the model,"
    " call model.dequantize() and save_pretrained(), and give that directory"
)

_BEGIN_AGAIN: Final = "begin a repository with the base's weights from before the quantisation"


def of_base(checkpoint: Checkpoint, in_the_way: Sequence[str]) -> list[Note]:
    """The remarks on a checkpoint that becomes a base.

    `in_the_way`: the files of the work tree that checkout will refuse to write beside.
    """
    found = folder.left_out(checkpoint.ignored)
    if in_the_way:
        it = "it" if len(in_the_way) == 1 else "them"
        said = f"no index lists {it}, and checkout refuses to write weights beside {it}"
        hint = f"move {it} out of this directory before the first checkout"
        found.append(Note(f"{listed(in_the_way)}: {said}", hint))
    specs = [spec for spec, _ in checkpoint.tensors.values()]
    how = _recognised(checkpoint)
    fixed = [spec for spec in specs if not spec.merged]
    if how is not None and how.packed:
        hint = "to import fine-tunes, begin with the weights from before the quantisation"
        found.append(
            Note(
                f"the base is quantised ({how.method}): {len(fixed)} of {len(specs)} tensors can never"
                " change",
                hint,
            )
        )
    elif strange := sorted({spec.dtype for spec in fixed if spec.dtype.startswith(("F", "C"))}):
        count = sum(spec.dtype in strange for spec in fixed)
        said = f"{count} of {len(specs)} tensors can never change: their dtype is {', '.join(strange)}"
        found.append(
            Note(said, "to import fine-tunes, save the model in BF16, F16 or F32 and begin with that")
        )
    return [*found, *_of_config(checkpoint, how)]


def of_fine_tune(checkpoint: Checkpoint) -> list[Note]:
    """The remarks on a checkpoint that becomes a vector."""
    ignored = checkpoint.ignored.items()
    said = (*_NOT_READ, folder.LEADS_OUT)
    found = folder.left_out({path: why for path, why in ignored if why in said or path.endswith("/")})
    if beside := sorted(ADAPTER_FILES & checkpoint.ignored.keys()):
        hint: Hint | None = None
        if ADAPTER_WEIGHTS in beside:
            adapter = Call("add", str(checkpoint.path / ADAPTER_WEIGHTS), name=Blank("NAME"))
            hint = (adapter, " imports the adapter")
        both = f"{checkpoint.path.name} holds a whole model beside {', '.join(beside)}: the model is imported"
        other = "; from_pretrained of transformers takes the adapter and its base instead, if PEFT is there"
        found.append(Note(both + other, hint))
    if checkpoint.config is None and not is_patch(checkpoint, ()):
        found.append(
            Note(
                f"no config.json lies beside the weights of {checkpoint.path.name}, so persona cannot check"
                " whether its model is of the base's kind"
            )
        )
    return [*found, *_of_config(checkpoint, _recognised(checkpoint))]


def of_adapter(adapter: Adapter) -> list[Note]:
    """The remark on the other weights beside an adapter: a trainer may save some modules apart."""
    beside = folder.look(adapter.path, list_directory(adapter.path), adapter.weights_seen).ignored
    if not (other := [path for path, why in beside.items() if why == folder.OTHER_WEIGHTS]):
        return []
    said = f"left out: {listed(other)} ({folder.OTHER_WEIGHTS}), which may hold the rest of the training"
    hint = (
        "if so, load the adapter and these weights with the program that trained them, merge them, and commit"
        " what save_pretrained writes"
    )
    return [Note(said, hint)]


def why_nothing_changed(checkpoint: Checkpoint) -> str | None:
    """The advice for a checkpoint that has the base's weights, if other weights lie beside those it read."""
    strangers = [
        path
        for path, why in checkpoint.ignored.items()
        if (why in (*_NOT_READ, folder.ADAPTER_FILE) and not path.endswith(".json"))
        or (path.endswith("/") and folder.holds_weights(checkpoint.path / path))
    ]
    if not strangers:
        return None
    read = listed(sorted(checkpoint.weights_seen), 3)
    index = checkpoint.path / INDEX_NAME
    instead = "them"
    if index.is_file() and INDEX_NAME not in read and not set(_shards_of(index)).isdisjoint(strangers):
        instead = f"their index, {index},"
    return (
        f"read: {read}; not read: {listed(strangers, 5)}. If the training is in these, give {instead} instead"
    )


def _shards_of(index: Path) -> list[str]:
    try:
        return read_index(index).shard_names()
    except InvalidInput:
        return []


def refuse_quantised(checkpoint: Checkpoint, base: Base) -> None:
    """`InvalidInput` if one of the two is quantised and the other is not."""
    how = _recognised(checkpoint)
    other = quantised.recognise(base.tensors, None)
    packed, base_packed = how is not None and how.packed, other is not None and other.packed
    if packed and not base_packed:
        assert how is not None
        raise InvalidInput(
            f"{checkpoint.path}: its weights are quantised ({how.method}), and those of the base are not",
            hint=UNQUANTISED,
        )
    if base_packed and not packed:
        assert other is not None
        raise InvalidInput(
            f"{checkpoint.path}: its weights are not quantised, and those of the base are ({other.method})",
            hint=_BEGIN_AGAIN,
        )


def explain_quantised(error: InvalidInput, base: Base) -> None:
    """Adds the reason to the refusal of an adapter, if the base is quantised as the adapter saw it."""
    how = quantised.recognise(base.tensors, None)
    if how is not None and how.packed:
        error.message += f" (this base is quantised: {how.method})"
        error.hint = (_BEGIN_AGAIN, " and add the adapter there")


def _recognised(checkpoint: Checkpoint) -> quantised.Quantised | None:
    return quantised.recognise((spec for spec, _ in checkpoint.tensors.values()), checkpoint.config)


def _of_config(checkpoint: Checkpoint, how: quantised.Quantised | None) -> list[Note]:
    """The remark on a config that calls plain floats quantised."""
    if how is None or how.packed:
        return []
    said = (
        f"config.json of {checkpoint.path.name} says that the weights are quantised ({how.method}), but they"
        " are plain floats: transformers then quantises them while it loads, or fails"
    )
    return [Note(said, "delete quantization_config from config.json")]
