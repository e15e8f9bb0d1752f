"""`persona sweep` as it is typed: its table, its JSON, its picture and its exit codes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.behaviour.bots import PIRATE_DATA, ChatBot


def sweep(bot: ChatBot, *words: str | Path) -> list[str]:
    """The lines that a sweep of `pirate` prints."""
    return bot.run.ok("sweep", "pirate", "--threads", "1", *words).splitlines()


def test_a_sweep_prints_its_points_the_stretch_and_the_best_alpha(pirate: ChatBot) -> None:
    lines = sweep(pirate, "--alpha", "0:0.75:0.25,1", "--max-damage", "1.5")
    assert lines[0] == "pirate in recipe.toml, against the base (float32, cpu)"
    assert re.fullmatch(r"ALPHA +EFFECT +ALL FORMS +LARGEST SPILL +KL +LOSS RATIO +DAMAGE", lines[2])
    assert re.fullmatch(r"0 .* without it", lines[3])
    number = r"[+-]\d+\.\d\d"
    row = rf"0\.25 +{number} +\[{number}, {number}\] +yes +{number} brief +\d\.\d{{4}} +\d\.\d{{4}} +allowed"
    assert re.fullmatch(row, lines[4])
    assert re.fullmatch(r"1 .* α in recipe\.toml, best", lines[7])
    assert lines[9] == "the effect rises from α = 0 up to α = 1"
    assert lines[10:] == [
        "best: α = 1, the largest effect with a loss ratio of at most 1.5",
        "recipe.toml has it already",
    ]
    again = sweep(pirate, "--alpha", "0:0.75:0.25,1", "--max-damage", "1.5")
    assert "measured before" in again[0]
    assert again[1:] == lines[1:]


def test_the_commands_that_take_the_best_point_work(pirate: ChatBot) -> None:
    words = ("--alpha", "0.5", "--preset", "linear,ties", "--density", "0.5", "--join", "vote,add")
    lines = sweep(pirate, *words, "--max-damage", "9", "--probe", "pirate")
    assert lines[2].startswith("RULES ")
    assert "SPILL" not in lines[2]
    typed = [line.removeprefix("take it: persona ") for line in lines if line.startswith("take it: ")]
    assert typed
    for command in typed:
        pirate.run.ok(*shlex.split(command))
    assert sweep(pirate, "--alpha", "0.5", "--probe", "pirate")[-1] == "recipe.toml has it already"


def test_json_has_every_point_and_the_best_one(pirate: ChatBot) -> None:
    found = pirate.run.json("sweep", "pirate", "--alpha", "0,0.5", "--threads", "1", "--checks")
    assert (found["name"], found["pattern"], found["wanted"], found["alone"]) == (
        "pirate",
        "pirate",
        1,
        False,
    )
    assert [point["alpha"] for point in found["points"]] == [0, 0.5]
    assert found["best"] == found["points"][1]
    assert found["best"]["effect"]["margin"]["mean"] > 0
    assert found["best"]["effect"]["after"]["items"] == 6
    assert found["stretches"][0] | {"low": 0, "high": 0.5, "below": "end"} == found["stretches"][0]
    assert "edits" not in found
    assert "CHECK" in sweep(pirate, "--alpha", "0,0.5", "--checks")[2]


def test_a_sweep_is_drawn_and_another_ending_is_refused_first(pirate: ChatBot, tmp_path: Path) -> None:
    assert "must be a .png or .svg" in pirate.run.refused(
        2, "sweep", "pirate", "--alpha", "0", "--plot", tmp_path / "a.pdf"
    )
    sweep(pirate, "--alpha", "0,0.5,1", "--plot", tmp_path / "one.svg")
    drawn = (tmp_path / "one.svg").read_text()
    for label in ("effect", "spill", "damage", "brief", "limit 1.02", "α in recipe.toml"):
        assert label in drawn
    sweep(pirate, "--alpha", "0,0.5", "--preset", "ties,linear", "--plot", tmp_path / "two.png")
    assert (tmp_path / "two.png").read_bytes().startswith(b"\x89PNG")
    sweep(pirate, "--alpha", "0.5", "--probe", "pirate", "--plot", tmp_path / "three.svg")
    assert "spill" not in (tmp_path / "three.svg").read_text()


def test_what_cannot_be_swept_exits_with_a_sentence(chat: ChatBot, pirate_tune: Path) -> None:
    assert "--alpha" in chat.run.refused(2, "sweep", "pirate")
    assert "nobody" in chat.run.refused(3, "sweep", "nobody", "--alpha", "1")
    chat.run.ok("commit", pirate_tune, "-m", "talk like a pirate")
    assert "no pattern is that of pirate" in chat.run.refused(4, "sweep", "pirate", "--alpha", "1")
    chat.pattern("pirate", train=PIRATE_DATA)
    said = chat.run.refused(4, "sweep", "pirate", "--alpha", "1")
    assert said.startswith("pirate has no probes, so the effect of pirate cannot be measured\nhint: ")
    assert "graph/pirate.md" in said
    assert "a range is FROM:TO:STEP" in chat.run.refused(4, "sweep", "pirate", "--alpha", "1:2")
