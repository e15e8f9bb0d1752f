"""`diff --weights`, `vector show` and the pictures of `--plot`."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import click
import pytest

from persona.cli import heatmap, measures
from persona.cli.measures import Sheet
from tests.checkpoints import write_model
from tests.cli.command_line import CommandLine

LAYERED = {
    "model.embed_tokens.weight": [0.5, 1.0, -2.0, 4.0],
    **{
        f"model.layers.{layer}.{part}.weight": [1.0, 2.0, 3.0, float(layer)]
        for layer in range(3)
        for part in (
            *(f"self_attn.{letter}_proj" for letter in "qkvo"),
            *(f"mlp.{word}_proj" for word in ("gate", "up", "down")),
            "input_layernorm",
            "post_attention_layernorm",
        )
    },
    "model.norm.weight": [1.0],
    "lm_head.weight": [0.25, 0.5],
}


@pytest.fixture
def layered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """A repository of a model with three layers, and two vectors that pull a weight apart."""
    monkeypatch.setenv("COLUMNS", "100")
    name = "model.layers.1.self_attn.q_proj.weight"
    write_model(tmp_path / "base", LAYERED)
    write_model(tmp_path / "up", {**LAYERED, name: [1.5, 2.0, 3.5, 1.0], "lm_head.weight": [0.5, 0.5]})
    write_model(tmp_path / "down", {**LAYERED, name: [0.75, 2.0, 3.25, 1.0]})
    CommandLine(tmp_path).ok("init", "bot", "--base", "base")
    bot = CommandLine(tmp_path / "bot")
    bot.ok("commit", "../up", "-m", "up")
    bot.ok("commit", "../down", "-m", "down")
    return bot


def sections(text: str) -> dict[str, list[list[str]]]:
    """The rows below each heading, cell by cell."""
    found: dict[str, list[list[str]]] = {}
    for block in text.split("\n\n"):
        head, *lines = block.splitlines()
        rule = next((place for place, line in enumerate(lines) if set(line) == {"─"}), len(lines))
        found[head] = [line.split() for line in lines[rule + 1 :]]
    return found


def test_weights_are_told_by_layer_and_module(layered: CommandLine) -> None:
    said = layered.ok("diff", "HEAD~2", "HEAD", "--weights")
    assert said.startswith("diff recipe ")
    found = sections(said)
    assert found["Weights changed, %"][1] == ["1", "50.0", *["0"] * 8, "5.56"]
    assert [row[0] for row in found["Weights changed, %"]] == ["0", "1", "2"]
    first, *_, norm, head = (row[0] for row in found["By kind of module"])
    assert (first, norm, head) == ("embed_tokens", "norm", "lm_head")
    assert found["By kind of module"][-1] == ["lm_head", "2", "50.0", "44.7", "0"]
    (pair,) = found["Pairs of vectors"]
    assert pair[-1] == "50.0"
    assert found["Conflicts in sign, % of the weights that both pull at"] == [
        ["0", "–"],
        ["1", "50.0"],
        ["2", "–"],
    ]


def test_tables_stay_within_a_hundred_columns(layered: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in ("100", "72"):
        monkeypatch.setenv("COLUMNS", columns)
        said = layered.ok("diff", "HEAD~2", "HEAD", "--weights")
        tables = said.partition("\n\n")[2].split("\n\n", 1)[1]
        assert max(map(len, tables.splitlines())) <= int(columns)
    assert "Weights changed, % (continued)" in said


def test_a_summary_leaves_out_the_layers(layered: CommandLine) -> None:
    said = layered.ok("diff", "HEAD~2", "HEAD", "--weights", "--stat")
    assert " vectors.up   | added\n" in said
    assert "By kind of module" in said
    assert "Weights changed" not in said


def test_weights_join_the_json_only_when_asked(layered: CommandLine) -> None:
    plain = layered.json("diff", "HEAD~2", "HEAD")
    measured = layered.json("diff", "HEAD~2", "HEAD", "--weights")
    weights = measured.pop("weights")
    assert measured == plain
    row = next(row for row in weights["layers"] if (row["layer"], row["module"]) == (1, "self_attn.q_proj"))
    assert (row["changed"], row["elements"], row["stack"]) == (2, 4, "model.layers")
    assert row["pairs"][0]["conflict_fraction"] == 0.5
    assert weights["vectors"][0].keys() == {
        "name",
        "id",
        "alpha",
        "kept_fraction",
        "mass_fraction",
        "lost_fraction",
    }


def test_exit_code_counts_the_recipe(layered: CommandLine) -> None:
    assert layered("diff", "HEAD", "HEAD", "--weights", "--exit-code").exit_code == 0
    assert layered("diff", "HEAD~1", "HEAD", "--weights", "--exit-code").exit_code == 1


def test_a_vector_is_shown_by_layer(layered: CommandLine) -> None:
    said = layered.ok("vector", "show", "up")
    assert "Kept:     " in said
    assert sections(said)["Weights changed, %"][1][:2] == ["1", "50.0"]
    answer = layered.json("vector", "show", "up")
    assert answer["layers"][0]["module"] == "embed_tokens"
    assert [item["density"] for item in answer["kept"]] == [0.1, 0.2, 0.5]


def test_a_model_without_layers_is_shown_too(grown: CommandLine) -> None:
    found = sections(grown.ok("diff", "HEAD~2", "HEAD", "--weights"))
    assert [row[0] for row in found["By kind of module"]] == ["a", "b"]
    grown.ok("diff", "HEAD~2", "HEAD", "--plot", "flat.png")


@pytest.mark.parametrize("name", ["change.png", "change.SVG"])
def test_a_picture_is_drawn(layered: CommandLine, name: str) -> None:
    answer = layered.json("diff", "HEAD~2", "HEAD", "--plot", name)
    assert "weights" in answer
    data = (layered.directory / name).read_bytes()
    if name.endswith(".png"):
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", data[16:24])
        assert width > height > 400
    else:
        root = ElementTree.fromstring(data)
        words = {element.text for element in root.iter() if element.text}
        assert {"embed_tokens", "self_attn.q_proj", "lm_head", "Weights changed, %"} <= words
        assert data.count(b"<image") <= 3  # the colour bars: cells are shapes, sharp at any size


def test_a_vector_is_drawn(layered: CommandLine) -> None:
    layered.ok("vector", "show", "up", "--plot", "up.svg")
    assert b"Vector up" in (layered.directory / "up.svg").read_bytes()


@pytest.mark.parametrize("command", [("diff",), ("vector", "show", "up")])
def test_a_picture_that_cannot_be_is_refused_before_any_work(
    layered: CommandLine, command: tuple[str, ...]
) -> None:
    assert "must be a .png or .svg file" in layered.refused(2, *command, "--plot", "change.gif")
    assert "there is no directory" in layered.refused(4, *command, "--plot", "nowhere/change.png")
    (layered.directory / "folder.png").mkdir()
    assert "this is a directory" in layered.refused(4, *command, "--plot", "folder.png")


def a_sheet(layers: int, modules: int, cells: float | None = 1.0) -> Sheet:
    names = tuple(f"block.part_{place}_proj" for place in range(modules))
    rows = tuple((cells,) * modules for _ in range(layers))
    return Sheet("T", "model.layers", tuple(range(layers)), names, rows, (cells,) * layers, ((), ()))


@pytest.mark.parametrize(
    "sheet",
    [a_sheet(1, 1), a_sheet(90, 30), a_sheet(3, 2, None), a_sheet(3, 2, 0.0)],
    ids=["one cell", "many layers", "no numbers", "nothing changed"],
)
def test_every_sheet_can_be_drawn_and_printed(sheet: Sheet) -> None:
    assert heatmap.picture("png", "P", [sheet]).startswith(b"\x89PNG")
    lines = list(measures.sheet_lines(sheet))
    assert sum(line.startswith(("\x1b[1mT", "T")) for line in lines) >= 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.0034, "0.0034"),
        (0.05, "0.050"),
        (0.0996, "0.10"),
        (0.1, "0.10"),
        (2.5, "2.50"),
        (25.0, "25.0"),
    ],
)
def test_small_numbers_have_two_digits_that_count(value: float, shown: str) -> None:
    lines = [click.unstyle(line).split() for line in measures.sheet_lines(a_sheet(1, 1, value))]
    assert ["0", shown, shown] in lines


def test_the_same_numbers_are_the_same_picture() -> None:
    sheet = a_sheet(4, 3)
    assert heatmap.picture("svg", "P", [sheet]) == heatmap.picture("svg", "P", [sheet])
