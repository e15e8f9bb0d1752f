"""Conversations through `repo.chat`, on a tiny chat model with two manners."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator

import pytest

import persona
from persona.behaviour.talking import Answer, Conversation
from persona.errors import InvalidInput, Refused, UnknownName, UnknownRevision, UsageError
from persona.repository import Repository
from tests.behaviour.bots import CONTEXT, PIRATE, PLAIN, TEMPLATE, ChatBot

ASKED = "what of rain?"


@pytest.fixture
def repo(pirate: ChatBot) -> Iterator[Repository]:
    with persona.open(pirate.root, threads=1) as opened:
        yield opened


@pytest.fixture
def talk(repo: Repository) -> Iterator[Conversation]:
    with repo.chat(max_tokens=40) as conversation:
        yield conversation


def whole(pieces: Generator[str, None, Answer]) -> Answer:
    said = []
    while True:
        try:
            said.append(next(pieces))
        except StopIteration as end:
            answer: Answer = end.value
            assert "".join(said) == answer.text
            return answer


def test_an_alpha_changes_the_manner_of_the_next_answer_and_undo_gives_the_digest_back(
    repo: Repository, talk: Conversation
) -> None:
    first = whole(talk.answer(ASKED))
    assert (first.text, first.stopped, first.weights) == (PIRATE, "end", repo.digest().weights)
    assert first.revision == repo.resolve()
    assert talk.set_alpha("pirate", 0)
    talk.reset()  # the model has learned dialogues of one answer
    second = whole(talk.answer("what of tea?"))
    assert second.text == PLAIN
    assert second.weights == repo.digest("HEAD~1").weights
    assert second.revision is None
    assert not talk.set_alpha("pirate", 0)
    talk.undo()
    assert talk.digest() == first.weights
    assert whole(talk.again()).text == PIRATE
    assert talk.messages == (("user", "what of tea?"), ("assistant", PIRATE))


def test_undo_goes_back_over_alphas_and_revisions(repo: Repository, talk: Conversation) -> None:
    digests = [talk.digest()]
    for change in (
        lambda: talk.set_alpha("pirate", 0.5),
        lambda: talk.checkout("HEAD~1"),
        lambda: talk.checkout("HEAD"),
        lambda: talk.set_alpha("pirate", -1),
    ):
        assert change()
        digests.append(talk.digest())
    assert not talk.set_alpha("pirate", -1)
    assert len(set(digests)) == 4  # HEAD twice
    for digest in digests[-2::-1]:
        talk.undo()
        assert talk.digest() == digest
    with pytest.raises(Refused, match="nothing to undo"):
        talk.undo()


def test_a_comparison_changes_neither_the_conversation_nor_the_weights(
    repo: Repository, talk: Conversation
) -> None:
    with pytest.raises(Refused, match="nothing was asked"):
        talk.compare("HEAD~1")
    whole(talk.answer(ASKED))
    before = talk.messages, talk.digest(), talk.current()
    other = whole(talk.compare("HEAD~1"))
    assert (other.text, other.weights) == (PLAIN, repo.digest("HEAD~1").weights)
    assert (talk.messages, talk.digest(), talk.current()) == before
    assert talk.live.digest() == talk.digest()
    for read in (0, 1, 3):
        begun = talk.compare("HEAD~1")
        assert len([next(begun) for _ in range(read)]) == read
        begun.close()
    with pytest.raises(UnknownRevision):
        talk.compare("nowhere")
    assert (talk.messages, talk.live.digest(), talk.current()) == (before[0], before[1], before[2])
    assert whole(talk.again()).text == PIRATE


def test_an_answer_is_current_until_something_changes(talk: Conversation) -> None:
    assert talk.current() is None
    answer = whole(talk.answer(ASKED))
    assert talk.current() == answer
    talk.set_alpha("pirate", 0)
    assert talk.current() is None
    talk.undo()
    assert whole(talk.again()).text == answer.text
    talk.system = "be kind"
    assert talk.current() is None


def test_an_answer_that_is_stopped_is_kept_as_far_as_it_was_said(talk: Conversation) -> None:
    pieces = talk.answer(ASKED)
    said = next(pieces) + next(pieces)
    pieces.close()
    assert talk.messages == (("user", ASKED), ("assistant", said))
    talk.answer("what of tea?").close()
    assert len(talk.messages) == 2


def test_what_cannot_be_taken_changes_nothing(talk: Conversation) -> None:
    digest = talk.digest()
    with pytest.raises(InvalidInput):
        talk.answer("  ")
    with pytest.raises(InvalidInput, match=f"the model takes {CONTEXT}"):
        talk.answer("rain " * 100)
    with pytest.raises(UnknownName):
        talk.set_alpha("nobody", 1)
    with pytest.raises(InvalidInput):
        talk.set_alpha("pirate", "x")
    with pytest.raises(UnknownRevision):
        talk.checkout("nowhere")
    with pytest.raises(Refused):
        talk.undo()
    assert (talk.messages, talk.live.digest()) == ((), digest)


def test_the_oldest_messages_are_forgotten_when_the_model_cannot_take_them(talk: Conversation) -> None:
    talk.system = "be kind"
    forgotten = 0
    for number in range(8):
        answer = whole(talk.answer(f"{number} " + "what of rain? " * (1 if number else 10)))
        forgotten += len(answer.notes)
        assert {role for role, _ in talk.messages[1::2]} == {"user"}
    assert forgotten
    assert answer.notes[0].startswith("the first 2 messages are forgotten")
    assert answer.prompt_tokens + 40 <= CONTEXT
    assert talk.messages[0] == ("system", "be kind")
    assert talk.messages[1][0] == "user"
    assert talk.messages[-2][1].startswith("7 ")


def test_an_answer_ends_with_the_context(repo: Repository) -> None:
    with repo.chat(max_tokens=10_000) as talk:
        answer = whole(talk.answer("x" * (CONTEXT - 60)))
        assert answer.stopped in ("context", "end")
        assert answer.prompt_tokens + answer.tokens <= CONTEXT


def test_reset_forgets_the_messages_and_keeps_the_system_message(talk: Conversation) -> None:
    talk.system = "be kind"
    whole(talk.answer(ASKED))
    talk.reset()
    assert talk.messages == (("system", "be kind"),)
    with pytest.raises(Refused):
        talk.again()


def test_a_revision_answers_with_its_own_template_and_config(pirate: ChatBot) -> None:
    template = pirate.root / "chat_template.jinja"
    template.write_text(TEMPLATE.replace("'assistant", "'assistant").replace("message['role']", "'user'"))
    config = pirate.root / "config.json"
    pirate.run.ok("commit", "-m", "another template")
    config.write_text(json.dumps({**json.loads(config.read_text()), "max_position_embeddings": 200}))
    pirate.run.ok("commit", "-m", "another config")
    with persona.open(pirate.root, threads=1) as repo, repo.chat("HEAD~2", max_tokens=40) as talk:
        plain = whole(talk.answer(ASKED))
        old = talk.live
        talk.checkout("HEAD~1")
        assert talk.live is old
        talk.checkout("HEAD")
        assert talk.live is not old
        with pytest.raises(InvalidInput, match="the model takes 200"):
            talk.answer("x" * 250)
        assert talk.set_alpha("pirate", 0)
        for _ in range(3):
            talk.undo()
        assert talk.live is old
        assert whole(talk.again()).text == plain.text
        with pytest.raises(Refused):
            talk.undo()


def test_drawn_answers_follow_the_seed_and_go_on_from_it(repo: Repository) -> None:
    def answers(seed: int) -> list[Answer]:
        with repo.chat(max_tokens=20, temperature=2.0, seed=seed) as talk:
            return [whole(talk.answer(ASKED)), whole(talk.again())]

    one, two = answers(3), answers(3)
    assert [answer.text for answer in one] == [answer.text for answer in two]
    assert [answer.seed for answer in one] == [3, 4]
    assert one[0].text != one[1].text
    with repo.chat(max_tokens=20, temperature=2.0, seed=3) as talk:
        whole(talk.answer(ASKED))
        assert whole(talk.compare("HEAD")).text == one[0].text
        assert whole(talk.again()).text == one[1].text


# -- generate


def test_generate_gives_one_answer_or_one_for_each_prompt(repo: Repository) -> None:
    said: list[str] = []
    answer = repo.generate(ASKED, max_tokens=40, stream=said.append)
    assert isinstance(answer, Answer)
    assert answer.text == "".join(said) == PIRATE
    assert len(said) > 1
    both = repo.generate([ASKED, "what of tea?"], "HEAD~1", max_tokens=40)
    assert isinstance(both, tuple)
    assert [one.text for one in both] == [PLAIN, PLAIN]
    assert both[0].prompt_tokens == both[1].prompt_tokens + 1


def test_alphas_of_generate_hold_for_its_answer_only(repo: Repository) -> None:
    answer = repo.generate(ASKED, max_tokens=40, alpha={"pirate": 0})
    assert isinstance(answer, Answer)
    assert (answer.text, answer.revision) == (PLAIN, None)
    assert repo.recipe["pirate"].alpha == 1
    with pytest.raises(UnknownName):
        repo.generate(ASKED, alpha={"nobody": 1})


def test_generate_stops_after_max_tokens(repo: Repository) -> None:
    answer = repo.generate(ASKED, max_tokens=3)
    assert isinstance(answer, Answer)
    assert (answer.text, answer.tokens, answer.stopped) == (PIRATE[:3], 3, "max_tokens")
    with pytest.raises(UsageError):
        repo.generate([])


def test_a_repository_without_a_tokenizer_says_what_is_missing(chat: ChatBot) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (chat.root / name).unlink(missing_ok=True)
    with persona.open(chat.root) as repo, pytest.raises(InvalidInput, match="no tokenizer is tracked"):
        repo.chat()
