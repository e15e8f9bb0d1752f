"""An answer in pieces of text, while the model makes it.

`generate` of transformers runs in a thread of its own and hands over each token. So every model of
transformers can stream, and the tokens are those that `generate` gives.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from persona.errors import InvalidInput, SystemFault, UsageError
from persona.frozen import dataclass

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

END: Final = "end"
MAX_TOKENS: Final = "max_tokens"
_CUT: Final = "\ufffd"
"""The decoder's sign for bytes that are no whole character."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. `temperature` 0: the most likely one each time (greedy).

    `top_p`: only among the likeliest tokens that have this probability together, in (0, 1]. `max_tokens`: of
    an answer.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0

    def check(self) -> None:
        """Raises `InvalidInput` for a value out of range, `UsageError` for a `top_p` that has no use."""
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InvalidInput(
                f"must be a number from 0 up, not {self.temperature!r:.40}", parameter="temperature"
            )
        if not 0 < self.top_p <= 1:
            raise InvalidInput(f"must be above 0 and at most 1, not {self.top_p!r:.40}", parameter="top_p")
        if self.top_p < 1 and not self.temperature:
            raise UsageError("top_p says how to draw tokens, and nothing is drawn at temperature 0")

    def settings(self, model: Any, most: int, ends: Sequence[int]) -> Any:
        """The model's own generation config, with these values in place of its own.

        What it says of repetitions stays. It is a `GenerationConfig` of transformers.
        """
        found = copy.deepcopy(model.generation_config)
        drawn = self.temperature > 0
        found.update(
            do_sample=drawn,
            temperature=self.temperature if drawn else None,
            top_p=self.top_p if drawn else None,
            num_beams=1,
            num_return_sequences=1,
            max_length=None,
            max_new_tokens=most,
            eos_token_id=list(ends) or None,
            pad_token_id=ends[0] if ends else 0,
            return_dict_in_generate=False,
        )
        return found


def pieces(
    model: Any,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    how: Any,
    ends: Sequence[int],
    seed: int,
    threads: int | None,
    count: list[int],
) -> Generator[str, None, str]:
    """The text that a model adds to a prompt, in pieces of whole characters, without special tokens.

    `how`: a `GenerationConfig`. `seed`: of the tokens that are drawn. `threads`: of torch, None for its own
    number. Returns why it stopped: `END`, or
    `MAX_TOKENS`. All tokens are appended to `count`, also if the generator is closed early. The answer is
    over then.
    """
    handover = _Handover()
    thread = threading.Thread(
        target=handover.run, args=(model, prompt, how, seed, threads), name="persona answer", daemon=True
    )
    said: list[int] = []
    text, why = "", MAX_TOKENS
    thread.start()
    try:
        for token in handover.tokens():
            count.append(token)
            if token in ends:
                why = END
                continue
            said.append(token)
            whole = str(tokenizer.decode(said, skip_special_tokens=True)).rstrip(_CUT)
            if len(whole) > len(text) and whole.startswith(text):
                piece, text = whole[len(text) :], whole
                yield piece
    finally:
        handover.stop()
        thread.join()
    whole = str(tokenizer.decode(said, skip_special_tokens=True))
    if len(whole) > len(text) and whole.startswith(text):
        yield whole[len(text) :]
    return why


class _Stopped(Exception):
    """The answer is no longer wanted."""


class _Handover:
    """Takes tokens from `generate`, as one of its streamers, and gives them to another thread."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[int | BaseException | None] = SimpleQueue()
        self._stopped = self._begun = False

    def run(self, model: Any, prompt: Sequence[int], how: Any, seed: int, threads: int | None) -> None:
        """Generates; everything that is raised goes to the other thread."""
        import torch

        ids = torch.tensor([list(prompt)], device=model.device)
        try:
            with _seeded(seed, how.do_sample, model.device), _threads(threads), _quiet():
                model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=how, streamer=self)
        except _Stopped:
            pass
        except RuntimeError as error:
            lacks_memory = "out of memory" in str(error)
            self._queue.put(SystemFault(f"no memory left for the answer: {error}") if lacks_memory else error)
        except BaseException as error:
            self._queue.put(error)
        self._queue.put(None)

    def put(self, tokens: Any) -> None:
        """The prompt first, then each token."""
        if self._stopped:
            raise _Stopped
        if self._begun:
            for token in tokens.reshape(-1).tolist():
                self._queue.put(token)
        self._begun = True

    def end(self) -> None:
        """The end of the answer, which `run` tells."""

    def stop(self) -> None:
        """Ends the answer with its next token."""
        self._stopped = True

    def tokens(self) -> Iterator[int]:
        """Each token, as soon as it is made."""
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item


@contextmanager
def _seeded(seed: int, drawn: bool, device: Any) -> Iterator[None]:
    """Draws from this seed; torch's generators are as they were afterwards."""
    import torch

    if not drawn:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Computes with this many threads of torch."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Lets transformers log errors only: a model's own settings may not go with those of this answer."""
    import transformers

    logging: Any = transformers.utils.logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
