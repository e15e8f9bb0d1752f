"""`persona chat` and `persona generate` as they are typed: in a pipe, and on a terminal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.behaviour.bots import PIRATE, PLAIN, ChatBot
from tests.cli.processes import Terminal, persona_process

ASKED = "what of rain?"
SHORT = ("--threads", "1", "--max-tokens", "40")


def piped(bot: ChatBot, *lines: str, options: tuple[str, ...] = (), exits: int = 0) -> tuple[list[str], str]:
    """What `persona chat` prints on both streams if these lines are its input."""
    result = bot.run("chat", *SHORT, *options, typed="".join(f"{line}\n" for line in lines))
    assert result.exit_code == exits, result.output
    return result.stdout.splitlines(), result.stderr


def digest(bot: ChatBot, rev: str = "HEAD") -> str:
    return bot.run.ok("digest", rev).split()[0]


# -- in a pipe


def test_a_pipe_gets_the_answers_without_a_prompt(pirate: ChatBot) -> None:
    assert piped(pirate, ASKED, "", "/retry") == ([PIRATE, PIRATE], "")
    assert piped(pirate, ASKED, options=("--system", "be kind"))[0] != []


def test_alpha_changes_the_manner_and_undo_gives_the_digest_back(pirate: ChatBot) -> None:
    lines, _ = piped(pirate, ASKED, "/alpha pirate 0", "/retry", "/undo", "/retry")
    with_pirate, without = digest(pirate), digest(pirate, "HEAD~1")
    assert lines == [
        PIRATE,
        "an edited recipe: pirate α 0.00",
        f"weights {without}",
        PLAIN,
        f"{pirate.run.ok('rev-parse', 'HEAD')[:8]}: pirate α 1.00",
        f"weights {with_pirate}",
        PIRATE,
    ]
    assert pirate.run.ok("status").count("pirate") == 0


def test_alpha_lists_and_takes_a_list_over_layers(pirate: ChatBot) -> None:
    lines, _ = piped(pirate, "/alpha", "/alpha pirate = [0, 1]", "/alpha pirate")
    assert lines[0] == "pirate  α 1.00"
    assert lines[-1] == "pirate  α [0, 1]"


def test_a_revision_answers_and_is_compared(pirate: ChatBot) -> None:
    lines, _ = piped(pirate, "/rev HEAD~1", ASKED, "/undo", "/compare HEAD~1", "/rev", "/compare main~1")
    first = pirate.run.ok("rev-parse", "HEAD~1")[:8]
    assert lines[:3] == [f"{first}: the base", f"weights {digest(pirate, 'HEAD~1')}", PLAIN]
    here = f"{pirate.run.ok('rev-parse', 'HEAD')[:8]}: pirate α 1.00"
    assert lines[5:10] == [f"== {here}", PIRATE, f"== HEAD~1 ({first})", PLAIN, here]
    assert lines[10:] == [f"== {here}", PIRATE, f"== main~1 ({first})", PLAIN]


def test_a_line_that_fails_is_said_and_the_next_one_is_taken(pirate: ChatBot) -> None:
    lines, said = piped(
        pirate,
        "/undoo",
        "/alpha nobody 1",
        "/alpha pirate x",
        "/rev nowhere",
        "/undo",
        "/reset now",
        "/compare HEAD",
        ASKED,
        exits=2,
    )
    assert lines == [PIRATE]
    sentences = [line for line in said.splitlines() if line.startswith("persona: ")]
    assert [line.removeprefix("persona: ")[:30] for line in sentences] == [
        "/undoo is not a command",
        "the model holds no vector name",
        "/alpha pirate x: not a number:",
        "unknown revision 'nowhere'",
        "nothing to undo: no alpha and ",
        "/reset takes no words",
        "nothing was asked yet: there i",
    ]
    assert "hint: did you mean /undo?" in said


def test_two_slashes_send_a_text_that_begins_with_one(pirate: ChatBot) -> None:
    found = json.loads(piped(pirate, "//alpha", options=("--json",))[0][0])
    assert found["prompt_tokens"] > 0
    assert "text" in found


def test_json_gives_a_line_for_each_answer_and_each_command(pirate: ChatBot) -> None:
    lines, _ = piped(
        pirate, ASKED, "/alpha pirate 0", "/compare HEAD", "/nothing", options=("--json",), exits=2
    )
    answer, state, both, error = (json.loads(line) for line in lines)
    assert (answer["text"], answer["stopped"]) == (PIRATE, "end")
    assert state["alphas"] == {"pirate": 0}
    assert (state["revision"], state["weights"]) == (None, digest(pirate, "HEAD~1"))
    assert [one["text"] for one in both] == [PLAIN, PIRATE]
    assert both[0]["weights"] == state["weights"]
    assert error["error"]["kind"] == "usage"


def test_save_writes_the_strengths_into_recipe_toml(pirate: ChatBot) -> None:
    _, said = piped(pirate, "/alpha pirate 0.25", "/save", "/save", "/rev HEAD~1", "/save")
    assert said.splitlines()[0] == "recipe.toml has these strengths now"
    assert said.splitlines()[2] == "recipe.toml has these strengths already"
    assert "alpha = 0.25" in (pirate.root / "recipe.toml").read_text()


def test_the_rest_of_the_commands_say_what_they_did(pirate: ChatBot) -> None:
    lines, _ = piped(
        pirate, "/show", "/system be kind", "/system", "/system -", "/reset", "/help", "/quit", ASKED
    )
    assert lines[2].split()[:3] == ["pirate", "α", "1.00"]
    assert lines[3] == f"weights {digest(pirate)}"
    assert lines[4:8] == [
        "system: be kind",
        "system: be kind",
        "no system message of yours",
        "all messages are forgotten",
    ]
    assert [line.split()[0] for line in lines[8:-1]][:3] == ["/alpha", "/rev", "/undo"]
    assert PIRATE not in lines
    assert piped(pirate, "/alpha pirate 0", "/reset", options=("-q",))[0] == []


def test_a_pipe_has_no_escape_codes_and_no_messages_of_libraries(pirate: ChatBot) -> None:
    result = persona_process(pirate.root, "generate", ASKED, *SHORT)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{PIRATE}\n", "")


# -- generate


def test_a_prompt_is_an_argument_or_the_standard_input(pirate: ChatBot) -> None:
    for words, typed in [
        ((ASKED,), None),
        (("HEAD", ASKED), None),
        (("HEAD",), f"{ASKED}\n"),
        (("-",), ASKED),
        (("main", "-"), ASKED),
        ((), ASKED),
    ]:
        result = pirate.run("generate", *words, *SHORT, typed=typed)
        assert (result.exit_code, result.stdout, result.stderr) == (0, f"{PIRATE}\n", "")
    assert pirate.run("generate", "HEAD~1", ASKED, *SHORT).stdout == f"{PLAIN}\n"


def test_one_word_is_a_revision(pirate: ChatBot) -> None:
    said = pirate.run.refused(3, "generate", "hello", *SHORT)
    assert said.startswith("unknown revision 'hello'")
    assert "hint: a prompt of one word comes after a revision: `persona generate HEAD hello`" in said
    assert "the prompt is empty" in pirate.run.refused(2, "generate", *SHORT)


def test_json_has_the_answer_and_all_that_decided_it(pirate: ChatBot) -> None:
    found: dict[str, Any] = pirate.run.json("generate", ASKED, *SHORT)
    assert (found["text"], found["stopped"], found["tokens"]) == (PIRATE, "end", len(PIRATE) + 1)
    assert (found["weights"], found["seed"]) == (digest(pirate), None)
    assert found["revision"] == pirate.run.ok("rev-parse", "HEAD").strip()
    edited = pirate.run.json("generate", ASKED, *SHORT, "--alpha", "pirate=0")
    assert (edited["text"], edited["revision"]) == (PLAIN, None)


def test_a_drawn_answer_can_be_had_again_by_its_seed(pirate: ChatBot) -> None:
    drawn = (ASKED, *SHORT, "--temperature", "2")
    one = pirate.run.json("generate", *drawn)
    again = pirate.run.json("generate", *drawn, "--seed", str(one["seed"]))
    assert again["text"] == one["text"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (2, ("--alpha", "pirate")),
        (2, ("--alpha", "=1")),
        (3, ("--alpha", "nobody=1")),
        (4, ("--alpha", "pirate=x")),
        (2, ("--top-p", "0.5")),
        (4, ("--temperature", "-1")),
        (2, ("--max-tokens", "0")),
    ],
)
def test_what_cannot_be_meant_is_refused(pirate: ChatBot, code: int, words: tuple[str, ...]) -> None:
    pirate.run.refused(code, "generate", ASKED, "--threads", "1", *words)


# -- on a terminal


def test_on_a_terminal_the_manner_changes_and_changes_back(pirate: ChatBot) -> None:
    chat = Terminal(pirate.root, "chat", *SHORT)
    assert "pirate α 1.00" in chat.until("> ")
    chat.type(f"{ASKED}\n")
    assert PIRATE in chat.until("> ")
    chat.type("/alpha pirate 0\n")
    assert digest(pirate, "HEAD~1") in chat.until("> ")
    chat.type("/retry\n")
    said = chat.until("> ")
    assert PLAIN in said
    assert PIRATE not in said
    chat.type("/undo\n")
    assert digest(pirate) in chat.until("> ")
    chat.type("/retry\n")
    assert PIRATE in chat.until("> ")
    chat.type("/compare HEAD~1\n")
    both = chat.until("> ")
    assert both.index("pirate α 1.00") < both.index(PIRATE) < both.index("== HEAD~1") < both.rindex(PLAIN)
    chat.type("/no\n")
    assert "/no is not a command" in chat.until("> ")
    chat.type("\x04")
    assert chat.ends() == 2


def test_a_wide_terminal_has_two_answers_side_by_side(pirate: ChatBot) -> None:
    chat = Terminal(pirate.root, "chat", *SHORT, COLUMNS="120", TERM="xterm", NO_COLOR="1")
    chat.until("> ")
    chat.type(f"{ASKED}\n")
    chat.until("> ")
    chat.type("/compare HEAD~1\n")
    rows = chat.until("> ").splitlines()
    assert any(PIRATE in row and PLAIN in row.replace(PIRATE, "") for row in rows)
    chat.type("/quit\n")
    assert chat.ends() == 0


def test_ctrl_c_stops_an_answer_and_not_the_chat(pirate: ChatBot) -> None:
    # At temperature 20 the tokens are noise, and with this seed it does not end soon.
    noise = ("--max-tokens", "300", "--temperature", "20", "--seed", "7")
    chat = Terminal(pirate.root, "chat", "--threads", "1", *noise)
    chat.until("> ")
    chat.interrupt("(stopped; Ctrl-D ends)\n\n> ")
    chat.type(f"{ASKED}\n")
    chat.until(f"{ASKED}\n")
    chat.type("\x03\x03")
    chat.until("(stopped; Ctrl-D ends)\n\n> ")
    chat.type("/show\n")
    assert digest(pirate) in chat.until("\n\n> ")
    chat.type("/quit\n")
    assert chat.ends() == 0
