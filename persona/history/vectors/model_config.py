"""The two keys of config.json that follow a recipe: `vocab_size` and `tie_word_embeddings`.

They decide the shapes of a model. So if the vectors of a recipe add tokens or an output matrix of their own,
or no longer do, these keys change with them (`persona.objects.growth`). A special token that the weights have
no row for becomes that of the base.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from persona.errors import Keyword, Note
from persona.history.worktree import text_files, tracking
from persona.history.worktree.tracking import CONFIG as CONFIG
from persona.limits import MAX_CONFIG_BYTES
from persona.objects import growth

if TYPE_CHECKING:
    from persona.history.history import History
    from persona.history.worktree.locked import LockedTree
    from persona.objects.base import Base
    from persona.objects.recipe import Recipe

_SIZE: Final = "vocab_size"
_TIED: Final = "tie_word_embeddings"
_TOKEN: Final = "_token_id"
_SCALED: Final = r"(?:^|language_model\.)shared\.weight$"
"""The embedding of T5 and its kin."""
FITTED: Final = f"{CONFIG} has the size and the ties of the weights again"
_ABSENT: Final = object()
_DTYPES: Final = ("dtype", "torch_dtype")
_VERSION: Final = "transformers_version"
_SHAPES: Final = (
    "model_type",
    *("hidden_size", "d_model", "n_embd", "intermediate_size", "d_ff", "n_inner", "head_dim", "d_kv"),
    *("num_hidden_layers", "n_layer", "num_layers", "num_attention_heads", "n_head", "num_key_value_heads"),
    *("num_local_experts", "num_experts"),
)
"""Other keys that decide which tensors a model has, and their shapes."""


_IDLE: Final = (
    r"_.*|architectures|auto_map|(torch_)?dtype|transformers_version|vocab_size|tie_word_embeddings"
    r"|quantization_config|use_cache|.*dropout.*|.*_pdrop|.*drop_rate|.*initializer.*|id2label"
    r"|(pad|bos|eos|sep|cls|mask|unk|decoder_start)_tokens?_ids?"
    r"|label2id|problem_type|gradient_checkpointing.*|output_(attentions|hidden_states)|return_dict.*"
    r"|task_specific_params|pretraining_tp|torchscript|finetuning_task|.*loss.*|unsloth_.*"
    r"|model_max_length|max_length|forced_.*|suppress_tokens|begin_suppress_tokens"
)
"""Keys of a config.json on which no output of a model depends, or that are told of elsewhere."""
_PADDING: Final = "pad_token_id"
_COUNTS_FROM_PADDING: Final = (
    r".*roberta.*|camembert|longformer|mpnet|esm|xmod|ibert|data2vec-text|layoutlmv3|m2m_100|xglm|nllb-moe"
)
"""Model types whose positions begin after the number of the padding token."""
_SCALING: Final = "rope_scaling."
_ROPE: Final = ("rope_parameters", "rope_scaling")
"""The names of the settings of rotary embeddings; transformers 5 has `rope_theta` among them."""


def following(history: History, content: bytes, base: Base, extended: Base) -> bytes:
    """The text of a config.json as it belongs to `extended`, the base as a recipe's vectors grow it.

    If nothing has to change, or the text is no JSON object, it is `content` itself.
    """
    config = parsed(content)
    if config is None or (fitted := fit(history, config, base, extended)) == config:
        return content
    own = _of_base(history, base)
    if own is not None and fitted == parsed(own):
        return own
    return _text(fitted)


def edit_of(
    history: History, edits: Mapping[str, bytes | None], recipe: Recipe, *, grows: bool
) -> dict[str, bytes | None]:
    """The edit of the work tree's config.json that goes with other edits, if it needs one.

    `recipe`: after the edits; `grows`: whether a vector that joins or leaves it grows the base.
    """
    if CONFIG not in edits and not grows:
        return {}
    content = edits[CONFIG] if CONFIG in edits else text_files.read(history.root, CONFIG)
    if content is None:
        return {}
    fitted = following(history, content, history.base(recipe.base), history.base_of(recipe))
    return {} if fitted == content else {CONFIG: fitted}


def on_another_base(
    history: History, content: bytes, bases: tuple[Base, Base], extended: Base
) -> tuple[bytes, list[str]] | None:
    """The work tree's config.json after a move from one base to another, and the keys of it that stay.

    Keys that are as in the first base become those of the second, and keys that were edited stay. `extended`:
    the second base as the recipe's vectors grow it. None if a config is missing, or is no JSON object.
    """
    old, new = bases
    before, after = (_of_base(history, base) for base in bases)
    own = parsed(content)
    first, second = (None if text is None else parsed(text) for text in (before, after))
    if own is None or first is None or second is None:
        return None
    found, kept = _merged(fit(history, own, old, old), first, second)
    text = after if found == second and after is not None else _text(found)
    return following(history, text, new, extended), kept


def _merged(
    ours: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The keys of `after`, but those of `ours` if they differ from `before`.

    Also returns the keys that differ in all three.
    """
    found, kept = dict(after), list[str]()
    for key in (*ours, *(key for key in before if key not in ours)):
        own, old, new = ours.get(key, _ABSENT), before.get(key, _ABSENT), after.get(key, _ABSENT)
        if own in (old, new):
            continue
        if isinstance(own, dict) and isinstance(old, dict) and isinstance(new, dict):
            found[key], inner = _merged(own, old, new)
            kept += [f"{key}.{name}" for name in inner]
            continue
        if own is _ABSENT:
            found.pop(key, None)
        else:
            found[key] = own
        kept += [key] if new != old else []
    return found, kept


