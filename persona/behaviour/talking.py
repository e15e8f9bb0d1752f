"""**conversation** — messages and answers, and the live model that gives the answers.

The recipe of the model can change between two answers. A conversation is a state in memory: it writes
nothing, neither `recipe.toml` nor HEAD. Each answer is by the tokenizer, the chat template and the config of
the revision that the model holds.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import field, replace
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from persona.behaviour.chat import encode_prompt
from persona.behaviour.dialogues import Message
from persona.behaviour.generating import ends_of
from persona.behaviour.models import (
    context_of,
    device_of,
    model_files,
    moved,
    refuse_unknown,
    tokenizer_of,
)
from persona.behaviour.options import AnswerOptions
from persona.behaviour.streaming import MAX_TOKENS, Sampling, pieces
from persona.errors import InvalidInput, Refused
from persona.frozen import dataclass
from persona.history.arguments import checks_arguments
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.options import WorkOptions
from persona.history.query_results import RecipeView
from persona.history.recipes.checked import OverLayers
from persona.history.results import UNPRINTED, Result
from persona.live.load import load
from persona.live.model import LiveModel, live

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

CONTEXT: Final = "context"
INTERRUPTED: Final = "interrupted"
_SEEDS: Final = 1 << 32
_CONFIG: Final = ("config.json", "generation_config.json")


@dataclass(frozen=True, repr=False)
class Answer(Result):
    """An answer of a model.

    `tokens`: of the answer, the token that ends it included; `prompt_tokens`: of all before. `stopped`: "end"
    if the model ended its turn, "max_tokens", "context" if the model takes no more tokens, or "interrupted".
    `weights`: the weights digest of the model. `revision`: the commit whose recipe it held, None for an
    edited one. `seed`: None if no token was drawn. `seconds` to the whole answer, `first_seconds` to its
    first piece.
    """

    text: str
    stopped: str
    tokens: int
    prompt_tokens: int
    weights: str
    revision: str | None
    seed: int | None
    first_seconds: float
    seconds: float
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)


@dataclass(frozen=True)
class _Loaded:
    """A model, and what it was loaded with: its text files by name, tokenizer, and longest context."""

    live: LiveModel
    files: Mapping[str, bytes]
    tokenizer: Tokenizer
    context: int | None


@checks_arguments
class Conversation:
    """A conversation with the weights of a recipe, which may change while it goes on.

    `Repository.chat` makes one. Use it as a context manager, or `close` it. It is for one thread.
    """

    def __init__(
        self,
        history: History,
        rev: str | None,
        system: str | None,
        how: AnswerOptions,
    ) -> None:
        self._sampling = Sampling(how["max_tokens"], how["temperature"], how["top_p"])
        self._sampling.check()
        self._history = history
        self._device = device_of(how["device"])
        self._how = how
        given = how["seed"]
        self._seed: int = random.SystemRandom().randrange(_SEEDS) if given is None else given
        self._drawn = 0
        self._system = system
        self._turns: list[Message] = []
        self._past: list[tuple[_Loaded, bool]] = []
        """What was loaded before each change, and whether the live model has to take the change back."""
        self._digest: str | None = None
        self._loaded = self._load(rev, model_files(history, rev))
        self._last: Answer | None = None
        """The answer to the last message, if it is by the weights that the model holds now."""

    def __repr__(self) -> str:
        return f"<Conversation of {len(self._turns)} messages with {self.live!r}>"

    @property
    def live(self) -> LiveModel:
        """The live model. Change its recipe by the calls of the conversation."""
        return self._loaded.live

    @property
    def recipe(self) -> RecipeView:
        """The recipe of the weights that answer now."""
        return self.live.recipe

    @property
    def revision(self) -> str | None:
        """The commit whose weights answer now; None for an edited recipe."""
        return self.live.revision

    @property
    def messages(self) -> tuple[tuple[str, str], ...]:
        """The role and the text of each message so far, the system message first if there is one."""
        return tuple((message.role, message.content) for message in self._prompt(self._turns))

    @property
    def system(self) -> str | None:
        """The system message; None leaves it to the chat template."""
        return self._system

    @system.setter
    def system(self, text: str | None) -> None:
        self._system = text
        self._last = None

    @property
    def has_template(self) -> bool:
        """Whether the tokenizer has a chat template of its own."""
        return bool(self._loaded.tokenizer.chat_template)

    def digest(self) -> str:
        """The weights digest of the model, `blake3:<64 hex>`, hashed once after each change."""
        if self._digest is None:
            self._digest = self.live.digest()
        return self._digest

    # -- answers ---------------------------------------------------------------------------------------------

    def answer(self, message: str) -> Generator[str, None, Answer]:
        """The answer to a message, in pieces of text; the generator returns the whole as an `Answer`.

        If it is closed before its end, the conversation keeps what was said until then. If nothing was said,
        it forgets the message. If the model cannot take all messages, the oldest ones are forgotten; a note
        of the answer says so. Raises `InvalidInput` if the message alone is too long for the model, or if the
        chat template refuses the messages.
        """
        if not message.strip():
            raise InvalidInput("the message is empty", parameter="message")
        return self._answer([*self._turns, Message("user", message)])

    def again(self) -> Generator[str, None, Answer]:
        """Another answer to the last message, in place of the former one."""
        return self._answer(self._asked())

    def current(self) -> Answer | None:
        """The answer to the last message; None if it is by other weights, or was interrupted."""
        return self._last

    def compare(self, rev: str) -> Generator[str, None, Answer]:
        """The answer that the weights of a revision give to the last message, in pieces.

        The conversation and its weights are as before when the generator ends or is closed. Tokens are drawn
        from the seed of the answer before.
        """
        return self._compared(self._asked(), resolve(self._history, rev, self._history.notes))

    def _compared(self, turns: list[Message], commit: str) -> Generator[str, None, Answer]:
        kept = self._turns, self._last, self._digest, self._drawn
        self._moving(commit)
        self._drawn = max(0, self._drawn - 1)
        try:
            with closing(self._answer(turns)) as answered:
                return (yield from answered)
        finally:
            self.undo()
            self._turns, self._last, self._digest, self._drawn = kept

    def _asked(self) -> list[Message]:
        """The messages up to the last one of the user."""
        if not self._turns:
            raise Refused("nothing was asked yet: there is no message to answer again")
        return self._turns[:-1]

    def _answer(self, turns: list[Message]) -> Generator[str, None, Answer]:
        """Answers the last of these messages, which become those of the conversation."""
        self.digest()
        turns, ids, notes = self._fitting(turns)
        return self._answering(turns, ids, notes)

    def _answering(
        self, turns: list[Message], ids: Sequence[int], notes: Sequence[str]
    ) -> Generator[str, None, Answer]:
        started = perf_counter()
        first: float | None = None
        tokens: list[int] = []
        said: list[str] = []
        stopped = INTERRUPTED
        tokenizer, context = self._loaded.tokenizer, self._loaded.context
        seed = (self._seed + self._drawn) % _SEEDS
        self._drawn += 1

        def taken() -> Answer:
            """The answer as it is, which the conversation takes."""
            now = perf_counter()
            found = Answer(
                text="".join(said),
                stopped=stopped,
                tokens=len(tokens),
                prompt_tokens=len(ids),
                weights=self.digest(),
                revision=self.revision,
                seed=seed if self._sampling.temperature else None,
                first_seconds=round((first or now) - started, 3),
                seconds=round(now - started, 3),
                notes=tuple(notes),
            )
            if said or stopped != INTERRUPTED:
                self._turns = [*turns, Message("assistant", found.text)]
                self._last = None if stopped == INTERRUPTED else found
            return found

        most = self._sampling.max_tokens
        most = most if context is None else min(most, context - len(ids))
        try:
            with self.live.using() as model:
                ends = ends_of(model, tokenizer)
                how, threads = self._sampling.settings(model, most, ends), self._how["threads"]
                made = pieces(model, tokenizer, ids, how, ends, seed, threads, tokens)
                with closing(made):
                    while True:
                        try:
                            piece = next(made)
                        except StopIteration as end:
                            stopped = end.value
                            break
                        first = first or perf_counter()
                        said.append(piece)
                        yield piece
        except BaseException as error:
            if not isinstance(error, Exception):  # closed or interrupted: what was said is kept
                taken()
            raise
        if stopped == MAX_TOKENS and most < self._sampling.max_tokens:
            stopped = CONTEXT
        return taken()

    def _fitting(self, turns: list[Message]) -> tuple[list[Message], Sequence[int], list[str]]:
        """The newest of these messages that the model can take together with an answer, and their tokens."""
        context = self._loaded.context
        kept = turns
        while True:
            ids = encode_prompt(self._loaded.tokenizer, self._prompt(kept), "the conversation")
            with self.live.using() as model:
                vocabulary = model.config.get_text_config().vocab_size
            refuse_unknown("the conversation", self._loaded.tokenizer, vocabulary, ids)
            room = 0 if context is None else context - min(self._sampling.max_tokens, context // 2)
            if context is None or len(ids) <= room or len(kept) == 1:
                break
            kept = kept[2:]  # a message and its answer
        if context is not None and len(ids) >= context:
            raise InvalidInput(
                f"this message has {len(ids):,} tokens with all that the chat template adds, and the model"
                f" takes {context:,}; shorten it"
            )
        dropped = len(turns) - len(kept)
        notes = [f"the first {dropped} messages are forgotten: the model takes {context:,} tokens"]
        return kept, ids, notes if dropped else []

    def _prompt(self, turns: Sequence[Message]) -> list[Message]:
        return [*([] if self._system is None else [Message("system", self._system)]), *turns]

    # -- changes ---------------------------------------------------------------------------------------------

    def set_alpha(self, name: str, alpha: OverLayers) -> bool:
        """Changes α of one vector, from the next answer on; returns whether it changed anything.

        Raises the errors of `LiveModel.set`.
        """
        before = self.recipe
        self.live.set(name, alpha=alpha)
        return self._changed(self.recipe != before, self._loaded, moved=True)

    def checkout(self, rev: str | None = None) -> bool:
        """Goes to the weights of a revision, or of `recipe.toml` as it is, from the next answer on.

        Returns whether it changed anything. The messages stay. The tokenizer and the config are then those of
        the revision.
        """
        before = self.revision, self.recipe, self._loaded
        self._moving(rev)
        if (self.revision, self.recipe, self._loaded) == before:
            self._past.pop()
            return False
        return True

    def undo(self) -> None:
        """Takes back the last `set_alpha` or `checkout` that changed anything; again, the one before.

        Messages stay. Raises `Refused` if nothing is left to take back.
        """
        if not self._past:
            raise Refused("nothing to undo: no alpha and no revision was changed")
        loaded, moved = self._past[-1]
        if moved:
            loaded.live.undo()
        elif loaded.live is not self.live:
            self.live.close()
        self._past.pop()
        self._loaded = loaded
        self._digest = self._last = None

    def reset(self) -> None:
        """Forgets all messages. The system message, the recipe and what `undo` knows stay."""
        self._turns, self._last = [], None

    def close(self) -> None:
        """Lets go of the models."""
        for loaded in [self._loaded, *(loaded for loaded, _ in self._past)]:
            loaded.live.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _moving(self, rev: str | None) -> None:
        """Goes to a revision, so that one `undo` takes it back, even if nothing changes."""
        commit = None if rev is None else resolve(self._history, rev, self._history.notes)
        before, files = self._loaded, model_files(self._history, commit)
        at = self.live.revision, self.recipe
        if any(files.get(name) != before.files.get(name) for name in _CONFIG):
            # Another config may mean another class. The model before stays in memory for undo.
            self._loaded = self._load(commit, files)
            self._changed(True, before, moved=False)
            return
        self.live.checkout(commit)
        if files != before.files:
            try:
                tokenizer = tokenizer_of(self._history, commit)
            except BaseException:
                if (self.live.revision, self.recipe) != at:
                    self.live.undo()
                raise
            self._loaded = replace(before, files=files, tokenizer=tokenizer)
        self._past.append((before, (self.live.revision, self.recipe) != at))
        self._digest = self._last = None

    def _changed(self, changed: bool, before: _Loaded, *, moved: bool) -> bool:
        if changed:
            self._past.append((before, moved))
            self._digest = self._last = None
        return changed

    def _load(self, rev: str | None, files: Mapping[str, bytes]) -> _Loaded:
        tokenizer = tokenizer_of(self._history, rev)
        context = context_of(self._history, rev)
        how: WorkOptions = {"threads": self._how["threads"], "progress": self._how["progress"]}
        model = None if self._device == "cpu" else moved(load(self._history, rev, **how), self._device)
        made = live(self._history, model, rev, **how)
        return _Loaded(made, files, tokenizer, context)
