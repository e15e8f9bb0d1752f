"""What a user types in a day, and what comes back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.checkpoints import write_model
from tests.cli.command_line import BASE, LISTENING, CommandLine


def test_init_says_where_and_makes_a_first_commit(models: Path) -> None:
    said = CommandLine(models).ok("init", "mybot", "--base", "base")
    assert said.startswith(f"Initialized persona repository in {(models / 'mybot').resolve()}\n")
    assert re.search(r"^\[main \(root-commit\) [0-9a-f]{8}\] \w+", said, re.MULTILINE)
    assert (models / "mybot" / "chat_template.jinja").read_text() == "hello\n"


def test_a_commit_says_what_it_stored_and_what_changed(persona: CommandLine) -> None:
    said = persona.ok("commit", "../listening", "-m", "listen before answering").splitlines()
    assert re.fullmatch(r"\[main [0-9a-f]{8}\] listen before answering", said[0])
    assert re.fullmatch(
        r" \+ listening  α 1\.00   \d+ B stored of 24 B \([\d.]+ %\), 16\.7 % of weights changed", said[1]
    )


def test_a_vector_that_the_store_has_is_said_to_be_stored_already(persona: CommandLine) -> None:
    assert " B stored of 24 B" in persona.ok("add", "../listening")
    assert " B already stored of 24 B" in persona.ok("commit", "-m", "listen")
    again = persona.json("commit", "../listening", "-n", "again", "-m", "once more")["vectors"][0]
    assert again["new_bytes"] == 0 < again["stored_bytes"]
    persona.ok("revert", "listening")
    assert " B already stored of 24 B" in persona.ok("revert", "HEAD")
    other = persona.json("commit", "../suggesting", "-m", "suggest")["vectors"][0]
    assert other["new_bytes"] == other["stored_bytes"]


def test_a_new_vector_of_an_old_name_replaces_it(persona: CommandLine) -> None:
    persona.ok("commit", "../listening", "--alpha", "0.5", "-m", "one")
    said = persona.ok("commit", "../suggesting", "-n", "listening", "-m", "two")
    assert re.search(r"^ ~ listening [0-9a-f]{4,} → [0-9a-f]{4,}  α 0\.50 ", said, re.MULTILINE)


def test_a_dropped_vector_is_shown(grown: CommandLine) -> None:
    grown.ok("rm", "listening")
    assert " - listening" in grown.ok("commit", "-m", "not any more").splitlines()


def test_a_negative_alpha_may_follow_its_flag(persona: CommandLine) -> None:
    persona.ok("commit", "../suggesting", "--alpha", "-0.5", "-m", "stop suggesting alternatives")
    assert persona.json("log")[0]["recipe"]["vectors"]["suggesting"]["alpha"] == -0.5
    persona.ok("set", "suggesting", "--alpha", "-0.25")
    assert "+alpha = -0.25" in persona.ok("diff").splitlines()


@pytest.mark.parametrize("alpha", ["nan", "inf", "-inf", "much", "1e39"])
def test_an_alpha_that_is_no_strength_is_refused(grown: CommandLine, alpha: str) -> None:
    assert "alpha" in grown.refused(4, "set", "listening", "--alpha", alpha)
    assert grown.ok("diff") == ""


@pytest.mark.parametrize("density", ["0", "2", "nan", "-0.5"])
def test_a_density_out_of_range_is_refused(grown: CommandLine, density: str) -> None:
    assert "density" in grown.refused(4, "set", "listening", "--density", density)
    assert "density" in grown.refused(4, "set", "--merge", f"density={density}")
    assert grown.ok("diff") == ""


def test_rules_are_set_together(grown: CommandLine) -> None:
    grown.ok("set", "--merge", "density=0.2", "trim=global")
    assert {axis: rule["to"] for axis, rule in grown.json("diff")["rules"].items()} == {
        "density": 0.2,
        "trim": "global",
    }


def test_a_preset_says_which_rules_it_drops_and_which_stay(grown: CommandLine) -> None:
    said = grown("set", "--merge", "density=0.3", "lambda=0.5", "trim=global", "divide=count")
    assert said.output == ""
    assert grown("set", "--merge", "preset=mergekit", "divide=weight").stderr.splitlines() == [
        "preset = mergekit removed trim = global",
        "density = 0.3 is kept; the preset has 1",
        "lambda = 0.5 is kept; the preset has 1",
    ]
    assert grown("set", "--merge", "preset=linear", "lambda=1").stderr.splitlines() == [
        "preset = linear removed density = 0.3, divide = weight"
    ]
    assert grown("set", "--merge", "preset=ties").output == ""


def test_a_filter_that_does_not_fit_its_density_is_refused_by_its_axis(grown: CommandLine) -> None:
    refused = grown.refused(4, "set", "--merge", "preset=della", "density=0.1")
    assert refused.startswith("--merge epsilon: density - epsilon and density + epsilon must be")
    assert refused.rstrip().endswith("epsilon is at most 0.1")
    grown.ok("set", "--merge", "preset=della", "density=0.1", "epsilon=0.1", "rescale=false", "seed=7")
    rules = grown.json("diff")["rules"]
    assert [rules[axis]["to"] for axis in ("epsilon", "rescale", "seed")] == [0.1, False, 7]
    assert "+rescale = false\n+seed = 7\n" in grown("diff").output
    assert grown("set", "--merge", "preset=ties").stderr.splitlines() == [
        "preset = ties removed epsilon = 0.1, rescale = false, seed = 7",
        "density = 0.1 is kept; the preset has 1",
    ]


def test_a_preset_that_is_refused_drops_nothing(grown: CommandLine) -> None:
    grown.ok("set", "listening", "--density", "0.5")
    refused = grown.refused(4, "set", "--merge", "preset=linear")
    assert "vectors.listening.density" in refused
    assert "persona set --density default listening" in refused
    assert "dropped" not in refused
    grown.ok("set", "listening", "--no-density")
    assert grown.json("diff")["vectors"] == []
    grown.ok("set", "--merge", "preset=linear")


@pytest.mark.parametrize(
    "words",
    [
        ["set", "listening"],
        ["set", "--alpha", "1"],
        ["set", "listening", "--merge", "density=1", "--alpha", "1"],
        ["set", "--merge", "density"],
        ["commit", "-m", "a", "-F", "file"],
        ["revert"],
        ["cat-file", "HEAD"],
        ["config"],
        ["config", "--list", "user.name"],
        ["config", "--unset", "user.name", "x"],
        ["switch"],
        ["branch", "-d"],
        ["checkout", "--max-shard-size", "big"],
        ["checkout", "--max-shard-size", "9" * 400],
        ["checkout", "--device", "abacus"],
        ["checkout", "-b", "new", "--", "recipe.toml"],
        ["log", "-n", "some"],
        ["log", "--no-such-flag"],
        ["revert", "HEAD", "-m", "a message"],
        ["revert", "HEAD", "-m", "²"],
    ],
)
def test_words_that_make_no_sense_are_usage_errors(grown: CommandLine, words: list[str]) -> None:
    assert grown.refused(2, *words)


def test_a_filter_is_taken_away_by_an_empty_one(grown: CommandLine) -> None:
    grown.ok("set", "listening", "--only", "a", "--only", "b*", "--except", "b")
    assert '+only = ["a", "b*"]' in grown.ok("diff").splitlines()
    grown.ok("set", "listening", "--only", "", "--except", "")
    assert grown.json("diff")["vectors"] == []


def test_nothing_to_commit_is_a_no(grown: CommandLine) -> None:
    assert "nothing to commit" in grown.refused(1, "commit", "-m", "again")
    assert "nothing to commit" in grown.refused(1, "commit")


def test_a_commit_without_a_message_or_a_terminal_is_a_usage_error(grown: CommandLine) -> None:
    grown.ok("set", "listening", "--alpha", "0.25")
    assert "-m" in grown.refused(2, "commit")
    assert "-m" in grown.refused(2, "commit", "../suggesting")


def test_a_message_may_come_from_a_file_from_stdin_or_in_paragraphs(grown: CommandLine) -> None:
    (grown.directory / "message").write_text("from a file\n\nmore\n")
    grown.ok("commit", "--allow-empty", "-F", "message")
    assert grown("commit", "--allow-empty", "-F", "-", typed="from stdin\n").exit_code == 0
    grown.ok("commit", "--allow-empty", "-m", "first", "-m", "second")
    messages = [entry["message"].rstrip("\n") for entry in grown.json("log", "-3")]
    assert messages == ["first\n\nsecond", "from stdin", "from a file\n\nmore"]


def test_an_amended_commit_keeps_its_message(grown: CommandLine) -> None:
    before = grown.json("log")
    grown.ok("set", "listening", "--alpha", "0.25")
    grown.ok("commit", "--amend")
    after = grown.json("log")
    assert [entry["message"] for entry in after] == [entry["message"] for entry in before]
    assert after[0]["recipe"]["vectors"]["listening"]["alpha"] == 0.25


def test_a_commit_of_the_recipe_says_what_changed(persona: CommandLine) -> None:
    persona.ok("commit", "../listening", "-m", "listen")
    persona.ok("set", "listening", "--alpha", "0.7")
    persona.ok("set", "--merge", "density=0.2")
    (persona.directory / "chat_template.jinja").write_text("bye\n")
    said = persona.ok("commit", "-m", "a little less").splitlines()
    assert said[1:] == [
        " ~ density 1.00 → 0.20",
        " ~ listening  α 1.00 → 0.70",
        "   density 0.20 keeps 16.7 % (listening)",
        " ~ chat_template.jinja",
    ]


@pytest.fixture
def tied(persona: CommandLine, models: Path) -> CommandLine:
    """A repository whose vector changes four of six weights by the same amount."""
    write_model(models / "tied", {"a": [value + 0.25 for value in BASE["a"]], "b": BASE["b"]})
    persona.ok("commit", "../tied", "-m", "tied")
    return persona


def test_a_density_set_later_says_what_it_keeps(tied: CommandLine) -> None:
    tied.ok("set", "--merge", "density=0.2")
    assert "\t            density 0.20 keeps 66.7 % (tied)" in tied.ok("status").splitlines()
    assert tied.json("status")["kept"] == [{"name": "tied", "density": 0.2, "kept_fraction": 4 / 6}]
    assert tied.ok("commit", "-m", "trim").splitlines()[1:] == [
        " ~ density 1.00 → 0.20",
        "   density 0.20 keeps 66.7 % (tied)",
    ]
    assert tied.json("status")["kept"] == []
    tied.ok("set", "tied", "--alpha", "0.5")
    assert tied.json("status")["kept"] == tied.json("commit", "-m", "weaker")["kept"] == []
    tied.ok("rm", "tied")
    tied.ok("commit", "-m", "gone")
    assert tied.ok("revert", "HEAD").endswith("density 0.20 keeps 66.7 %\n")


def test_a_density_beside_the_grid_is_told_by_vector_show_alone(tied: CommandLine) -> None:
    tied.ok("set", "tied", "--density", "0.123")
    assert tied.json("status")["kept"] == []
    assert [kept["density"] for kept in tied.json("vector", "show", "tied")["kept"]] == [0.1, 0.123, 0.2, 0.5]


def test_add_edits_the_recipe_and_commits_nothing(persona: CommandLine) -> None:
    added = persona.json("add", "../listening")
    assert added["id"] is None
    assert added["vectors"][0]["change"] == "added"
    assert len(persona.json("log")) == 1
    assert persona.json("status")["recipe_changed"] is True


def test_a_rename_keeps_the_vector(grown: CommandLine) -> None:
    before = grown.json("vector", "ls")[0]["id"]
    grown.ok("mv", "listening", "attentive")
    assert [(v["name"], v["id"]) for v in grown.json("vector", "ls")] == [("attentive", before)]
    grown.ok("set", "attentive", "--alpha", "0.3")
    changed = grown.json("diff")["vectors"]
    assert [(one["name"], one["change"], one["from"]["name"]) for one in changed] == [
        ("attentive", "renamed", "listening")
    ]
    assert grown.ok("diff").splitlines()[1:3] == ["-[vectors.listening]", "+[vectors.attentive]"]
    assert "renamed:    listening → attentive  α " in grown.ok("status")
    assert "vectors.attentive | renamed from listening, α " in grown.ok("diff", "--stat")
    assert " ~ attentive  renamed from listening, α " in grown.ok("commit", "-m", "another name")


def test_checkout_makes_the_fine_tune_byte_for_byte(persona: CommandLine, models: Path) -> None:
    persona.ok("commit", "../listening", "-m", "listen")
    result = persona.json("checkout")
    assert result["files"] == ["model.safetensors"]
    assert result["revision"] == persona.ok("rev-parse", "HEAD").strip()
    assert result["weights"] == persona.ok("digest").strip() == persona.json("digest", "HEAD")["weights"]
    assert weights(persona.directory) == weights(models / "listening")


def test_checkout_of_an_earlier_revision_rolls_back(grown: CommandLine, models: Path) -> None:
    said = grown.ok("checkout", "HEAD~2")
    assert said.startswith("HEAD is now at ")
    assert "tensors computed" in said
    assert weights(grown.directory) == weights(models / "base")
    assert grown.ok("status").startswith("HEAD detached at ")
    assert grown.ok("checkout", "-").startswith("Switched to branch 'main'\n")


def test_checkout_elsewhere_stays(grown: CommandLine, models: Path) -> None:
    grown.ok("checkout", "HEAD~1", "-o", "../release")
    assert weights(models / "release") == weights(models / "listening")
    assert grown.json("status")["branch"] == "main"


def test_checkout_puts_single_files_back(grown: CommandLine) -> None:
    (grown.directory / "chat_template.jinja").write_text("edited\n")
    grown.ok("checkout", "--", "chat_template.jinja")
    assert (grown.directory / "chat_template.jinja").read_text() == "hello\n"
    assert grown.json("checkout", "HEAD~1", "--", "recipe.toml")["files"] == ["recipe.toml"]
    assert grown.json("status")["recipe_changed"] is True
    grown.ok("restore", "recipe.toml")
    assert grown.json("status")["recipe_changed"] is False


def test_an_edit_that_would_be_overwritten_is_named(grown: CommandLine) -> None:
    grown.ok("set", "listening", "--alpha", "0.25")
    assert "recipe.toml" in grown.refused(1, "checkout", "HEAD~1")
    grown.ok("checkout", "-f", "HEAD~1")


def test_revert_of_a_name_drops_the_behaviour(grown: CommandLine) -> None:
    reverted = grown.json("revert", "listening")
    assert [vector["change"] for vector in reverted["vectors"]] == ["removed"]
    assert grown.json("log", "-1")[0]["recipe"]["vectors"] == {}


def test_revert_of_a_revision_undoes_it(grown: CommandLine) -> None:
    grown.ok("revert", "HEAD")
    assert grown.json("log", "-1")[0]["recipe"]["vectors"]["listening"]["alpha"] == 1.0


def test_a_revert_says_what_it_changed(grown: CommandLine) -> None:
    grown.ok("set", "--merge", "density=0.2")
    (grown.directory / "chat_template.jinja").write_text("bye\n")
    grown.ok("commit", "-m", "trim")
    assert grown.ok("revert", "HEAD~1").splitlines()[1:] == [" ~ listening  α 0.50 → 1.00"]
    lines = [" ~ density 0.20 → 1.00", " ~ chat_template.jinja"]
    assert grown.ok("revert", "--no-commit", "HEAD~1").splitlines() == lines
    grown.ok("restore", ".")
    assert grown.ok("revert", "HEAD~1").splitlines()[1:] == lines
    assert grown.ok("revert", "-q", "HEAD") == ""


def test_revert_without_a_commit_edits_alone(grown: CommandLine) -> None:
    assert grown.json("revert", "--no-commit", "HEAD")["id"] is None
    assert grown.json("status")["recipe_changed"] is True


def test_an_unknown_revision_or_name_is_not_found(grown: CommandLine) -> None:
    assert "checkout -- recipe.toml" in grown.refused(3, "checkout", "recipe.toml")
    for words in (
        ["log", "nowhere"],
        ["checkout", "nowhere"],
        ["rev-parse", "HEAD~99"],
        ["show", "deadbeef"],
    ):
        assert grown.refused(3, *words)
    assert grown.refused(3, "set", "nobody", "--alpha", "1")
    assert grown.refused(3, "rm", "nobody")
    assert grown.refused(3, "revert", "nobody")
    assert grown.refused(3, "config", "no.such")


def test_outside_of_a_repository_everything_says_so(outside: CommandLine) -> None:
    for words in (
        ["log"],
        ["status"],
        ["diff"],
        ["commit", "-m", "x"],
        ["checkout"],
        ["fsck"],
        ["vector", "ls"],
    ):
        result = outside(*words, "--json")
        assert result.exit_code == 3
        assert '"kind": "not-a-repository"' in result.stdout


def test_an_input_that_cannot_be_taken_is_exit_4(persona: CommandLine, models: Path) -> None:
    write_model(models / "narrow", {"a": BASE["a"]})
    assert "b" in persona.refused(4, "commit", "../narrow", "-m", "x")
    write_model(models / "longer", {**LISTENING, "b": [1.0, 2.0, 3.0]})
    assert "b" in persona.refused(4, "commit", "../longer", "-m", "x")
    assert len(persona.json("log")) == 1


def test_a_recipe_with_a_fault_names_the_line(grown: CommandLine) -> None:
    recipe = grown.directory / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("alpha = 0.5", "alpha = nan"))
    assert re.search(r"recipe\.toml:\d+", grown.refused(4, "commit", "-m", "x"))
    assert "recipe.toml cannot be read" in grown.ok("status")


def weights(directory: Path) -> bytes:
    """The tensors' bytes of a small model, after its header."""
    data = (directory / "model.safetensors").read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


