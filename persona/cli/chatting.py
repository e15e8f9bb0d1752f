"""`persona chat` on a terminal or in a pipe: lines that are messages or commands, and what they print.

In a pipe there is no prompt and no escape code. An error of a line is said, and the next line is read; the
exit code is that of the first error.
"""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from persona.cli.errors import told
from persona.cli.render import columns, number, short
from persona.cli.terminal import echo, printable, speak
from persona.errors import Blank, Call, InvalidInput, Note, PersonaError, Refused, UsageError
from persona.history.results import as_json
from persona.progress import Phase

if TYPE_CHECKING:
    from persona.behaviour.talking import Answer, Conversation
    from persona.cli.invocation import Invocation
    from persona.history.query_results import RecipeView
    from persona.repository import Repository

WIDE: Final = 100
"""Columns of a terminal that shows two answers side by side."""
PROMPT: Final = "> "
COMMANDS: Final = {
    "/alpha": ("NAME A", "change the strength of a vector; without words, list the strengths"),
    "/rev": ("REV", "go to the weights of a revision"),
    "/undo": ("", "take back the last /alpha or /rev; again, the one before"),
    "/compare": ("REV", "answer the last message here and with the weights of REV"),
    "/retry": ("", "answer the last message again"),
    "/show": ("", "show the recipe and the weights digest"),
    "/save": ("", "write the strengths into recipe.toml, without a commit"),
    "/system": ("TEXT", "set the system message; - removes it"),
    "/reset": ("", "forget all messages"),
    "/help": ("", "show this list"),
    "/quit": ("", "end"),
}
"""The words after a slash: their arguments, and what they do."""
ANSWERING: Final = Phase("answering", "pieces of text")


