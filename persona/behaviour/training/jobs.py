"""The vectors that `train` is asked for: their settings, their texts, and what decides them, all checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from persona.behaviour.dialogues import Dialogue, unpaired
from persona.behaviour.graph.graph import TRAINING_ROLES, Graph
from persona.behaviour.graph.pattern import COLD, Trainable, TrainSettings
from persona.behaviour.options import TrainOptions
from persona.behaviour.probes import refuse_overlap
from persona.behaviour.training import compiling, settings
from persona.behaviour.training.compiling import Check, Lesson, Machine
from persona.behaviour.training.provenance import Provenance
from persona.errors import Blank, Call, InvalidInput, Keyword, Refused, UsageError
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.names.walk import first_parents
from persona.history.vectors.onto import is_replaced
from persona.history.worktree import text_files
from persona.objects import growth
from persona.objects.ids import abbreviate
from persona.objects.recipe import Recipe
from persona.version import __version__

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

    from persona.objects.base import Base

PLUS: Final = "plus"
MINUS: Final = "minus"
WARM_ROLES: Final = ("demos", "probes")
"""The data that decides a vector that starts warm, beside that of its training."""
NO_TEMPLATE: Final = (
    "the tokenizer has no chat template, so each message is a line, as in `User: …`; a template of your own"
    " goes into chat_template.jinja"
)


@dataclass(frozen=True)
class Job:
    """One vector to train: its settings, and for each part its lesson and what decides it.

    The one part of a vector that is no contrastive pair is None. `notes`: what else the user should know.
    """

    trainable: Trainable
    settings: TrainSettings
    lessons: dict[str | None, Lesson]
    made: dict[str | None, Provenance]
    notes: tuple[str, ...] = ()


def jobs(history: History, keys: Sequence[str], given: TrainOptions, machine: Machine) -> list[Job]:
    """Everything that the keys stand for, read and checked."""
    from persona.behaviour.chat import template_digest
    from persona.behaviour.models import tokenizer_of

    graph = Graph.of(history)
    chosen = dict.fromkeys(name for key in keys for name in graph.names_of(key))
    trainables = [graph.trainable(name) for name in chosen]
    recipe = text_files.recipe(history).recipe
    base = recipe.base
    onto = _onto(history, recipe, trainables, given["onto"])
    tokenizer = tokenizer_of(history)
    shared: dict[str, Any] = {
        "base": base,
        "onto": onto,
        "template": template_digest(tokenizer),
        "threads": machine.threads,
        "device": machine.device,
        **versions(),
    }
    return [_job(history, graph, one, given, tokenizer, shared) for one in trainables]


def _job(
    history: History,
    graph: Graph,
    trainable: Trainable,
    given: TrainOptions,
    tokenizer: Tokenizer,
    shared: Mapping[str, Any],
) -> Job:
    """The job of one trainable. Raises `InvalidInput` for everything in its data that cannot be used."""
    chosen: Mapping[str, Any] = {**given}
    in_force = settings.in_force(trainable.settings, chosen)
    lessons = _lessons(graph, trainable)
    if (probes := graph.probes(trainable.name)) is not None:
        refuse_overlap(probes.items, graph.trained_prompts([trainable]))
    is_warm = in_force.warm != COLD
    if chosen.get("warm_steps") is not None and not is_warm:
        raise InvalidInput(
            f"{trainable.name} starts cold, so there are no warm steps",
            parameter="warm_steps",
            hint=("a warm start is asked for with ", Keyword(warm=Blank("moments|distil"))),
        )
    check = _check_tokens(history, tokenizer, trainable.name, shared["base"], shared["onto"])
    first = next(iter(lessons))
    if is_warm:  # the other side of a contrastive pair has no demos
        lessons[first] = replace(lessons[first], demos=_demos(graph, trainable), probes=probes)
    for lesson in lessons.values():
        compiling.encode(history, tokenizer, lesson, in_force, check)
    pattern = graph.pattern(trainable.key)
    data = graph.data_files(trainable, (*TRAINING_ROLES, *(WARM_ROLES if is_warm else ())))
    made = Provenance(
        pattern=trainable.key,
        facet=trainable.facet,
        name=trainable.name,
        file=pattern.file,
        text=pattern.text,
        data={role: {"file": file.file, "blake3": file.blake3} for role, file in data.items()},
        settings=settings.as_data(in_force),
        given={key: settings.plain(chosen[key]) for key in settings.GIVEN if chosen[key] is not None},
        **shared,
    )
    cold = _cold(made, in_force) if is_warm else made
    parts = {
        part: (made if lesson.demos else cold).with_changes(part=part) for part, lesson in lessons.items()
    }
    notes = () if tokenizer.chat_template else (NO_TEMPLATE,)
    return Job(trainable, in_force, lessons, parts, notes)


def _cold(made: Provenance, in_force: TrainSettings) -> Provenance:
    """The other side of a contrastive pair: the same training without a warm start."""
    return made.with_changes(
        data={role: file for role, file in made.data.items() if role not in WARM_ROLES},
        settings=settings.as_data(replace(in_force, warm=COLD)),
        given={**made.given, "warm": COLD},
    )


def _demos(graph: Graph, trainable: Trainable) -> tuple[Dialogue, ...]:
    """The demos of a warm start. Raises `InvalidInput` if there are none."""
    demos = graph.dialogues(trainable, "demos")
    if not demos:
        named = trainable.data.demos is not None
        place = graph.place_of(trainable, "demos")
        why = "the file of demos has no dialogue" if named else "there are no demos"
        raise InvalidInput(
            f"{place}: a warm start needs example dialogues, and {why}; name a file of them as demos in"
            " [data]",
            hint=("to train without one: ", Call("train", trainable.name, warm=COLD)),
        )
    for demo in demos:
        if any(message.role == "system" for message in demo.messages):
            raise InvalidInput(
                f"{demo.place}: the demos of a warm start stand inside another dialogue, so they have no"
                " system message of their own"
            )
    return demos


def _lessons(graph: Graph, trainable: Trainable) -> dict[str | None, Lesson]:
    """The texts that each part of a vector is trained on."""
    if trainable.data.train is None:
        prompt, turns = graph.prompt(trainable), graph.turns(trainable)
        if not turns:
            raise InvalidInput(
                f"{graph.place_of(trainable, 'prompt')}: a prompt is baked over the user's turns, and there"
                " are none; name a file of them with turns in [data]"
            )
        return {None: Lesson(turns, prompt)}
    dialogues = graph.dialogues(trainable)
    if not dialogues:
        raise InvalidInput(f"{graph.place_of(trainable, 'train')}: the file has no dialogue")
    if trainable.data.opposite is None:
        return {None: Lesson(dialogues)}
    opposite = graph.dialogues(trainable, "opposite")
    if fault := unpaired(dialogues, opposite):
        raise InvalidInput(": ".join(fault))
    return {PLUS: Lesson(dialogues), MINUS: Lesson(opposite)}


def _onto(history: History, recipe: Recipe, trainables: Sequence[Trainable], rev: str | None) -> str | None:
    """The commit whose weights are trained; None for the base.

    Raises `Refused` if a trained vector would take the place of one of that commit.
    """
    if rev is None or rev == "base":
        return None
    id = resolve(history, rev, history.notes)
    before = history.recipe_of(id)
    if history.base(before.base).digest != history.base(recipe.base).digest:
        raise InvalidInput(f"that revision, {rev}, has another base than recipe.toml", parameter="onto")
    for name in (one.name for one in trainables):
        if is_replaced(recipe, name, before):
            raise Refused(
                f"{name} is a part of {rev}, and a vector that is trained from {rev} needs it; the new {name}"
                " would take its place",
                hint=(
                    "train it from a revision that does not have it, or from the base: ",
                    Keyword(onto="base"),
                ),
            )
    return id


def _check_tokens(history: History, tokenizer: Tokenizer, name: str, base: str, onto: str | None) -> Check:
    """Refuses texts with tokens that the trained weights have no rows for.

    Vectors of `recipe.toml` may have added such tokens to the tokenizer.
    """
    from persona.behaviour.models import refuse_unknown, vocabulary_of

    own = history.base(base)
    extended = own if onto is None else history.base_of(history.recipe_of(onto))
    vocabulary = vocabulary_of(history, onto, own, extended)
    hint = _with_tokens(history, name, own)

    def check(place: str, *texts: Sequence[int]) -> None:
        refuse_unknown(place, tokenizer, vocabulary, *texts, hint=hint)

    return check


def _with_tokens(history: History, name: str, own: Base) -> Any:
    """The advice for a text with tokens that vectors of `recipe.toml` add, None if they add none.

    It is to train the newest commit that has such tokens and lacks the old vector of that name, which the new
    one replaces.
    """
    recipe = text_files.recipe(history).recipe
    if growth.vocabulary(own, history.base_of(recipe)) is None:
        return None
    old, head = recipe.by_name.get(name), history.head_commit()
    for rev in (head, *first_parents(history, head)):
        before = history.recipe_of(rev)
        fits = before.base == recipe.base and growth.vocabulary(own, history.base_of(before)) is not None
        if fits and not is_replaced(recipe, name, before):
            text = "HEAD" if rev == head else abbreviate(rev)
            return (Call("train", name, onto=text), " trains weights that have it")
    call = Call("train", name, onto="HEAD")
    first = (Call("commit", message=Blank("MSG")), ", then ", call, " trains weights that have it")
    return first if old is None else (Call("recipe.remove", name), ", ", *first)


def machine(given: TrainOptions) -> Machine:
    """The device and threads of the runs. Raises as `device_of`."""
    from persona.behaviour.models import device_of
    from persona.cores import thread_count

    every = given["save_every"]
    if every is not None and every < 1:
        raise InvalidInput("it must be at least 1", parameter="save_every")
    return Machine(device_of(given["device"]), thread_count(given["threads"]), every, given["progress"])


def versions() -> dict[str, Any]:
    """The versions that may decide bits."""
    import torch
    import transformers

    return {
        "code": __version__,
        "libraries": {"torch": str(torch.__version__), "transformers": str(transformers.__version__)},
    }


def need_accelerate() -> None:
    """Raises `UsageError` unless accelerate is installed, without which transformers trains nothing."""
    try:
        import accelerate  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:
        raise UsageError(
            "training needs accelerate; install it with: pip install 'persona-vcs[train]'"
        ) from None