def alike(one: bytes, other: bytes) -> bool:
    """Whether two texts of a config.json are equal, or one may be the other with other sizes and ties."""
    first, second = parsed(one), parsed(other)
    if one == other or first is None or second is None:
        return one == other
    ours = one == _text(first) or other == _text(second)  # else spaces were edited
    return ours and first != second and _others(first) == _others(second)


def _text(config: Mapping[str, Any]) -> bytes:
    return json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n"


def _others(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the keys that follow a recipe."""
    return {
        key: _others(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in (_SIZE, _TIED)
    }


def put_right(tree: LockedTree, recipe: Recipe) -> list[str]:
    """Gives the work tree's config.json the sizes and ties of a recipe; returns the sentence on it, if any.

    A recipe or a config.json that was edited by hand may need it.
    """
    edit = edit_of(tree.history, {}, recipe, grows=True)
    if edit:
        tree.apply(edit, tracking.ids(tree.history, edit))
    return [FITTED] if edit else []


def with_dtype_of(history: History, base: Base, content: bytes) -> bytes:
    """The config.json of a fine-tune with the dtype of the base, which its vector's weights have."""
    before = _of_base(history, base)
    own, config = (None if text is None else parsed(text) for text in (before, content))
    if own is None or config is None:
        return content
    dtypes = {own[key] for key in _DTYPES if isinstance(own.get(key), str)}
    other = {key: dtype for key in _DTYPES for dtype in dtypes if config.get(key, dtype) != dtype}
    return _text(config | other) if len(dtypes) == 1 and other else content


def fit(history: History, config: Mapping[str, Any], base: Base, extended: Base) -> dict[str, Any]:
    """A config as it belongs to `extended`, the base as a recipe's vectors grow it.

    If the base does not say which tensors its model ties, the key of the ties stays as it is: "false" could
    untie tensors that the checkpoint does not hold, and make them random. It also stays for T5, which scales
    the input of the head only if the key is not "false". transformers ties no two tensors of a checkpoint
    that differ.
    """
    content = _of_base(history, base)
    own = None if content is None else parsed(content)
    found: dict[str, Any] = json.loads(json.dumps(config))
    sizes = growth.vocabulary(base, extended)
    own_head = any(name not in base.spec for name in extended.spec)
    untied = any(name in extended.spec and not re.search(_SCALED, base.tied[name]) for name in base.tied)
    for part, before in _parts(found, own if own is not None else config):
        size = before.get(_SIZE)
        if _SIZE in part and isinstance(size, int):
            part[_SIZE] = sizes[1] if sizes is not None and size == sizes[0] else size
            _give_back_tokens(part, before, part[_SIZE])
        if untied and (part is found or _TIED in part):
            part[_TIED] = False
        elif extended.tied and not own_head and part.get(_TIED) is False:  # its output matrix would be random
            part[_TIED] = before.get(_TIED)
            if _TIED not in before:
                del part[_TIED]
    return found


def _give_back_tokens(part: dict[str, Any], before: Mapping[str, Any], size: int) -> None:
    """Puts the base's special tokens in place of those that the weights have no rows for.

    With the padding of a fine-tune, which is often a token that it added, transformers refuses the base.
    """
    for key in [key for key in part if key.endswith(_TOKEN) and part[key] != before.get(key)]:
        ids = part[key] if isinstance(part[key], list) else [part[key]]
        if any(isinstance(id, int) and id >= size for id in ids):
            part[key] = before.get(key)
            if key not in before:
                del part[key]


def of_another_model(history: History, base: Base, content: bytes | None) -> list[Note]:
    """The sentence on the config.json of a fine-tune that calls for other tensors than the base has."""
    before = _of_base(history, base)
    own, new = (None if text is None else parsed(text) for text in (before, content))
    if own is None or new is None:
        return []
    found = {
        key: f"{key} {old} → {part[key]}"
        for part, mine in _parts(new, own)
        for key in _SHAPES
        if (old := mine.get(key)) is not None and part.get(key, old) != old
    }
    if not found:
        return []
    said = f"the {CONFIG} that came along is of another model ({', '.join(found.values())})"
    hint = ("if the model does not load, leave out ", Keyword(files=True))
    return [Note(said, hint)]


def computing(ours: bytes, theirs: bytes) -> list[str]:
    """The keys in which two texts of a config.json differ and on which a model's outputs depend, with values.

    A key that only one of them has may be a default that another version of transformers writes. A key that
    is null, false, 0 or empty is as if it was absent, if both were written by one version.
    """
    own, new = parsed(ours), parsed(theirs)
    if own is None or new is None:
        return []
    first, second = dict(_leaves(own)), dict(_leaves(new))
    known = {*first, *second} if own.get(_VERSION) == new.get(_VERSION) else first.keys() & second.keys()
    return [
        f"{key} {_short(first.get(key))} → {_short(second.get(key))}"
        for key in dict.fromkeys((*first, *second))
        if (first.get(key) or None) != (second.get(key) or None) and (key in known or _SCALING in key)
    ]


def _leaves(
    config: Mapping[str, Any], prefix: str = "", *, in_rope: bool = False
) -> Iterator[tuple[str, Any]]:
    """The keys on which outputs depend, with values; those of parts have a prefix."""
    counts = re.fullmatch(_COUNTS_FROM_PADDING, str(config.get("model_type"))) is not None
    for key, value in config.items():
        if (re.fullmatch(_IDLE, key) and not (counts and key == _PADDING)) or (
            in_rope and value == "default"
        ):
            continue
        if isinstance(value, dict):
            inner = prefix if key in _ROPE else f"{prefix}{key}."
            yield from _leaves(value, inner, in_rope=in_rope or key in _ROPE)
        elif key in _ROPE:  # null
            continue
        elif in_rope and key != "rope_theta":
            yield f"{prefix}{_SCALING}{key.removeprefix('rope_')}", value
        else:
            yield prefix + key, value


def _short(value: Any) -> str:
    """A value in a sentence."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 20 else "…"


def _of_base(history: History, base: Base) -> bytes | None:
    """The config.json of a base."""
    blob = base.files.get(CONFIG)
    return None if blob is None else history.blob(blob)


def _parts(
    config: dict[str, Any], own: Mapping[str, Any]
) -> Iterator[tuple[dict[str, Any], Mapping[str, Any]]]:
    """A config and the configs of its parts, such as `text_config`, each beside that of the base."""
    yield config, own
    for key, value in config.items():
        before = own.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            yield value, before


def parsed(content: bytes) -> dict[str, Any] | None:
    """The object in a config.json; None if it holds something else."""
    try:
        value = json.loads(content) if len(content) <= MAX_CONFIG_BYTES else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