class Chat:
    """One run of `persona chat`. `exit_code` is that of the first line that failed, else 0."""

    def __init__(self, call: Invocation, repo: Repository, conversation: Conversation) -> None:
        self._call = call
        self._repo = repo
        self._conversation = conversation
        self._on_terminal = call.interactive and not call.json
        self.exit_code = 0

    def run(self) -> None:
        """Reads lines until the end of the input, or `/quit`."""
        self._begin()
        if not self._on_terminal:
            for line in _piped():
                if not self._did(line):
                    return
            return
        interrupts = _Interrupts()
        prompt = self._prompt()
        try:
            while True:
                try:
                    with interrupts.taken():
                        # A terminal that is not in UTF-8 gives bytes as surrogates.
                        typed = input(prompt).encode("utf-8", "surrogateescape")
                        if not self._did(typed.decode("utf-8", "replace")):
                            return
                except KeyboardInterrupt:
                    self._settle()
                    echo("\n(stopped; Ctrl-D ends)\n")
        except EOFError:
            echo("")
        finally:
            interrupts.close()

    # -- lines -----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._settle()
        if not self._conversation.has_template:
            self._call.remark(
                "no chat template is tracked: the model reads lines such as `User: …`, and may not stop"
            )
        if self._on_terminal and not self._call.quiet:
            echo(f"{self._where()}\n/help lists the commands. Ctrl-C stops an answer, Ctrl-D ends.\n")

    def _prompt(self) -> str:
        """The prompt of a terminal, with line editing where Python has it."""
        edits = self._edit_lines()
        if not edits or click.get_current_context().color is False:
            return PROMPT
        # Readline has to know which characters take no place.
        return re.sub("(\x1b[^m]*m)", "\x01\\1\x02", click.style(PROMPT, bold=True))

    def _edit_lines(self) -> bool:
        """Gives the terminal a history and the Tab key. They last as long as the command."""
        try:
            import readline
        except ImportError:
            return False
        libedit = "libedit" in (readline.__doc__ or "")
        readline.set_completer_delims(" ")
        readline.set_completer(self._complete)
        readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
        return True

    def _complete(self, begun: str, index: int) -> str | None:
        """Commands; after /alpha the vectors; after /rev and /compare the revisions."""
        import readline

        before = readline.get_line_buffer()[: readline.get_begidx()].split()
        words: list[str] = []
        if not before and begun.startswith("/"):
            words = list(COMMANDS)
        elif before == ["/alpha"]:
            words = list(self._conversation.recipe.vectors)
        elif before in (["/rev"], ["/compare"]):
            known = self._repo.known_names()
            words = ["HEAD", *known.branches, *known.tags]
        found = [word + " " for word in words if word.startswith(begun) and word == printable(word)]
        return found[index] if index < len(found) else None

    def _did(self, line: str) -> bool:
        """Does what one line says, or says why not. Returns whether the chat goes on."""
        self._settle()
        try:
            return self._take(line)
        except PersonaError as error:
            self._settle()
            code = told(error, ["--json"] if self._call.json else [])
            self.exit_code = self.exit_code or code
            return True

    def _take(self, line: str) -> bool:
        if not line.strip():
            return True
        if not line.startswith("/") or line.startswith("//"):
            self._say(self._conversation.answer(line[1:] if line.startswith("//") else line))
            return True
        word, _, rest = line.partition(" ")
        if word in ("/quit", "/exit"):
            return False
        if word not in COMMANDS:
            from persona.cli.words import nearest

            near = nearest(word, COMMANDS)
            hint = f"did you mean {near}?" if near else "/help lists the commands; //… sends such a text"
            raise UsageError(f"{printable(word):.40} is not a command", hint=hint)
        if rest.strip() and not COMMANDS[word][0]:
            raise UsageError(f"{word} takes no words")
        action: Callable[[str], None] = getattr(self, f"_{word[1:]}")
        action(rest.strip())
        return True

    # -- answers ---------------------------------------------------------------------------------------------

    def _say(self, pieces: Generator[str, None, Answer]) -> None:
        """Prints an answer while it is made."""
        answer = self._stream(pieces, shown=not self._call.json)
        if self._call.json:
            self._print_json(answer)

    def _stream(self, pieces: Generator[str, None, Answer], *, shown: bool) -> Answer:
        said = 0
        try:
            while True:
                try:
                    piece = next(pieces)
                except StopIteration as end:
                    answer: Answer = end.value
                    break
                if shown:
                    self._settle()
                    speak(piece)
                elif not self._call.json:
                    said += 1
                    self._call.tell(ANSWERING, said, 0)
        except KeyboardInterrupt:
            pieces.close()
            raise
        finally:
            self._settle()
        if shown:
            echo("\n" if self._on_terminal else "")
        self._call.remarks(answer.notes)
        return answer

    def _retry(self, _: str) -> None:
        self._say(self._conversation.again())

    def _compare(self, rev: str) -> None:
        """Both answers, in columns if the terminal is wide; the conversation goes on with the first."""
        if not rev:
            raise UsageError("/compare needs a revision, such as /compare HEAD~1")
        other = f"{rev} ({short(self._repo.resolve(rev))})"
        conversation = self._conversation
        here = self._where()
        in_columns = self._on_terminal and _width() >= WIDE
        streams = not in_columns and not self._call.json
        first = conversation.current()
        again = None if first is not None else conversation.again()
        if streams:
            echo(f"== {here}")
        if again is not None:
            first = self._stream(again, shown=streams)
        elif streams and first is not None:
            speak(first.text)
            echo("\n" if self._on_terminal else "")
        if streams:
            echo(f"== {other}")
        second = self._stream(conversation.compare(rev), shown=streams)
        if self._call.json:
            self._print_json([first, second])
        elif in_columns and first is not None:
            _show_columns((here, first.text), (other, second.text))

    # -- changes ---------------------------------------------------------------------------------------------

    def _alpha(self, words: str) -> None:
        from persona.history.settings import parse_over_layers

        vectors = self._conversation.recipe.vectors
        if not words or words in vectors:
            named = {name: vectors[name] for name in ([words] if words else vectors)}
            rows = [(printable(name), f"α {number(term.alpha)}") for name, term in named.items()]
            self._answer_with(list(columns(rows)) or ["the recipe has no vector"])
            return
        known = [name for name in vectors if re.match(rf"{re.escape(name)}[\s=]", words)]
        name = max(known, key=len, default=re.split(r"[\s=]", words)[0])
        value = words[len(name) :].strip().removeprefix("=").strip()
        if not value:
            raise UsageError("/alpha needs a vector and a number, such as /alpha listening 0.4")
        try:
            changed = self._conversation.set_alpha(name, parse_over_layers(value))
        except (ValueError, InvalidInput) as error:
            problem = error.message if isinstance(error, InvalidInput) else str(error)
            raise InvalidInput(f"/alpha {words:.60}: {problem.removeprefix('alpha: ')}") from None
        self._changed(changed)

    def _rev(self, rev: str) -> None:
        if not rev:
            self._answer_with([self._where()])
            return
        self._changed(self._conversation.checkout(rev))

    def _undo(self, _: str) -> None:
        self._conversation.undo()
        self._changed(True)

    def _changed(self, changed: bool) -> None:
        """Says what answers now."""
        self._settle()
        if self._call.quiet and not self._call.json:
            return
        same = [] if changed else ["nothing changed"]
        self._answer_with([*same, self._where(), f"weights {self._conversation.digest()}"])

    def _save(self, _: str) -> None:
        """Writes each α that differs into recipe.toml."""
        wanted = self._conversation.recipe.vectors
        there = self._repo.recipe.view().vectors
        missing = [name for name in wanted if name not in there or there[name].id != wanted[name].id]
        if missing:
            raise Refused(
                f"recipe.toml does not have the vector {printable(missing[0])} of this conversation; nothing"
                " was saved"
            )
        new = {name: term.alpha for name, term in wanted.items() if term.alpha != there[name].alpha}
        for name, alpha in new.items():
            self._repo.recipe.set(name, alpha=list(alpha) if isinstance(alpha, tuple) else alpha)
        if new:
            hint = (Call("commit", message=Blank("MSG")), " records them")
            self._call.remarks([Note("recipe.toml has these strengths now", hint)])
        else:
            self._call.remark("recipe.toml has these strengths already")
        if self._call.json:
            self._answer_with([])

    def _system(self, text: str) -> None:
        if text:
            self._conversation.system = None if text == "-" else text
        now = self._conversation.system
        self._answer_with([f"system: {printable(now)}" if now else "no system message of yours"])

    def _reset(self, _: str) -> None:
        self._conversation.reset()
        if not self._call.quiet or self._call.json:
            self._answer_with(["all messages are forgotten"])

    # -- shows -----------------------------------------------------------------------------------------------

    def _show(self, _: str) -> None:
        recipe = self._conversation.recipe
        rules = ", ".join([str(recipe.rules["preset"]), *_numbers(recipe.rules)])
        rows = [
            (f"  {printable(name)}", f"α {number(term.alpha)}", f"vector {short(term.id)}")
            for name, term in recipe.vectors.items()
        ]
        lines = [self._where(), f"base {short(recipe.base)}, {rules}", *columns(rows)]
        self._answer_with([*lines, f"weights {self._conversation.digest()}"])

    def _help(self, _: str) -> None:
        rows = [(f"{word} {words}".rstrip(), does) for word, (words, does) in COMMANDS.items()]
        self._answer_with([*columns(rows), "Anything else is a message. //… sends a text with a slash."])

    def _where(self) -> str:
        """The recipe that answers, on one line."""
        revision = self._conversation.revision
        at = "an edited recipe" if revision is None else short(revision)
        return f"{at}: {_strengths(self._conversation.recipe)}"

    def _answer_with(self, lines: list[str]) -> None:
        """The answer to a command; as JSON it is the state of the conversation."""
        if not self._call.json:
            echo("\n".join(lines) + ("\n" if self._on_terminal else ""))
            return
        conversation = self._conversation
        vectors = conversation.recipe.vectors.items()
        state = {
            "revision": conversation.revision,
            "alphas": {name: term.alpha for name, term in vectors},
            "weights": conversation.digest(),
            "messages": len(conversation.messages),
        }
        self._print_json(state)

    def _print_json(self, value: Any) -> None:
        click.echo(json.dumps(as_json(value)))

    def _settle(self) -> None:
        """Takes a progress bar away before something is printed."""
        self._call.settle([], act=True)


