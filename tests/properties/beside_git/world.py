"""**world** — a repository of persona and one of git with the same commits and files."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.checkpoints import write_model
from tests.properties.beside_git.git import Git
from tests.properties.beside_git.persona import Persona
from tests.properties.beside_git.running import Clock

RECIPE, TEMPLATE = "recipe.toml", "chat_template.jinja"
_BASE = {"w": [0.5, -1.25, 3.0, 0.0]}


class World:
    """Both programs in a copy of the same repository."""

    def __init__(self, place: Path, clock: Clock) -> None:
        self.clock = clock
        self.texts: dict[str, str] = {}
        """The recipe and the template as a sequence finds them."""
        self.git = Git(place / "git", clock)
        self.persona = Persona(place / "persona", clock)
        self.edits: dict[str, Callable[..., None]] = {
            "edit": self._edit,
            "name": self._name,
            "recipe": self._recipe,
            "lines": self._lines,
            "write": self._write,
            "remove": self._remove,
            "editor": self._editor,
        }

    def _edit(self, name: str, alpha: str) -> None:
        file = self.git.root / RECIPE
        file.write_text(_with_alpha(file.read_text(), name, alpha))
        done = self.persona.run(["set", name, "--alpha", alpha])
        assert done.code == 0, done

    def _name(self, old: str, new: str) -> None:
        file = self.git.root / RECIPE
        file.write_text(file.read_text().replace(f"[vectors.{old}]", f"[vectors.{new}]"))
        done = self.persona.run(["mv", old, new])
        assert done.code == 0, done

    def _recipe(self, *settings: str) -> None:
        text = self.texts[RECIPE]
        for setting in settings:
            text = _with_alpha(text, *setting.split("="))
        self._write(RECIPE, text)

    def _lines(self, *settings: str) -> None:
        lines = self.texts[TEMPLATE].splitlines()
        for setting in settings:
            number, _, text = setting.partition("=")
            lines[int(number) - 1] = text
        self._write(TEMPLATE, "\n".join(lines) + "\n")

    def _write(self, path: str, text: str) -> None:
        text = text.replace("\\n", "\n")
        for root in (self.git.root, self.persona.root):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text if text.endswith("\n") else f"{text}\n")

    def _remove(self, path: str) -> None:
        for root in (self.git.root, self.persona.root):
            (root / path).unlink()

    def _editor(self, command: str) -> None:
        self.git.editor = self.persona.editor = command


def _with_alpha(text: str, name: str, alpha: str) -> str:
    """A recipe with another strength of a vector."""
    return re.sub(rf"(\[vectors\.{name}\]\n(?:.+\n)*?alpha = ).*", rf"\g<1>{alpha}", text)


def first(place: Path) -> World:
    """Makes the repositories that every sequence starts from.

    The first commit has the base and a text file of twelve lines, the second has the vectors a, b and c.
    """
    text = "".join(f"line {number}\n" for number in range(1, 13))
    write_model(place / "base", _BASE, **{TEMPLATE: text})
    for number, name in enumerate("abc"):
        values = list(_BASE["w"])
        values[number] += 0.25
        write_model(place / name, {"w": values})
    clock = Clock()
    world = World(place, clock)
    outside = Persona(place, clock)
    world.git.root.mkdir()
    begun = [outside.run(["init", "persona", "--base", "base"])]
    world.git.run(["init", "--quiet", "--template=", "--initial-branch=main"])
    for key, value in {"advice.detachedHead": "false", "gc.auto": "0"}.items():
        world.git.run(["config", key, value])
    (world.git.root / ".git" / "info").mkdir()
    (world.git.root / ".git" / "info" / "exclude").write_text("*.safetensors\n")
    _mirror(world, "Begin with base")
    clock.tick()
    begun += [world.persona.run(["add", f"../{name}"]) for name in "abc"]
    begun.append(world.persona.run(["commit", "-m", "three vectors"]))
    assert all(answer.code == 0 for answer in begun), begun
    _mirror(world, "three vectors")
    world.texts = {path: (world.git.root / path).read_text() for path in (RECIPE, TEMPLATE)}
    return world


def _mirror(world: World, message: str) -> None:
    """Commits the files of persona's work tree in git."""
    for path, content in world.persona.text_files([]).items():
        (world.git.root / path).write_bytes(content)
    world.git.run(["add", "--all"])
    done = world.git.run(["commit", "--quiet", "-m", message])
    assert done.code == 0, done


def copied(template: World, place: Path) -> World:
    """A copy of the first repositories, to run one sequence in."""
    clock = Clock()
    clock.now = template.clock.now
    for name in ("git", "persona"):
        shutil.copytree(template.git.root.parent / name, place / name)
    world = World(place, clock)
    world.texts = template.texts
    return world
