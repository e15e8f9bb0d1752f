"""**mergekit recipe** — a YAML file of mergekit: a base, models with parameters, and a merge method.

Reading one checks everything that can be known without a model. A key or value that mergekit would follow and
persona cannot is `InvalidInput` that names it. The meaning of the keys is that of mergekit 0.1.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Final, NoReturn

from persona.errors import Blank, Call, Hint, InvalidInput, Keyword, Note, listed
from persona.frozen import dataclass
from persona.history.interchange.methods import ABSENT, METHODS, Method
from persona.history.interchange.settings import Scopes, number, possible, truth
from persona.limits import MAX_RECIPE_BYTES, MAX_TERMS
from persona.objects.canonical import decimal
from persona.weights.inputs import read_input

_KEYS: Final = (
    *("merge_method", "base_model", "models", "slices", "modules", "parameters", "dtype", "out_dtype"),
    *("tokenizer_source", "tokenizer", "chat_template"),
)
_SHARED: Final = ("normalize", "lambda", "rescale", "int8_mask")
_OWN: Final = ("weight", "density", "gamma", "epsilon")
_EXACT: Final = "float32"
_DTYPES: Final = [_EXACT, "bfloat16", "float16", "float64"]
_MAX_DEPTH: Final = 32


@dataclass(frozen=True)
class Source:
    """A model in a slice: its directory as it is written, an adapter on it, and its parameters."""

    model: str
    adapter: str | None
    scopes: Scopes

    @property
    def written(self) -> str:
        """As mergekit writes it."""
        return self.model if self.adapter is None else f"{self.model}+{self.adapter}"


@dataclass(frozen=True)
class Slice:
    """Layers from `start` to before `stop` (None: the last), and the models that are merged there."""

    start: int
    stop: int | None
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class MergekitRecipe:
    """A mergekit recipe that persona can express. `base`: None if the method needs none and none is named.

    `normalize`, `rescale` and `lambda_` are resolved. `notes`: sentences for the user.
    """

    path: Path
    method: Method
    base: str | None
    slices: tuple[Slice, ...]
    normalize: bool
    rescale: bool
    lambda_: float
    out_dtype: str | None = None
    """The dtype that mergekit writes, if the file names one."""
    notes: tuple[str, ...] = field(default=())

    @property
    def models(self) -> list[Source]:
        """The models in the order in which they are written, without the base."""
        found: dict[str, Source] = {}
        for part in self.slices:
            for source in part.sources:
                if not (source.adapter is None and source.model == self.base):
                    found.setdefault(source.written, source)
        return list(found.values())


def read(path: Path) -> MergekitRecipe:
    """The mergekit recipe in a file. Raises `InvalidInput`, and `SystemFault` if the file cannot be read."""
    import yaml

    if path.is_dir():
        raise InvalidInput(f"{path}: a directory; give the YAML file of a recipe of mergekit")
    data = read_input(path, limit=MAX_RECIPE_BYTES)
    try:
        depth = 0
        for event in yaml.parse(data, Loader=yaml.SafeLoader):
            where = f"{path}:{event.start_mark.line + 1}"
            if isinstance(event, yaml.AliasEvent):  # a few of them can stand for any number of values
                raise InvalidInput(f"{where}: aliases (*{event.anchor}) are not read; write the values out")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:  # the time of the parser grows with the square of the depth
                raise InvalidInput(f"{where}: values are nested more than {_MAX_DEPTH} deep")
        documents = list(yaml.safe_load_all(data))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark is not None else ""
        raise InvalidInput(f"{path}{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    except (RecursionError, ValueError) as error:
        raise InvalidInput(f"{path}: not valid YAML: {error!s:.200}") from None
    if len(documents) != 1 or not isinstance(documents[0], dict):
        what = "several recipes in one file" if len(documents) > 1 else "no recipe of mergekit"
        raise InvalidInput(f"{path}: {what}; it must hold one mapping with a merge_method")
    return _Reader(path, documents[0]).recipe()


class _Reader:
    """One reading of a file."""

    def __init__(self, path: Path, document: dict[Any, Any]) -> None:
        self.path = path
        self.document = document
        self.notes: list[str] = []
        self.shared: list[Scopes] = []
        """For each slice, the parameters that hold for all of its models."""

    def fail(self, key: str, problem: str, hint: Hint | None = None) -> NoReturn:
        raise InvalidInput(f"{self.path}: {key}: {problem}", hint=hint)

    def recipe(self) -> MergekitRecipe:
        unknown = [str(key) for key in self.document if key not in _KEYS]
        if unknown:
            self.notes.append(f"mergekit has no key {listed(unknown)}; left out")
        method = self._method()
        base = self.document.get("base_model")
        base_model, base_adapter = (None, None) if base is None else self._reference("base_model", base)
        if base_adapter is not None:
            self.fail("base_model", "a base with an adapter; merge the adapter first and name the result")
        if base_model is None and method.name != "linear":
            self.fail("base_model", f"is missing, and {method.name} needs one")
        top = self._parameters("parameters", self.document.get("parameters"))
        slices = tuple(self._slices(method, base_model, top))
        if late := [source.written for source in slices[-1].sources[len(slices[0].sources) :]]:
            verb = "changes" if len(late) == 1 else "change"
            self.notes.append(
                f"after the layers, mergekit merges as many models as the first slice has; so {listed(late)}"
                f" {verb} nothing there"
            )
        out_dtype = self._dtypes()
        self._tokenizer(base_model)
        scopes = [top, *(scope for part in slices for source in part.sources for scope in source.scopes)]
        self._check_parameters(method, scopes)
        return MergekitRecipe(
            self.path,
            method,
            base_model,
            slices,
            normalize=self._truth("normalize", method.normalize),
            rescale=self._rescale(method),
            lambda_=self._lambda(method),
            out_dtype=out_dtype,
            notes=tuple(dict.fromkeys(self.notes)),
        )

    # -- the parts of a file

    def _method(self) -> Method:
        name = self.document.get("merge_method")
        if name is None:
            self.fail("merge_method", "is missing; this is no recipe of mergekit")
        elsewhere: Hint = ("run mergekit, and import its output: ", Call("add", Blank("OUTPUT")))
        if isinstance(name, str) and name in ABSENT:
            problem = f"{name} is no sum of changes to one base: {ABSENT[name]}"
            self.fail("merge_method", problem, elsewhere)
        if not isinstance(name, str) or name not in METHODS:
            from difflib import get_close_matches

            near = get_close_matches(str(name), METHODS, 1, 0.75)
            hint = f"did you mean {near[0]}?" if near else elsewhere
            self.fail("merge_method", f"{name!r:.60} is not one of {', '.join(METHODS)}", hint)
        return METHODS[name]

    def _slices(self, method: Method, base: str | None, top: Mapping[str, Any]) -> Iterator[Slice]:
        given = [key for key in ("models", "slices", "modules") if self.document.get(key)]
        if given == ["modules"]:
            self.fail(
                "modules",
                "each part of the model has a recipe of its own, and persona has one recipe; write `models`,"
                " with filters for the parts",
            )
        if len(given) != 1:
            self.fail("models", "there must be `models` or `slices`, and only one of them")
        items = self._list(given[0], self.document[given[0]])
        if given == ["models"]:
            self.shared.append((top,))
            yield Slice(0, None, tuple(self._sources("models", items, (top,), base, method)))
            return
        start = 0
        for at, item in enumerate(items):
            where = f"slices[{at}]"
            part = self._mapping(where, item)
            own = self._parameters(f"{where}.parameters", part.get("parameters"))
            self.shared.append((own, top))
            sources = self._list(f"{where}.sources", part.get("sources"))
            if part.get("base_model") is not None:
                other, _ = self._reference(f"{where}.base_model", part["base_model"])
                if other != base:
                    self.fail(f"{where}.base_model", f"another base ({other}); a recipe has one base")
            if part.get("residual_weight") is not None:
                self.fail(f"{where}.residual_weight", "persona has no such weight")
            first, last = self._layers(where, sources, start)
            yield Slice(
                first, last, tuple(self._sources(f"{where}.sources", sources, (own, top), base, method))
            )
            start = last

    def _layers(self, where: str, sources: Sequence[Any], start: int) -> tuple[int, int]:
        """The layers of a slice; each source must give the same ones, directly after those before."""
        ranges = [self._mapping(where, source).get("layer_range") for source in sources]
        if any(found != ranges[0] for found in ranges):
            self.fail(
                where, f"layers of different models are mixed ({listed([str(found) for found in ranges])})"
            )
        found = ranges[0]
        if not isinstance(found, list) or len(found) != 2 or any(type(layer) is not int for layer in found):
            self.fail(f"{where}.layer_range", f"{found!r:.60} is not a list of two layers")
        if found[0] >= found[1]:
            self.fail(f"{where}.layer_range", f"{found} has no layer")
        if found[0] != start:
            self.fail(
                f"{where}.layer_range",
                f"begins at layer {found[0]}, not at {start}: the slices must be one stack, each layer once"
                " and in order. Run mergekit for another stack, and begin a repository with its output",
            )
        return found[0], found[1]

    def _sources(
        self, where: str, items: Sequence[Any], scopes: Scopes, base: str | None, method: Method
    ) -> Iterator[Source]:
        seen: set[str] = set()
        for at, item in enumerate(items):
            here = f"{where}[{at}]"
            table = self._mapping(here, item)
            model, adapter = self._reference(f"{here}.model", table.get("model"))
            own = self._parameters(f"{here}.parameters", table.get("parameters"))
            if adapter is not None:
                self._check_adapter(here, model, base)
            source = Source(model, adapter, (own, *scopes))
            if source.written in seen:
                self.fail(f"{here}.model", f"{source.written} is listed twice; mergekit refuses this too")
            seen.add(source.written)
            yield source
        if not seen:
            self.fail(where, "no models")
        if base is not None and method.name == "linear" and base not in seen and where == "models":
            yield Source(base, None, scopes)  # to slices, mergekit adds no base

    def _check_adapter(self, where: str, model: str, base: str | None) -> None:
        """Refuses an adapter on another model than the base; says how mergekit merges one."""
        if base is None:
            self.fail("base_model", f"is missing, and the adapter on {model} needs one")
        if model != base:
            self.fail(
                f"{where}.model",
                f"an adapter on {model}, which is not the base_model; merge the adapter into the model first",
            )
        self.notes.append(
            "mergekit merges an adapter into a model of the base's dtype first, which rounds; persona merges"
            " its factors, so weights differ by roundings"
        )

    def _reference(self, where: str, value: Any) -> tuple[str, str | None]:
        """A model and its adapter, from `model+adapter` or the mapping that means the same."""
        if isinstance(value, dict):
            parts = [value.get("model"), value.get("lora")]
            parts = [part.get("path") if isinstance(part, dict) else part for part in parts]
            value = "+".join(str(part) for part in parts if part is not None)
        if not isinstance(value, str) or not value or value.count("+") > 1:
            self.fail(where, f"{value!r:.60} is not the directory of a model")
        model, _, adapter = value.partition("+")
        return model, adapter or None

    def _dtypes(self) -> str | None:
        """The dtype that mergekit writes, if the file names one."""
        names = {key: self._dtype(key) for key in ("dtype", "out_dtype")}
        if names["dtype"] != _EXACT:
            how = "in the dtype of the models" if names["dtype"] is None else f"in {names['dtype']}"
            self.notes.append(
                f"mergekit computes this recipe {how} and rounds in each step; persona computes in float32"
                " and rounds once"
            )
        return names["out_dtype"] or names["dtype"]

    def _dtype(self, key: str) -> str | None:
        value = self.document.get(key)
        name = value.removeprefix("torch.") if isinstance(value, str) else value
        if name is not None and name not in _DTYPES:
            self.fail(key, f"{value!r:.60} is not one of {', '.join(_DTYPES)}")
        return name

    def _tokenizer(self, base: str | None) -> None:
        key, source = "tokenizer_source", self.document.get("tokenizer_source")
        if self.document.get("tokenizer") is not None:
            table = self._mapping("tokenizer", self.document["tokenizer"])
            key, source = "tokenizer.source", table.get("source", "union")
            for part in ("tokens", "pad_to_multiple_of"):
                if table.get(part):
                    self.fail(
                        f"tokenizer.{part}",
                        "changes the vocabulary, and the base's stays as it is; remove it",
                    )
        if source == "union":
            self.fail(
                key,
                "union makes a new vocabulary, and the base's stays as it is. Write `base`, or run mergekit"
                " and begin a repository with its output",
            )
        source = None if source is None else self._reference(key, source)[0]
        if source not in (None, "base", base):
            place = next((place for place in places_of(self.path, source) if place.is_dir()), None)
            hint = (Call("add", str(place), files=True), " takes the files of that model") if place else None
            self.notes.append(Note(f"{key}: the tokenizer stays the base's, not that of {source}", hint))
        if self.document.get("chat_template"):
            self.notes.append(
                "chat_template: left out; put the template into chat_template.jinja and commit it"
            )

    # -- parameters

    def _parameters(self, where: str, value: Any) -> Mapping[str, Any]:
        return {} if value is None else self._mapping(where, value)

    def _check_parameters(self, method: Method, scopes: Sequence[Mapping[str, Any]]) -> None:
        """Checks every setting, also those that no tensor will ask for."""
        for scope in scopes:
            for key, setting in scope.items():
                if key in method.parameters:
                    self._check_setting(str(key), setting)
        ignored = {str(key) for scope in scopes for key in scope} - {*method.parameters, *_SHARED}
        if ignored - {*_OWN}:
            self.notes.append(f"{method.name} of mergekit does not read {listed(sorted(ignored - {*_OWN}))}")

    def _check_setting(self, key: str, setting: Any) -> None:
        """Refuses anything but a number, a list of numbers, or a list of these two with filters."""
        items = setting if isinstance(setting, list) else [setting]
        conditional = [isinstance(item, dict) for item in items]
        if not items or (any(conditional) and not all(conditional)):
            self.fail(key, "must be a list of numbers, or a list of values with filters")
        for item in items if all(conditional) else [{"value": items}]:
            wanted, value = item.get("filter"), item.get("value")
            if wanted is not None and not isinstance(wanted, str):
                self.fail(key, f"the filter {wanted!r:.60} is not a text; put it in quotes")
            for one in value if isinstance(value, list) and value else [value]:
                self._number(key, one)

    def _number(self, key: str, value: Any) -> float:
        """A value as a number that a recipe can hold."""
        found = number(value)
        if found is None:
            self.fail(key, f"{value!r:.60} is not a number")
        try:
            decimal(found)
        except InvalidInput as error:
            self.fail(key, error.message)
        return found

    def _truth(self, key: str, default: bool) -> bool:
        found = {truth(value) for value in self._values(key, default)}
        if None in found:
            self.fail(key, "must be true or false")
        if len(found) > 1:
            self.fail(key, "must be the same for all layers and tensors")
        return bool(found.pop())

    def _rescale(self, method: Method) -> bool:
        if method.trim == "none":
            return False
        wanted = self._truth("rescale", method.rescale)
        if wanted and not method.random:
            self.fail(
                "rescale",
                f"{method.name} with `rescale: true` scales what is left so that the sum of magnitudes stays;"
                " persona does so only for DARE and DELLA. Remove the key, and raise the weights or lambda",
            )
        return wanted

    def _lambda(self, method: Method) -> float:
        if method.name == "linear":
            return 1.0
        found = {self._number("lambda", value) for value in self._values("lambda", 1.0)}
        if len(found) > 1:
            self.fail("lambda", "must be the same for all layers and tensors; scale the weights instead")
        return found.pop()

    def _values(self, key: str, default: float) -> Iterator[Any]:
        for scopes in self.shared:
            yield from possible(scopes, key, default)

    # -- forms

    def _mapping(self, where: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.fail(where, f"not a mapping: {value!r:.60}")
        return value

    def _list(self, where: str, value: Any) -> list[Any]:
        if not isinstance(value, list) or not value:
            self.fail(where, "not a list, or empty")
        if len(value) > MAX_TERMS:
            self.fail(where, f"{len(value)} entries; at most {MAX_TERMS} are possible")
        return value


def places_of(path: Path, written: str) -> tuple[Path, Path]:
    """The places where a model of a file may be: beside the file, or below the current directory."""
    return path.parent / written, Path(written)


def missing_weight(recipe: MergekitRecipe, source: Source, tensor: str) -> InvalidInput:
    """The error for a model without a weight."""
    return InvalidInput(
        f"{recipe.path}: weight: {source.written} has none for the tensor {tensor}; give the model a weight,"
        " or one to all models below `parameters`"
    )


def no_base(recipe: MergekitRecipe) -> InvalidInput:
    """The error for a recipe that names no base, if there is no repository to take it from."""
    first = recipe.models[0].model if recipe.models else "PATH"
    return InvalidInput(
        f"{recipe.path}: base_model: a mean of models names no base, and there is no repository here",
        hint=("say which model the others came from: ", Keyword(base=first)),
    )