def _strengths(recipe: RecipeView) -> str:
    named = (f"{printable(name)} α {number(term.alpha)}" for name, term in recipe.vectors.items())
    return ", ".join(named) or "the base"


def _numbers(rules: Mapping[str, str | float]) -> Iterator[str]:
    for axis, sign in (("density", "density"), ("lambda", "λ")):
        if axis in rules:
            yield f"{sign} {number(rules[axis])}"


def _piped() -> Iterator[str]:
    """The lines of a pipe or a file."""
    for line in iter(sys.stdin.buffer.readline, b""):
        yield line.decode("utf-8", "replace").rstrip("\r\n")


class _Interrupts:
    """Ctrl-C raises `KeyboardInterrupt` once inside a `taken` block, and does nothing elsewhere.

    So a second Ctrl-C does not end what the first one began: the way back to the former weights, or a line
    of output.
    """

    def __init__(self) -> None:
        self._open = False
        self._before = signal.signal(signal.SIGINT, self._came)

    def _came(self, number: int, frame: object) -> None:
        if self._open:
            self._open = False
            raise KeyboardInterrupt

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Ctrl-C interrupts this block."""
        self._open = True
        try:
            yield
        finally:
            self._open = False

    def close(self) -> None:
        """Gives Ctrl-C back."""
        signal.signal(signal.SIGINT, self._before)


def _width() -> int:
    from rich.console import Console

    return Console().width


def _show_columns(*answers: tuple[str, str]) -> None:
    """Texts side by side, each under its title."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=True, show_edge=False, pad_edge=False, header_style="bold")
    for title, _ in answers:
        table.add_column(Text(printable(title)), ratio=1, overflow="fold")
    table.add_row(*(Text(printable(text)) for _, text in answers))
    Console(highlight=False).print(table)
    echo("")
