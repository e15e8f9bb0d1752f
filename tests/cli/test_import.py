"""`persona import` as it is typed."""

from __future__ import annotations

import re
from pathlib import Path

from tests.checkpoints import write_model
from tests.cli.command_line import CommandLine


def test_an_import_outside_a_repository_begins_one_from_the_base_of_the_file(models: Path) -> None:
    (models / "bot").mkdir()
    here = CommandLine(models / "bot")
    text = here.ok("import", "../recipe.yml")
    assert text.startswith(f"Initialized persona repository in {models / 'bot'}\n[main (root-commit) ")
    assert " + listening  " in text
    assert " ~ preset ties → mergekit" in text
    here.ok("commit", "-m", "as in the file")
    here.ok("checkout")
    assert here.json("status")["weights"]["state"] == "clean"


def test_a_dry_run_outside_a_repository_makes_none(models: Path) -> None:
    (models / "bot").mkdir()
    text = CommandLine(models / "bot").ok("import", "-n", "../recipe.yml")
    assert text == (
        "base  base\npreset  mergekit\ndensity  0.5\n"
        f" + listening  α 0.50  from {models}/bot/../listening\n"
        f" + suggesting  α 1.00, only *a*  from {models}/bot/../suggesting\n"
        f" + suggesting-2  α 0.25, except *a*  from {models}/bot/../suggesting\n"
    )
    assert list((models / "bot").iterdir()) == []


def test_a_recipe_that_cannot_be_makes_no_repository(models: Path) -> None:
    (models / "bot").mkdir()
    (models / "slerp.yml").write_text((models / "recipe.yml").read_text().replace("ties", "slerp"))
    error = CommandLine(models / "bot").refused(4, "import", "../slerp.yml")
    assert "merge_method: slerp is no sum of changes to one base" in error
    assert list((models / "bot").iterdir()) == []


def test_a_rule_out_of_range_is_refused_by_the_name_of_the_file(models: Path) -> None:
    (models / "bot").mkdir()
    text = (models / "recipe.yml").read_text().replace("merge_method: ties", "merge_method: della")
    (models / "della.yml").write_text(text + "parameters: {epsilon: 0.9}\n")
    error = CommandLine(models / "bot").refused(4, "import", "../della.yml")
    assert "della.yml: epsilon: 0.9 is not in [0, 0.5]" in error
    assert list((models / "bot").iterdir()) == []


def test_models_that_cannot_be_opened_make_no_repository(models: Path) -> None:
    (models / "bot").mkdir()
    (models / "noise").write_bytes(b"noise")
    (models / "noise.yml").write_text((models / "recipe.yml").read_text().replace("suggesting", "noise"))
    for options in ([], ["-n"]):
        assert "noise" in CommandLine(models / "bot").refused(4, "import", "../noise.yml", *options)
    assert list((models / "bot").iterdir()) == []


def test_a_repository_that_was_begun_before_a_model_was_refused_is_told(models: Path) -> None:
    (models / "bot").mkdir()
    (models / "other.yml").write_text((models / "recipe.yml").read_text().replace("suggesting", "other"))
    write_model(models / "other", {"stranger": [1.0]})
    here = CommandLine(models / "bot")
    result = here("import", "../other.yml")
    assert result.exit_code == 4
    assert f"Initialized persona repository in {models / 'bot'}; nothing is imported yet" in result.stderr
    here.ok("import", "../recipe.yml")


def test_the_advice_to_take_the_files_of_another_model_works_elsewhere(models: Path) -> None:
    (models / "listening" / "tokenizer.json").write_text("{}")
    (models / "tokens.yml").write_text((models / "recipe.yml").read_text() + "tokenizer_source: listening\n")
    (models / "bot").mkdir()
    here = CommandLine(models / "bot")
    said = here("import", "../tokens.yml").stderr
    here.ok(*re.findall("`persona (add --files .*)`", said)[0].split())
    assert (models / "bot" / "tokenizer.json").exists()


def test_a_mean_of_models_begins_with_the_base_that_is_given(models: Path) -> None:
    (models / "mean.yml").write_text(
        "merge_method: linear\nmodels:\n- {model: listening, parameters: {weight: 1}}\n"
        "- {model: suggesting, parameters: {weight: 3}}\n"
    )
    (models / "bot").mkdir()
    here = CommandLine(models / "bot")
    assert "--base listening" in here.refused(4, "import", "../mean.yml")
    here.ok("import", "../mean.yml", "--base", "../base")
    vectors = here.json("log")[0]["recipe"]["vectors"]
    assert vectors == {}
    here.ok("commit", "-m", "a mean")
    vectors = here.json("log")[0]["recipe"]["vectors"]
    assert {name: vector["alpha"] for name, vector in vectors.items()} == {
        "listening": 0.25,
        "suggesting": 0.75,
    }