def test_edits_that_come_along_are_listed_and_a_new_branch_says_so(grown: CommandLine) -> None:
    grown.ok("checkout")
    grown.ok("set", "listening", "--alpha", "0.25")
    (grown.directory / "tokenizer.json").write_text("{}\n")
    (grown.directory / "chat_template.jinja").unlink()
    listed = ["D\tchat_template.jinja", "M\trecipe.toml", "A\ttokenizer.json"]
    said = grown.ok("checkout", "-b", "warm").splitlines()
    assert said == [*listed, "Switched to a new branch 'warm'"]
    said = grown.ok("checkout", "main").splitlines()
    assert said[:4] == [*listed, "Switched to branch 'main'"]
    assert grown.json("checkout", "warm")["carried"][1] == {"path": "recipe.toml", "change": "changed"}
    assert "Weights: computed for the edited recipe, which is not committed" in grown.ok("status")
    assert grown.ok("switch", "main").splitlines()[:3] == listed


@pytest.mark.parametrize("words", [["commit", "--allow-empty", "-m", "x"], ["revert", "HEAD"]])
def test_a_commit_whose_weights_fail_is_reported_with_the_failure(
    grown: CommandLine, words: list[str]
) -> None:
    grown.ok("config", "commit.checkout", "true")
    stranger = grown.directory / "other.safetensors"
    stranger.write_bytes(b"")
    said = grown(*words)
    head = grown.ok("rev-parse", "HEAD").strip()
    assert said.exit_code == 1
    assert said.stdout.startswith(f"[main {head[:8]}] ")
    assert said.stderr.startswith("persona: the commit is made, but its weights could not be computed: ")
    answer = grown("--json", "commit", "--allow-empty", "-m", "y")
    value = json.loads(answer.stdout)
    assert (answer.exit_code, value["id"]) == (1, grown.ok("rev-parse", "HEAD").strip())
    assert (value["error"]["exit"], value["checkout"]) == (1, None)
    stranger.unlink()
    value = grown.json("commit", "--allow-empty", "-m", "z")
    assert value["checkout"]["weights"] == grown.json("digest")["weights"]
    assert "error" not in value


