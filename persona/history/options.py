"""**option** — a keyword that several calls take, declared once with its type and its flag.

A method takes a declaration as `**options: Unpack[RunOptions]`. The checks of its arguments
(`persona.history.arguments`), and the flags, the help and the completion of the command line
(`persona.cli.options`), are made from the same lines. Annotations are evaluated here, because the
declarations are read while modules load.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, TypedDict, TypeVar, cast

from persona.history.settings import SETTINGS, parse_digits, parse_over_layers
from persona.limits import LIVE_CACHE
from persona.progress import Progress


class Option:
    """A keyword on the command line: its flags and its line of help.

    `metavar`: the name of its value in the help; without one the flag has no value and means `gives`. `parse`
    reads a value and raises `ValueError`; by default that of `setting`, the key that holds where nobody gives
    the option, else none: then a value goes to the library as it was typed. `words`: all that it may be.
    `completion`: a function of `persona.cli.completions` by name, or words that come to mind. `repeated`: it
    may be given several times. `default`: what the library takes where neither says anything.

    No dataclass: making one costs every command a third of a millisecond.
    """

    __slots__ = (
        "completion",
        "default",
        "flags",
        "gives",
        "help",
        "metavar",
        "parse",
        "repeated",
        "setting",
        "words",
    )

    def __init__(
        self,
        *flags: str,
        help: str,  # noqa: A002
        metavar: str | None = None,
        setting: str | None = None,
        parse: Callable[[str], Any] | None = None,
        words: tuple[str, ...] = (),
        completion: str | tuple[str, ...] = (),
        repeated: bool = False,
        gives: bool = True,
        default: Any = None,
    ) -> None:
        self.flags = flags
        self.help = help
        self.metavar = metavar
        self.setting = setting
        self.parse = SETTINGS[setting].parse if parse is None and setting is not None else parse
        self.words = words
        self.completion = completion
        self.repeated = repeated
        self.gives = gives
        self.default = (not gives) if metavar is None else default


class WorkOptions(TypedDict, total=False):
    """The options of every call that works for long."""

    threads: Annotated[
        int | None,
        Option(
            "--threads",
            metavar="N",
            setting="checkout.threads",
            help="Number of threads. Default: all cores.",
        ),
    ]
    progress: Progress | None


class MemoryOptions(WorkOptions, total=False):
    """And that decodes many chunks at once."""

    memory: Annotated[
        int | None,
        Option(
            "--memory",
            metavar="S",
            setting="checkout.memory",
            help="Memory for decoded chunks, such as 200MB. Default: 400MB.",
        ),
    ]


Device = Annotated[
    str | None,
    Option(
        "--device",
        metavar="[auto|cpu|cuda]",
        setting="checkout.device",
        words=SETTINGS["checkout.device"].words,
        help="Where to compute. Default: cpu to merge, auto to run a model.",
    ),
]


class ComputeOptions(MemoryOptions, total=False):
    """And that merges."""

    device: Device
    device_memory: Annotated[
        int | None,
        Option(
            "--device-memory",
            metavar="S",
            setting="checkout.device-memory",
            help="Memory for chunks on each GPU. Default: 1GiB, but at most half of the free memory.",
        ),
    ]


AllowNonfinite = Annotated[
    bool, Option("--allow-nonfinite", help="Write weights even if some are infinite or NaN.")
]


class RunOptions(ComputeOptions, total=False):
    """How weights are computed and written: `checkout`."""

    max_shard_size: Annotated[
        int | None,
        Option(
            "--max-shard-size",
            metavar="S",
            setting="checkout.max-shard-size",
            help="Split the weights into files of at most S, such as 5GB.",
        ),
    ]
    dtype: Annotated[
        str | None,
        Option(
            "--dtype",
            metavar="D",
            completion=("bfloat16", "float16", "float32"),
            help="With -o: write floats as bfloat16, float16 or float32.",
        ),
    ]
    weights: Annotated[
        bool,
        Option("--no-weights", gives=False, help="Move HEAD and the text files, but compute no weights."),
    ]
    allow_nonfinite: AllowNonfinite
    force: Annotated[
        bool,
        Option(
            "-f",
            "--force",
            help="Overwrite hand-edited weights and uncommitted edits; with -o, files in OUT.",
        ),
    ]


class PatchOptions(MemoryOptions, total=False):
    """How a sparse patch is written: `export --patch`."""

    allow_nonfinite: AllowNonfinite
    force: Annotated[bool, Option("-f", "--force", help="Replace a file that is there already.")]


class AdapterOptions(MemoryOptions, total=False):
    """How a change is written as an adapter: `export --adapter` and `vector extract`."""

    rank: Annotated[
        int | None,
        Option(
            "--rank",
            metavar="R",
            parse=parse_digits,
            completion=("8", "16", "32", "64"),
            help="Largest rank of a matrix. Default: that of exact factors; 64 for other matrices.",
        ),
    ]
    dtype: Annotated[
        str | None,
        Option(
            "--dtype",
            metavar="D",
            completion=("bfloat16", "float16", "float32"),
            help="Dtype of the factors: bfloat16, float16 or float32 (default).",
        ),
    ]
    lora_only: Annotated[
        bool,
        Option("--lora-only", help="Leave out changes that no factor can hold, such as those of norms."),
    ]
    force: Annotated[bool, Option("-f", "--force", help="Overwrite files in OUT that persona did not write.")]


class LoadOptions(WorkOptions, total=False):
    """How a model is loaded into memory: `load`."""

    allow_nonfinite: bool


class LiveOptions(LoadOptions, total=False):
    """How a model in memory is kept: `live`. Both in bytes."""

    cache: Annotated[int, Option(help="", metavar="S", default=LIVE_CACHE)]
    device_memory: Annotated[int | None, Option(help="", metavar="S", setting="checkout.device-memory")]


class TermOptions(TypedDict, total=False):
    """The options of a vector in the recipe."""

    alpha: Annotated[
        str | float | Sequence[str | float] | None,
        Option(
            "--alpha",
            metavar="A",
            parse=parse_over_layers,
            help="Strength of the vector; 1 for a new vector. A negative strength removes a behaviour."
            " A list such as 0,0.5,1 runs from the first layer to the last, interpolated.",
        ),
    ]
    density: Annotated[
        str | float | Sequence[str | float] | None,
        Option(
            "--density",
            metavar="D",
            parse=parse_over_layers,
            help="Fraction of the vector to keep, in (0, 1], or a list of fractions. Default: the recipe's.",
        ),
    ]
    only: Annotated[
        str | Sequence[str] | None,
        Option(
            "--only",
            metavar="GLOB",
            repeated=True,
            help="Change only tensors whose name matches GLOB; '' removes this filter.",
        ),
    ]
    except_: Annotated[
        str | Sequence[str] | None,
        Option(
            "--except",
            metavar="GLOB",
            repeated=True,
            help="Change no tensor whose name matches GLOB; '' removes this filter.",
        ),
    ]


class JoinOptions(TermOptions, total=False):
    """And how it joins the others: `set`."""

    join: Annotated[
        str | None,
        Option(
            "--join",
            metavar="vote|add",
            completion=("vote", "add"),
            help="vote: merge the vector with the others. add: add the vector to the merged result.",
        ),
    ]


class TakeOptions(WorkOptions, total=False):
    """How a fine-tune is matched to the base: `import`."""

    missing: Annotated[
        str | Sequence[str],
        Option(
            "--missing",
            metavar="GLOB",
            repeated=True,
            completion=("zero",),
            default="refuse",
            help="Take tensors that match GLOB and that PATH lacks as unchanged; zero: all that it lacks.",
        ),
    ]
    extra: Annotated[
        str | Sequence[str],
        Option(
            "--extra",
            metavar="GLOB",
            repeated=True,
            completion=("ignore",),
            default="refuse",
            help="Ignore tensors that match GLOB and that the base lacks; ignore: all that it lacks.",
        ),
    ]
    leave: Annotated[
        str | Sequence[str],
        Option(
            "--leave",
            metavar="GLOB",
            repeated=True,
            default=(),
            help="Leave tensors that match GLOB as they are in the base.",
        ),
    ]
    rename: Annotated[
        bool, Option("--rename", help="Take tensors that have another name or layout than in the base.")
    ]
    cast: Annotated[bool, Option("--cast", help="Convert a dtype that cannot hold the base's values.")]
    extend_vocab: Annotated[
        bool,
        Option(
            "--extend-vocab",
            help="Take tokens that PATH has and the base lacks, with PATH's config and tokenizer.",
        ),
    ]
    untie: Annotated[
        bool,
        Option(
            "--untie",
            help="Take PATH's output matrix where the base has the embedding, with PATH's config.",
        ),
    ]


class ImportOptions(TermOptions, TakeOptions, total=False):
    """And how it is named and joins a recipe: `add PATH` and `commit PATH`."""

    name: Annotated[
        str | None,
        Option("-n", "--name", metavar="NAME", help="Name of the vector. Default: the last part of PATH."),
    ]
    onto: Annotated[
        str | None,
        Option(
            "--onto",
            metavar="base|REV",
            completion="base_or_revision",
            help="PATH was trained from the base (default), or from the weights of REV.",
        ),
    ]
    files: Annotated[
        bool, Option("--files", help="Also take the config, tokenizer and template files of PATH.")
    ]
    replace: Annotated[
        bool, Option("--replace", help="Replace a vector of the same name that came from another path.")
    ]


class DescribeOptions(TypedDict, total=False):
    """How a commit is described."""

    tags: Annotated[bool, Option("--tags", help="Use any tag, also one without a message.")]
    abbrev: Annotated[
        int,
        Option(
            "--abbrev",
            metavar="N",
            parse=parse_digits,
            default=8,
            help="Digits of the id, more if these are ambiguous. Default: 8. With 0, print only the tag.",
        ),
    ]
    always: Annotated[bool, Option("--always", help="Print the id if no tag is found.")]
    long: Annotated[
        bool, Option("--long", help="Print the number and the id also on the tagged commit: v1-0-g3f2a91c0.")
    ]
    exact_match: Annotated[bool, Option("--exact-match", help="Take only a tag of the commit itself.")]
    match: Annotated[
        str | Sequence[str],
        Option("--match", metavar="GLOB", repeated=True, default=(), help="Use only tags that match GLOB."),
    ]
    exclude: Annotated[
        str | Sequence[str],
        Option("--exclude", metavar="GLOB", repeated=True, default=(), help="Use no tag that matches GLOB."),
    ]
    first_parent: Annotated[bool, Option("--first-parent", help="Follow only the first parent of a merge.")]
    dirty: Annotated[
        bool,
        Option("--dirty", help="Describe HEAD, with -dirty at the end if the work tree differs from it."),
    ]


Options = TypeVar("Options", bound=Mapping[str, Any])
_PLACE: Final = re.compile(r"\w+(?:\.\w+)*\.(?=\w)")
"""The modules in the text of an annotation."""


def declared(kind: type) -> dict[str, Option]:
    """The options of a declaration that the command line has, by keyword."""
    found = {key: _option(annotation) for key, annotation in kind.__annotations__.items()}
    return {key: option for key, option in found.items() if option is not None and option.flags}


def defaults(kind: type) -> dict[str, Any]:
    """The default of each keyword of a declaration."""
    if kind not in _DEFAULTS:
        _DEFAULTS[kind] = {key: _default(annotation) for key, annotation in kind.__annotations__.items()}
    return _DEFAULTS[kind]


def complete(
    kind: type[Options],
    given: Options,
    open_options: Mapping[str, Any] = {},
    setting: Callable[[str], Any] | None = None,
) -> Options:
    """Every keyword of a declaration with its value.

    The value is the call's, else that of `open_options` (given to `persona.open`), else that of the
    `setting`, else the default. None stands for not given.
    """
    found = dict(defaults(kind))
    for key, annotation in kind.__annotations__.items():
        value = given.get(key)
        value = open_options.get(key) if value is None else value
        option = _option(annotation)
        if value is None and setting is not None and option is not None and option.setting is not None:
            value = setting(option.setting)
        if value is not None:
            found[key] = value
    return cast(Options, found)


def annotations(declaration: type) -> dict[str, str]:
    """The types of a declaration's keywords, as a signature writes them."""
    kinds = declaration.__annotations__
    types = {key: getattr(kind, "__origin__", kind) for key, kind in kinds.items()}
    return {
        key: kind.__name__ if isinstance(kind, type) else _PLACE.sub("", str(kind)).replace("'", '"')
        for key, kind in types.items()
    }


_DEFAULTS: Final[dict[type, dict[str, Any]]] = {}


def _option(annotation: Any) -> Option | None:
    return next((item for item in getattr(annotation, "__metadata__", ()) if isinstance(item, Option)), None)


def _default(annotation: Any) -> Any:
    option = _option(annotation)
    return (False if annotation is bool else None) if option is None else option.default
