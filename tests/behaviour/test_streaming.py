"""Answers in pieces: whole characters, the tokens of transformers' own greedy search, and an early end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from persona.behaviour.generating import ends_of
from persona.behaviour.streaming import Sampling, pieces
from persona.errors import InvalidInput, SystemFault, UsageError
from tests.behaviour.bots import old_gpt2, tokenizer

TEXT = "naïve 5 € 👩‍🌾 ok"


class Parrot:
    """Stands for a model: its answer is always the same tokens."""

    def __init__(self, tokens: list[int], before: Callable[[int], object] = lambda number: None) -> None:
        self.tokens, self.before = tokens, before
        self.device = torch.device("cpu")

    def generate(self, ids: torch.Tensor, *, streamer: Any, **options: Any) -> None:
        streamer.put(ids)
        for number, token in enumerate(self.tokens):
            self.before(number)
            streamer.put(torch.tensor([token]))
        streamer.end()


def said_by(
    model: Any, ends: tuple[int, ...] = (), count: list[int] | None = None
) -> Generator[str, None, str]:
    how = SimpleNamespace(do_sample=False)
    return pieces(model, tokenizer(), [3, 4], how, ends, 0, 1, [] if count is None else count)


def whole(made: Generator[str, None, str]) -> tuple[list[str], str]:
    found = []
    while True:
        try:
            found.append(next(made))
        except StopIteration as end:
            return found, end.value


def test_no_piece_has_a_part_of_a_character() -> None:
    ids = tokenizer()(TEXT, add_special_tokens=False)["input_ids"]
    assert len(ids) == len(TEXT.encode())
    found, why = whole(said_by(Parrot(ids)))
    assert "".join(found) == TEXT
    assert max(map(len, found)) == 1
    assert why == "max_tokens"


def test_a_character_that_never_ends_is_shown_at_the_end() -> None:
    ids = tokenizer()("a€", add_special_tokens=False)["input_ids"][:-1]
    assert "".join(whole(said_by(Parrot(ids)))[0]) == "a\ufffd"


def test_special_tokens_and_the_end_are_counted_and_not_said() -> None:
    words = tokenizer()
    ids = [words.pad_token_id, *words("hi", add_special_tokens=False)["input_ids"], words.eos_token_id]
    count: list[int] = []
    assert whole(said_by(Parrot(ids), (words.eos_token_id,), count)) == (["h", "i"], "end")
    assert count == ids


def test_an_error_of_the_model_is_raised_where_the_answer_is_read() -> None:
    def fail(number: int) -> None:
        if number == 2:
            raise RuntimeError("no memory")

    made = said_by(Parrot([40, 41, 42], fail))
    assert next(made)
    assert next(made)
    with pytest.raises(RuntimeError, match="no memory"):
        next(made)


def test_too_little_memory_is_a_fault_of_the_system() -> None:
    def fail(number: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    with pytest.raises(SystemFault, match="no memory left for the answer"):
        whole(said_by(Parrot([40], fail)))


def test_an_answer_that_is_closed_early_stops_the_model() -> None:
    go_on = threading.Event()
    made = []

    def before(number: int) -> None:
        made.append(number)
        if number == 1:
            go_on.wait()

    answer = said_by(Parrot([40] * 1000, before))
    next(answer)
    threading.Timer(0, go_on.set).start()
    answer.close()
    assert len(made) < 1000
    assert "persona answer" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_greedy_pieces_are_what_generate_of_transformers_says(
    kind: str, chat_base: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    directory = chat_base if kind == "llama" else old_gpt2(tmp_path / "gpt2")
    model: Any = AutoModelForCausalLM.from_pretrained(directory)
    words = tokenizer()
    prompt = words("<|im_start|>user\nwhat of rain?<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
    ids = torch.tensor([prompt])
    right = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=40)
    ends = ends_of(model, words)
    found, why = whole(
        pieces(model, words, prompt, Sampling(40).settings(model, 40, ends), ends, 0, 1, count := [])
    )
    assert count == right[0, len(prompt) :].tolist()
    assert "".join(found) == words.decode(count, skip_special_tokens=True)
    assert why == ("end" if count[-1] in ends else "max_tokens")
    assert kind != "llama" or "".join(found) == "it is good to have."


def test_drawn_tokens_follow_the_seed_and_leave_torch_as_it_was(chat_base: Path) -> None:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(chat_base)
    state, threads = torch.get_rng_state(), torch.get_num_threads()

    def drawn(seed: int) -> list[int]:
        count: list[int] = []
        how = Sampling(30, 3.0).settings(model, 30, ())
        whole(pieces(model, tokenizer(), [40, 41], how, (), seed, 1, count))
        return count

    assert drawn(5) == drawn(5) != drawn(6)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("sampling", "error"),
    [
        (Sampling(temperature=-1), InvalidInput),
        (Sampling(temperature=float("nan")), InvalidInput),
        (Sampling(temperature=1, top_p=0), InvalidInput),
        (Sampling(temperature=1, top_p=1.5), InvalidInput),
        (Sampling(top_p=0.5), UsageError),
    ],
)
def test_values_out_of_range_are_refused(sampling: Sampling, error: type[Exception]) -> None:
    with pytest.raises(error):
        sampling.check()
