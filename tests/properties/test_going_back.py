"""Any point of the history gives the bytes it gave, and three ways to its digest agree."""

from __future__ import annotations

import re

import pytest

from tests.checkpoints import digest_of_files
from tests.llamas import LlamaBot

WRITTEN = ["HEAD~1", "HEAD~2", "main^", "@~3", "HEAD^^", "main@{1}", "v1", ":/teach two", "@"]


def test_every_way_to_a_revision_gives_its_bytes(grown: LlamaBot) -> None:
    grown.run.ok("tag", "v1", "HEAD~2")
    digests = {}
    commits = [entry["id"] for entry in grown.run.json("log")]
    for id in commits:
        assert grown.checkout(id)["revision"] == id
        digests[id] = digest_of_files(grown.root)
    assert len(set(digests.values())) == 4
    for text in [*WRITTEN, commits[0][:6]]:
        grown.run.ok("switch", "main")
        id = grown.run.ok("rev-parse", text).strip()
        assert grown.run.json("digest", text) == {"revision": id, "weights": digests[id]}
        assert grown.checkout(text)["weights"] == digests[id]
        assert digest_of_files(grown.root) == digests[id]
        assert grown.run.json("digest")["weights"] == digests[id]


def test_checkout_prints_the_digest_of_the_files(grown: LlamaBot) -> None:
    printed = re.findall(r"blake3:[0-9a-f]{64}", grown.run.ok("checkout"))
    assert printed == [digest_of_files(grown.root)]
    assert grown.run.ok("digest", "HEAD").split()[-1] == printed[0]


def test_one_commit_back_and_a_reverted_name_are_the_earlier_bytes(grown: LlamaBot) -> None:
    grown.checkout("HEAD~1")
    earlier = grown.weights
    grown.checkout("main")
    assert not grown.holds(earlier)
    grown.run.ok("revert", "three")
    grown.checkout()
    assert grown.holds(earlier)
    grown.run.ok("revert", "HEAD")
    grown.run.ok("revert", "HEAD~2")
    grown.checkout()
    assert grown.holds(earlier)
    grown.run.ok("reset", "--hard", "HEAD~6")
    grown.checkout()
    assert grown.holds(grown.base)


@pytest.mark.parametrize("vector", [False, True], ids=["commit", "name"])
def test_a_revert_takes_no_uncommitted_edit_along(grown: LlamaBot, vector: bool) -> None:
    head = grown.run.ok("rev-parse", "HEAD")
    target = ["--vector", "one"] if vector else ["HEAD"]
    grown.run.ok("set", "two", "--alpha", "-0.25")
    assert "recipe.toml" in grown.run.refused(1, "revert", *target)
    grown.run.ok("restore", "recipe.toml")
    (grown.root / "chat_template.jinja").write_text("mine\n")
    assert "chat_template.jinja" in grown.run.refused(1, "revert", *target)
    assert grown.run.ok("rev-parse", "HEAD") == head
    assert grown.run.json("status")["files_changed"] == ["chat_template.jinja"]
    grown.run.ok("revert", "--no-commit", *target)
    assert (grown.root / "chat_template.jinja").read_text() == "mine\n"


def test_a_date_before_the_reflog_is_answered_with_a_warning(grown: LlamaBot) -> None:
    first = grown.run.ok("rev-parse", "HEAD~3")
    answer = grown.run("rev-parse", "main@{2001-01-01}")
    assert (answer.exit_code, answer.stdout) == (0, first)
    assert "only goes back to" in answer.stderr
    assert answer.stderr.count("only goes back to") == 1
    assert grown.run("rev-parse", "main@{now}").stderr == ""


def test_weights_of_an_edit_that_is_carried_along_are_not_called_stale(grown: LlamaBot) -> None:
    grown.run.ok("branch", "other")
    grown.run.ok("set", "one", "--alpha", "0.3")
    grown.checkout()
    assert grown.run.json("switch", "other")["weights"]["state"] == "uncommitted"
    assert grown.run.json("status")["weights"]["state"] == "uncommitted"


def test_a_name_longer_than_any_file_is_no_revision(grown: LlamaBot) -> None:
    assert "unknown revision" in grown.run.refused(3, "checkout", "x" * 5000)


def test_the_same_vector_again_is_not_shown_as_another(grown: LlamaBot) -> None:
    text = grown.run.ok("commit", "../one", "-n", "one", "--alpha", "0.2", "-m", "again")
    assert "→" not in text
    assert "~ one" in text


def test_a_setting_that_says_nothing_is_refused_before_anything_is_recorded(grown: LlamaBot) -> None:
    head = grown.run.ok("rev-parse", "HEAD")
    (grown.root / ".persona" / "config").write_text('[commit]\ncheckout = "maybe"\n')
    for command in (["commit", "--allow-empty", "-m", "x"], ["revert", "one"]):
        assert "commit.checkout" in grown.run.refused(4, *command)
    assert grown.run.ok("rev-parse", "HEAD") == head
    assert not grown.run.json("status")["recipe_changed"]
