"""Status, log, show, diff, vectors and the plumbing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.checkpoints import write_model
from tests.cli.command_line import BASE, CommandLine

FULL_ID = r"[0-9a-f]{64}"


def test_a_fresh_repository_is_clean(persona: CommandLine) -> None:
    said = persona.ok("status")
    assert said.startswith("On branch main\n")
    assert "Weights: absent" in said
    assert said.endswith("nothing to commit, work tree clean\n")


def test_status_lists_what_the_next_commit_holds(grown: CommandLine) -> None:
    grown.ok("set", "listening", "--alpha", "0.25")
    grown.ok("set", "--merge", "density=0.2")
    (grown.directory / "chat_template.jinja").write_text("bye\n")
    said = grown.ok("status")
    assert "Changes to be committed:" in said
    assert "\tvector:     listening  α 0.50 → 0.25\n" in said
    assert "\trule:       density 1.00 → 0.20\n" in said
    assert "\tmodified:   chat_template.jinja\n" in said
    answer = grown.json("status")
    assert (answer["branch"], answer["recipe_changed"]) == ("main", True)
    assert answer["files_changed"] == ["chat_template.jinja"]


def test_status_follows_the_weights(grown: CommandLine) -> None:
    def state() -> str:
        answer: str = grown.json("status")["weights"]["state"]
        return answer

    grown.ok("checkout")
    assert state() == "clean"
    grown.ok("set", "listening", "--alpha", "0.25")
    grown.ok("checkout")
    assert state() == "uncommitted"
    grown.ok("commit", "-m", "quieter")
    assert state() == "clean"
    grown.ok("switch", "-c", "other", "HEAD~1")
    assert state() == "stale"


def test_log_is_written_as_git_does(grown: CommandLine) -> None:
    said = grown.ok("log").splitlines()
    assert re.fullmatch(rf"commit {FULL_ID}", said[0])
    assert said[1] == "Author: A. Tester <tester@example.org>"
    assert re.fullmatch(r"Date:   \w{3} \w{3} \d{1,2} [\d:]{8} \d{4} [+-]\d{4}", said[2])
    assert said[3:6] == ["", "    a little less", ""]


def test_log_on_one_line(grown: CommandLine) -> None:
    said = grown.ok("log", "--oneline").splitlines()
    assert [line[9:] for line in said[:2]] == ["a little less", "listen before answering"]
    assert grown.ok("log", "--oneline", "--decorate").splitlines()[0][8:] == " (HEAD -> main) a little less"


def test_log_takes_numbers_ranges_and_names(grown: CommandLine) -> None:
    grown.ok("commit", "../suggesting", "-m", "more")
    assert len(grown.json("log", "-n", "2")) == len(grown.json("log", "-2")) == 2
    assert [entry["message"].strip() for entry in grown.json("log", "HEAD~2..HEAD")] == [
        "more",
        "a little less",
    ]
    touched = grown.json("log", "--vector", "listening")
    assert [entry["message"].strip() for entry in touched] == ["a little less", "listen before answering"]
    assert grown.json("log", "--since", "2100-01-01") == []
    assert len(grown.json("log", "--until", "2100-01-01")) == 4


def test_log_draws_branches(grown: CommandLine) -> None:
    grown.ok("switch", "-c", "other", "HEAD~1")
    grown.ok("commit", "../suggesting", "-m", "more")
    drawn = grown.ok("log", "--oneline", "--graph", "--all").splitlines()
    assert [re.sub(r"[0-9a-f]{8} .*", "", line) for line in drawn] == ["* ", "| * ", "|/", "* ", "* "]
    long = grown.ok("log", "--graph", "--all").splitlines()
    assert long[0].startswith("* commit ")
    assert long[1].startswith("| Author: ")


def test_log_draws_what_a_filter_leaves(grown: CommandLine) -> None:
    grown.ok("commit", "../suggesting", "-m", "more")
    drawn = grown.ok("log", "--oneline", "--graph", "--vector", "listening").splitlines()
    assert [line[:2] for line in drawn] == ["* ", "* "]


def test_log_with_patches_shows_the_change_of_each_commit(grown: CommandLine) -> None:
    said = grown.ok("log", "-p", "-1").splitlines()
    assert "-alpha = 1.00" in said
    assert "+alpha = 0.50" in said


def test_log_in_json_has_the_whole_recipe(grown: CommandLine) -> None:
    entry = grown.json("log")[0]
    assert set(entry) == {
        "id",
        "parents",
        "author",
        "date",
        "committer",
        "committer_date",
        "message",
        "recipe",
    }
    assert set(entry["author"]) == {"name", "email"}
    assert set(entry["recipe"]) == {"base", "rules", "vectors"}
    vector = entry["recipe"]["vectors"]["listening"]
    assert set(vector) == {"id", "alpha", "density", "only", "except", "join"}


def test_show_heads_a_diff_with_its_commit(grown: CommandLine) -> None:
    said = grown.ok("show", "HEAD~1")
    assert "    listen before answering\n" in said
    assert "+[vectors.listening]\n" in said
    assert " vectors.listening | added\n" in grown.ok("show", "HEAD~1", "--stat")
    answer = grown.json("show")
    assert answer["diff"]["vectors"][0]["change"] == "changed"


def test_diff_shows_terms_rules_and_files(grown: CommandLine) -> None:
    (grown.directory / "chat_template.jinja").write_text("bye")
    grown.ok("set", "--merge", "density=0.2")
    grown.ok("rm", "listening")
    said = grown.ok("diff").splitlines()
    assert said[0].startswith("diff recipe ")
    for line in (
        "-density = 1.00",
        "+density = 0.20",
        "-[vectors.listening]",
        "-alpha = 0.50",
        "-hello",
        "+bye",
    ):
        assert line in said
    assert said[-1] == "\\ No newline at end of file"
    stat = grown.ok("diff", "--stat").splitlines()
    assert " vectors.listening   | removed" in stat
    assert stat[-1] == " 1 vector, 1 rule, 1 file changed"


def test_diff_of_two_revisions(grown: CommandLine) -> None:
    answer = grown.json("diff", "HEAD~1", "HEAD")
    assert set(answer) == {"from", "to", "rules", "vectors", "files"}
    assert answer["vectors"] == [
        {"name": "listening", "change": "changed", "from": {"alpha": 1.0}, "to": {"alpha": 0.5}}
    ]
    assert grown.json("diff", "HEAD~1..HEAD") == answer


def test_diff_exits_with_1_only_when_asked(grown: CommandLine) -> None:
    assert grown("diff", "--exit-code").exit_code == 0
    grown.ok("set", "listening", "--alpha", "0.25")
    assert grown("diff").exit_code == 0
    assert grown("diff", "--exit-code").exit_code == 1
    assert grown("diff", "--exit-code", "--json").exit_code == 1


def test_colour_is_for_terminals(grown: CommandLine) -> None:
    grown.ok("rm", "listening")
    assert "\x1b" not in grown.ok("diff") + grown.ok("log") + grown.ok("status")


def test_vectors_are_listed_and_shown(grown: CommandLine) -> None:
    (vector,) = grown.json("vector", "ls")
    keys = "name id kind base tensors elements changed_fraction raw_bytes stored_bytes l2 ranks"
    assert list(vector) == keys.split()
    assert (vector["name"], vector["kind"], vector["raw_bytes"]) == ("listening", "delta", 24)
    shown = grown.json("vector", "show", vector["id"][:8])
    assert {key: shown[key] for key in vector} == vector
    assert grown.ok("vector", "ls").splitlines()[1].startswith("*  listening  ")
    assert "Changes:  1 tensor" in grown.ok("vector", "show", "listening")
    assert "listening" in grown.refused(1, "vector", "rm", "listening")


def test_a_part_of_a_name_is_no_name(grown: CommandLine) -> None:
    told = grown.refused(3, "vector", "show", "listen")
    assert "no vector has the name 'listen' or an id that begins with it" in told
    assert "`persona vector ls` lists them" in told


def test_an_unknown_revision_may_be_a_branch_or_a_commit(grown: CommandLine) -> None:
    told = grown.refused(3, "switch", "nowhere")
    assert "`persona branch` lists the branches, and `persona log --all` the commits" in told


def test_branches(grown: CommandLine) -> None:
    assert grown.ok("branch") == "* main\n"
    grown.ok("branch", "warm", "HEAD~1")
    assert grown.ok("branch").splitlines() == ["* main", "  warm"]
    assert re.fullmatch(r"\* main [0-9a-f]{8} a little less", grown.ok("branch", "-v").splitlines()[0])
    grown.ok("branch", "-m", "warm", "cold")
    assert grown.ok("switch", "cold") == "Switched to branch 'cold'\n"
    assert grown.ok("branch", "--show-current") == "cold\n"
    assert grown.ok("switch", "-") == "Switched to branch 'main'\n"
    assert grown.ok("branch", "-d", "cold").startswith("Deleted branch cold (was ")
    assert [branch["name"] for branch in grown.json("branch")] == ["main"]
    assert grown.refused(1, "branch", "-d", "main")


def test_a_detached_head_is_listed_with_the_branches(grown: CommandLine) -> None:
    assert grown.ok("switch", "--detach", "HEAD~1").startswith("HEAD is now at ")
    assert grown.ok("branch").startswith("* (HEAD detached at ")
    grown.ok("switch", "main")
    for command in (["switch", "--detach", "main"], ["checkout", "HEAD~1", "--no-weights"]):
        assert re.search(r"^HEAD detached at [0-9a-f]{8} ", grown.ok(*command), re.MULTILINE)
    assert grown.json("switch", "-d", "main")["detached"] is True
    assert grown.json("checkout", "main", "--no-weights")["head"]["detached"] is False


def test_where_one_already_is_and_what_is_new_is_said(grown: CommandLine) -> None:
    assert grown.ok("switch", "main") == "Already on 'main'\n"
    assert grown.ok("checkout", "HEAD", "--no-weights").startswith("Already on 'main'\n")
    assert grown.ok("switch", "-c", "one") == "Switched to a new branch 'one'\n"
    assert grown.ok("checkout", "-b", "two", "--no-weights").startswith("Switched to a new branch 'two'\n")


def test_several_names_go_all_or_none_and_are_told(grown: CommandLine) -> None:
    for verb in ("branch", "tag"):
        grown.ok(verb, "one")
        grown.ok(verb, "two")
        assert "nope" in grown.refused(3, verb, "-d", "one", "nope")
        assert {ref["name"] for ref in grown.json(verb)} >= {"one", "two"}
        assert set(grown.json(verb, "-d", "one", "two")["deleted"]) == {"one", "two"}
    assert "nope" in grown.refused(3, "rm", "listening", "nope")
    assert grown.ok("status").endswith("nothing to commit, work tree clean\n")


def test_a_head_whose_branch_is_gone_leaves_the_list_of_branches(grown: CommandLine) -> None:
    grown.ok("branch", "other")
    (grown.directory / ".persona" / "refs" / "heads" / "main").unlink()
    said = grown("branch")
    assert (said.exit_code, said.stdout) == (0, "  other\n")
    way_out = re.search(r"persona branch main ([0-9a-f]{8})", grown.refused(5, "status"))
    assert way_out is not None
    assert way_out[0] in said.stderr
    assert grown.ok("reflog", "main").startswith(way_out[1])
    grown.ok("branch", "main", way_out[1])
    assert grown.ok("status").startswith("On branch main\n")


def test_tags(grown: CommandLine) -> None:
    grown.ok("tag", "v1")
    grown.ok("tag", "-a", "v2", "HEAD~1", "-m", "the first")
    assert grown.ok("tag") == "v1\nv2\n"
    assert grown.ok("tag", "-l", "*2") == "v2\n"
    assert grown.ok("rev-parse", "v2") == grown.ok("rev-parse", "HEAD~1")
    assert grown.ok("tag", "-d", "v1").startswith("Deleted tag 'v1' (was ")


def test_reset_moves_the_branch(grown: CommandLine) -> None:
    before = grown.ok("rev-parse", "HEAD")
    assert grown.ok("reset", "--hard", "HEAD~1").endswith(" listen before answering\n")
    assert grown.json("status")["recipe_changed"] is False
    assert grown.ok("reflog").splitlines()[0].endswith(" HEAD@{0}: reset: moving to HEAD~1")
    grown.ok("reset", "--soft", "HEAD@{1}")
    assert grown.ok("rev-parse", "HEAD") == before
    assert grown.json("status")["recipe_changed"] is True


def test_the_reflog_abbreviates_ids_but_for_those_in_a_commits_subject(grown: CommandLine) -> None:
    id = grown.ok("rev-parse", "HEAD").strip()
    grown.ok("commit", "--allow-empty", "-m", f"as in {id}")
    grown.ok("switch", "-d", id)
    grown.ok("switch", "main")
    assert [line.split(": ", 1)[1] for line in grown.ok("reflog", "-n", "3").splitlines()] == [
        f"checkout: moving from {id[:8]} to main",
        f"checkout: moving from main to {id[:8]}",
        f"commit: as in {id}",
    ]
    assert grown.json("reflog", "-n", "1")[0]["message"] == f"checkout: moving from {id} to main"


def test_an_ambiguous_name_is_warned_of_on_stderr(grown: CommandLine) -> None:
    grown.ok("tag", "both", "HEAD~1")
    grown.ok("branch", "both", "HEAD")
    result = grown("rev-parse", "both")
    assert result.stdout == grown.ok("rev-parse", "HEAD~1")
    assert result.stderr == "both is a tag and a branch: the tag is taken; refs/heads/both is the branch\n"
    assert grown("rev-parse", "-q", "both").stderr == ""
    assert "the branch is taken" in grown("checkout", "--no-weights", "both").stderr


def test_reflog_in_json(grown: CommandLine) -> None:
    entries = grown.json("reflog", "main", "-n", "2")
    assert [entry["selector"] for entry in entries] == ["main@{0}", "main@{1}"]
    assert set(entries[0]) == {"selector", "id", "previous", "name", "email", "date", "message"}


def test_settings(grown: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    grown.ok("config", "--global", "user.name", "Ada")
    assert grown.ok("config", "user.name") == "Ada\n"
    grown.ok("config", "user.name", "Bob")
    assert grown.ok("config", "user.name") == "Bob\n"
    assert grown.ok("config", "--global", "user.name") == "Ada\n"
    assert grown.json("config", "--list")["user.name"] == "Bob"
    grown.ok("config", "--unset", "user.name")
    assert grown.ok("config", "user.name") == "Ada\n"
    assert CommandLine(tmp_path).ok("config", "--global", "--list") == "user.name=Ada\n"
    assert grown.refused(3, "config", "--unset", "user.email")


@pytest.mark.parametrize("value", ["-0.5", "-.5", "-1e2"])
def test_a_setting_may_be_a_negative_number(grown: CommandLine, value: str) -> None:
    grown.ok("config", "merge.lambda", value)
    assert grown.ok("config", "merge.lambda") == f"{value}\n"
    grown.refused(2, "config", "merge.lambda", "--nonsense")


def test_checkout_takes_its_defaults_from_the_settings(grown: CommandLine) -> None:
    grown.ok("config", "checkout.max-shard-size", "16B")
    grown.ok("config", "checkout.threads", "1")
    assert "model.safetensors.index.json" in grown.json("checkout")["files"]
    assert grown.json("checkout", "--max-shard-size", "1GB")["files"] == ["model.safetensors"]
    assert "checkout.threads" in grown.refused(4, "config", "checkout.threads", "many")
    config = grown.directory / ".persona" / "config"
    config.write_text(config.read_text().replace("threads = 1", 'threads = "many"'))
    assert "checkout.threads" in grown.refused(4, "checkout")


def test_a_repository_begins_with_the_merge_rules_of_the_settings(
    outside: CommandLine, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(models / "settings"))
    for key, value in {"preset": "paper", "density": "0.3", "merge": "sum"}.items():
        outside.ok("config", "--global", f"merge.{key}", value)
    outside.ok("init", "bot", "--base", "base")
    bot = CommandLine(models / "bot")
    written = '[merge]\npreset = "paper"\ndensity = 0.3\nmerge = "sum"\n'
    assert (bot.directory / "recipe.toml").read_text() == f'base = "base"\n\n{written}'
    rules = bot.json("log")[0]["recipe"]["rules"]
    assert (rules["preset"], rules["density"], rules["merge"]) == ("paper", 0.3, "sum")
    assert bot.json("status")["recipe_changed"] is False
    own = models / "settings" / "persona" / "config"
    own.write_text(own.read_text().replace("0.3", "2"))
    assert outside.refused(4, "init", "other", "--base", "base").startswith("config merge.density: ")
    assert not (models / "other").exists()
    assert "nothing to commit" in bot.refused(1, "commit", "-m", "x")


def test_plumbing(grown: CommandLine) -> None:
    id = grown.ok("rev-parse", "HEAD").strip()
    assert re.fullmatch(FULL_ID, id)
    assert grown.ok("rev-parse", "--short", "HEAD") == f"{id[:8]}\n"
    assert grown.ok("cat-file", "-t", id[:10]) == "commit\n"
    assert "a little less" in grown.ok("cat-file", "-p", "HEAD")
    assert int(grown.ok("cat-file", "-s", "HEAD")) > 100
    assert set(grown.json("cat-file", "HEAD")) == {"id", "kind", "size", "text"}
    assert set(grown.json("count-objects")) == {"objects", "packs", "bytes"}
    assert re.fullmatch(r"\d+ objects, \d+ packs?, .+\n", grown.ok("count-objects"))


def test_fsck_of_a_whole_repository(grown: CommandLine) -> None:
    answer = grown.json("fsck", "--full")
    assert (answer["ok"], answer["problems"]) == (True, [])
    assert "all whole" in grown.ok("fsck")


def test_fsck_of_a_damaged_one_exits_with_5(grown: CommandLine) -> None:
    (pack,) = list((grown.directory / ".persona" / "packs").glob("*.pack"))[:1]
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    result = grown("fsck", "--full")
    assert result.exit_code == 5
    assert "damaged" in result.stdout


def test_the_advice_for_a_damaged_vector_mends_it(persona: CommandLine) -> None:
    packs = persona.directory / ".persona" / "packs"
    before = set(packs.iterdir())
    persona.ok("commit", "../listening", "-m", "listen")
    digest = persona.ok("digest")
    for file in set(packs.iterdir()) - before:
        file.unlink()
    for command in ("digest", "checkout"):
        assert "\nhint: `persona fsck` lists what is damaged, and `persona add PATH`" in persona.refused(
            5, command
        )
    assert 'use "persona add PATH" with its fine-tune' in persona("fsck").stdout
    persona.ok("add", "../listening")
    assert persona.ok("digest") == digest
    persona.ok("fsck")


def test_quiet_leaves_reports_out_and_answers_in(grown: CommandLine) -> None:
    assert grown.ok("-q", "commit", "--allow-empty", "-m", "x") == ""
    assert grown.ok("commit", "--quiet", "--allow-empty", "-m", "x") == ""
    assert grown.ok("-q", "log", "--oneline", "-1") != ""


def test_a_quiet_diff_prints_nothing_and_its_exit_code_tells(grown: CommandLine) -> None:
    for flag in ("-q", "--quiet"):
        same, other = grown("diff", flag), grown("diff", "HEAD~1", flag)
        assert (same.exit_code, same.output) == (0, "")
        assert (other.exit_code, other.output) == (1, "")
    (grown.directory / "graph").mkdir()
    (grown.directory / "graph" / "new.md").write_text("new\n")
    assert (grown("-q", "diff").exit_code, grown("-q", "diff").output) == (1, "")
    assert grown("diff", "--exit-code").exit_code == 1
    answer = grown("diff", "--json", "-q")
    assert (answer.exit_code, '"graph/new.md"' in answer.stdout) == (1, True)


def test_a_diff_of_some_files_leaves_out_the_others(grown: CommandLine) -> None:
    grown.ok("set", "listening", "--alpha", "0.25")
    (grown.directory / "graph").mkdir()
    (grown.directory / "graph" / "new.md").write_text("new\n")
    assert grown.json("diff", "--", "graph")["files"] == ["graph/new.md"]
    assert grown.json("diff", "--", "graph")["vectors"] == []
    assert grown.json("diff", "HEAD~1", "--", "recipe.toml", "config.json")["vectors"] != []
    below = CommandLine(grown.directory / "graph")
    assert below.json("diff", "--", "new.md")["files"] == ["graph/new.md"]
    assert grown("diff", "-q", "--", "config.json").exit_code == 0
    assert "files" in grown.refused(2, "diff", "--weights", "--", "graph")


def test_a_missing_recipe_is_said_once_with_what_brings_it_back(grown: CommandLine) -> None:
    grown.ok("checkout")
    (grown.directory / "recipe.toml").unlink()
    said = grown.ok("status")
    assert said.count("persona restore recipe.toml") == 1
    assert said.endswith("Weights: those of HEAD\n")
    grown.ok("restore", "recipe.toml")
    assert "work tree clean" in grown.ok("status")


def test_status_lists_what_is_new_untracked_left_out_or_in_the_way(grown: CommandLine) -> None:
    root = grown.directory
    for name in ("notes.md", "tokenizer.json", "other.safetensors", "log-\x9b1m.txt"):
        (root / name).write_text("text\n")
    (root / "graph").mkdir()
    (root / "graph" / "a\\b").write_text("text\n")
    for number in range(30):
        (root / f"run-{number:02}.log").write_text("text\n")
    said = grown.ok("status")
    assert "\tnew file:   tokenizer.json\n" in said
    assert "\tnotes.md\n" in said
    assert "and 12 more\n" in said
    assert "\tgraph/a\\b  (it is empty, absolute, or holds a backslash or NUL)\n" in said
    assert "no index lists other.safetensors" in said
    assert "\x9b" not in said
    answer = grown.json("status")
    assert answer["files_changed"] == ["tokenizer.json"]
    assert len(answer["untracked"]) == 32
    assert answer["left_out"][0]["path"] == "graph/a\\b"
    assert answer["in_the_way"] == ["other.safetensors"]
    grown.ok("add", "notes.md")
    assert "\tnew file:   notes.md\n" in grown.ok("status")
    assert "delete it" in grown.refused(3, "rm", "notes.md")


def test_log_of_some_files_has_the_commits_that_changed_them(grown: CommandLine) -> None:
    (grown.directory / "notes.md").write_text("one\n")
    grown.ok("commit", "notes.md", "-m", "a note")
    grown.ok("set", "listening", "--alpha", "0.25")
    (grown.directory / "notes.md").write_text("two\n")
    grown.ok("commit", "-m", "both")

    def subjects(*words: str) -> list[str]:
        return [line[9:] for line in grown.ok("log", "--oneline", *words).splitlines()]

    assert subjects("--", "notes.md") == ["both", "a note"]
    assert subjects("-1", "HEAD~1", "--", "notes.md", "config.json") == ["a note"]
    assert subjects("--", "recipe.toml")[:2] == ["both", "a little less"]
    assert subjects("--", "nothing") == []
    said = grown.ok("log", "-p", "-1", "--", "notes.md")
    assert "+two" in said
    assert "alpha" not in said
    drawn = grown.ok("log", "--oneline", "--graph", "--", "notes.md").splitlines()
    assert [line[:2] for line in drawn] == ["* ", "* "]


def test_an_expression_is_derived_from_words_of_the_shell(grown: CommandLine) -> None:
    grown.ok("add", "../suggesting")
    shown = grown.ok("vector", "derive", "gap", "listening - suggesting")
    assert shown == " + gap  α 1.00   listening - suggesting\n"
    assert (
        grown.json("vector", "derive", "less", "-listening", "--alpha", "-0.5")["expression"] == "-listening"
    )
    words = grown.json("vector", "derive", "more", "--alpha", "-2", "listening", "-", "2", "*", "suggesting")
    assert (words["alpha"], words["expression"]) == (-2.0, "listening - 2 * suggesting")
    assert "'-x' cannot name a vector" in grown.refused(4, "vector", "derive", "-x", "listening")
    told = grown.refused(4, "vector", "derive", "x", "listening * suggesting")
    assert told.splitlines()[1:] == ["  listening * suggesting", "            ^"]
    assert "did you mean listening?" in grown.refused(3, "vector", "derive", "x", "listning")
    assert "did you mean --alpha" in grown.refused(2, "vector", "derive", "x", "listening", "--alhpa", "1")


def test_identify_names_the_commit_the_vector_or_the_base(grown: CommandLine) -> None:
    first = grown.ok("rev-parse", "main~1")[:8]
    vector = grown.json("vector", "show", "listening")["id"][:8]
    *lines, digest = grown.ok("identify", "../listening").splitlines()
    assert lines == [
        f"commit  {first}  main~1     listen before answering",
        f"vector  {vector}  listening",
    ]
    assert digest == grown.ok("digest", "main~1").strip()
    assert grown.json("identify", "../base")["found"][-1]["kind"] == "base"


def test_identify_says_what_is_nearest_and_exits_with_1(grown: CommandLine) -> None:
    first = grown.ok("rev-parse", "main~2")[:8]
    result = grown("identify", "../suggesting")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[:-1] == [
        "no commit, vector or base here has a tensor in common with these weights"
    ]
    note, hint = result.stderr.splitlines()
    assert note == "these weights have the same tensors as the base base, with other numbers"
    assert re.fullmatch(r"hint: `persona add \S+/suggesting` imports them as a vector", hint)
    grown.ok("set", "listening", "--alpha", "0.25")
    grown.ok("checkout")
    result = grown("identify", ".")
    assert result.exit_code == 1
    assert "hint: `persona status` says where weights in the work tree come from" in result.stderr
    write_model(grown.directory.parent / "other", BASE | {"b": [1.0, 2.5], "c": [1.0]})
    result = grown("identify", "../other")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[:-1] == [
        "no commit, vector or base here has these weights",
        f"nearest: commit {first} (main~2) Begin with base",
        "1 of 3 tensors are equal",
        "differs: b",
        "only here: c",
    ]
    assert grown("identify", "../other", "--json").exit_code == 1


def test_identify_tells_the_dtype_of_a_copy(grown: CommandLine) -> None:
    grown.ok("checkout", "-o", "../half", "--dtype", "float16")
    assert "the weights are float16; the numbers are the same" in grown.ok("identify", "../half")


def test_a_new_vector_says_which_kinds_of_modules_it_does_not_change(persona: CommandLine) -> None:
    told = persona.ok("add", "../listening").splitlines()
    assert told[0].startswith(" + listening  α 1.00 ")
    assert told[1] == "              unchanged: b"
    assert len(told) == 2
    again = persona.json("commit", "-m", "listen")["vectors"][0]
    assert again["unchanged"] == ["b"]
    assert "unchanged" not in persona.ok("commit", "../suggesting", "-m", "suggest less")


def test_branches_and_tags_are_listed_by_their_history(grown: CommandLine) -> None:
    grown.ok("branch", "old", "HEAD~1")
    grown.ok("tag", "v1", "HEAD~1")
    grown.ok("tag", "v2")
    assert grown.ok("branch", "--contains") == "* main\n"
    assert grown.ok("branch", "--merged", "old") == "  old\n"
    assert grown.ok("branch", "--no-merged", "old") == "* main\n"
    assert grown.ok("branch", "--no-contains", "main") == "  old\n"
    assert grown.ok("tag", "--contains") == "v2\n"
    assert grown.ok("tag", "--merged", "old") == "v1\n"
    grown.ok("switch", "--detach", "main")
    assert grown.ok("branch", "--merged", "old") == "  old\n"
    assert "(HEAD detached at" in grown.ok("branch", "--contains", "main")
    assert "(HEAD" not in grown.ok("branch", "--list", "o*")