def test_a_commit_says_what_changed_before_it_says_what_was_computed(grown: CommandLine) -> None:
    grown.ok("config", "commit.checkout", "true")
    grown.ok("set", "listening", "--alpha", "0.25")
    head, change, work, digest = grown.ok("commit", "-m", "less").splitlines()
    assert head.endswith("less")
    assert "listening" in change
    assert "computed" in work
    assert digest.startswith("blake3:")


def test_a_base_without_a_config_is_noted(persona: CommandLine) -> None:
    result = persona("init", "../bare", "--base", "../base/model.safetensors")
    assert result.exit_code == 0
    assert "no config.json" in result.stderr
    assert "config.json" not in persona("init", "../whole", "--base", "../base").stderr


def test_a_missing_path_is_missing_before_it_is_one_that_gives_no_name(persona: CommandLine) -> None:
    assert "no such file" in persona.refused(4, "init", "../new", "--base", "/not-there")
    assert "no such file" in persona.refused(4, "add", "../-not-there")


def test_init_in_a_repository_says_that_it_is_one(persona: CommandLine) -> None:
    for words in (["init"], ["init", "--base", "../base"], ["init", "--base", "../nowhere"]):
        assert "is a persona repository already" in persona.refused(1, *words)


def test_a_file_that_is_no_index_is_not_called_one(persona: CommandLine) -> None:
    assert "is not an index of weights" in persona.refused(
        4, "init", "../new", "--base", "../base/config.json"
    )


def test_a_long_name_is_quoted_to_its_end(persona: CommandLine) -> None:
    for words in (
        ["branch", "b" * 300],
        ["log", "r" * 300],
        ["mv", "listening", "v" * 300],
        ["cat-file", "-p", "c" * 300],
    ):
        sentence = persona("-q", *words).stderr
        assert sentence.count("'") % 2 == 0, sentence
