"""`repo.build`: from patterns to a personality, and only what is not up to date."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import persona
from persona.behaviour.building.results import BuildPlan, Built
from persona.errors import InvalidInput, Refused, UnknownName
from persona.progress import Phase
from tests.behaviour.bots import (
    BRIEF_DATA,
    PIRATE_DATA,
    PIRATE_PROBES,
    PLAIN,
    TOPICS,
    ChatBot,
    chat_bot,
    dialogue,
)
from tests.cli.command_line import CommandLine
from tests.disks import Cut

SETTINGS = 'steps = 24\nlr = 4e-3\nbatch = 6\noptimizer = "adamw"'
OPTIONS: dict[str, Any] = {"threads": 1, "max_damage": 9.0}


def build(bot: ChatBot, *keys: str, **options: Any) -> Built:
    with persona.open(bot.root) as repo:
        found = repo.build(*keys, **{**OPTIONS, **options})
        assert isinstance(found, Built)
        return found


def plan(bot: ChatBot, *keys: str, **options: Any) -> list[tuple[str, str, str]]:
    with persona.open(bot.root) as repo:
        found = repo.build(*keys, dry_run=True, **{**OPTIONS, **options})
        assert isinstance(found, BuildPlan)
        return [(one.name, one.action, one.why) for one in found.patterns]


def actions(found: Built) -> dict[str, str]:
    return {one.name: one.action for one in found.patterns}


def head(bot: ChatBot) -> str:
    return bot.run.ok("rev-parse", "HEAD").strip()


def recipe(bot: ChatBot, rev: str | None = None) -> dict[str, Any]:
    with persona.open(bot.root) as repo:
        if rev is None:
            return {name: (term.id, term.alpha) for name, term in repo.recipe.items()}
        return {name: (term.id, term.alpha) for name, term in repo[rev].recipe.vectors.items()}


@pytest.fixture(scope="module")
def whole(chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ChatBot, Built]:
    """A personality of two patterns, built from an empty repository; it is only read."""
    bot = chat_bot(tmp_path_factory.mktemp("built"), chat_base)
    bot.brief(settings=SETTINGS)
    bot.pirate(settings=SETTINGS)
    return bot, build(bot)


@pytest.fixture
def built(whole: tuple[ChatBot, Built], tmp_path: Path) -> ChatBot:
    """A copy of it, to change."""
    bot, _ = whole
    shutil.copytree(bot.root, tmp_path / "bot", symlinks=True)
    return ChatBot(tmp_path, bot.base, CommandLine(tmp_path / "bot"))


def test_one_build_goes_from_patterns_to_weights(whole: tuple[ChatBot, Built]) -> None:
    bot, found = whole
    assert actions(found) == {"brief": "trained", "pirate": "trained"}
    assert [(one.verdict, one.alpha, one.steps) for one in found.patterns] == [("pass", 1.0, 24)] * 2
    assert all(one.effect is not None and one.damage is not None for one in found.patterns)
    assert (found.verdict, found.refused) == ("pass", False)
    assert found.commit is not None
    assert found.checkout is not None
    with persona.open(bot.root) as repo:
        assert repo.head().id == found.commit.id
        status = repo.status()
        assert (status.recipe_changed, status.files_changed) == (False, ())
        assert status.weights.state == "clean"
        assert [one.state for one in repo.graph.status().trainables] == ["verified", "verified"]
        message = repo["HEAD"].message
        (entry, *_) = repo.log()
        assert entry.scores is not None
        assert entry.scores.verdict == "pass"
    assert message.startswith("Build brief, pirate\n\nbrief: trained in 24 steps, effect +")


ALONE = """
import json, sys
from persona.cli.main import cli
try:
    cli.main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code or 0
print(json.dumps({"code": code, "modules": [name for name in sys.modules if "." not in name]}))
"""


def test_a_second_build_has_nothing_to_do_and_loads_no_torch(whole: tuple[ChatBot, Built]) -> None:
    bot, _ = whole
    before = head(bot)
    words = ["-C", str(bot.root), "build", "--max-damage", "9"]
    for more, said in (([], "nothing to do: "), (["-n"], "nothing to do: ")):
        out = subprocess.run(
            [sys.executable, "-c", ALONE, *words, *more], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        found = json.loads(out[-1])
        assert out[0].startswith(said)
        assert found["code"] == 0
        assert not {"torch", "transformers", "numba"} & {*found["modules"]}
    assert head(bot) == before
    assert build(bot).did_nothing


def test_touched_text_makes_one_pattern_stale(built: ChatBot) -> None:
    before = recipe(built)
    file = built.root / "graph" / "pirate.md"
    file.write_text(file.read_text() + "And a parrot.\n")
    assert plan(built) == [("pirate", "train", "stale: text changed")]
    found = build(built)
    assert actions(found) == {"brief": "unchanged", "pirate": "trained"}
    assert recipe(built, "HEAD") == before  # the same data and settings
    assert found.commit is not None
    assert plan(built) == []


def test_a_file_that_was_only_saved_again_is_not_stale(built: ChatBot) -> None:
    for file in (built.root / "graph").rglob("*.*"):
        file.write_bytes(file.read_bytes())
    assert plan(built) == []


def test_changed_probes_are_measured_and_nothing_is_trained(built: ChatBot) -> None:
    built.lines("pirate.probes.jsonl", PIRATE_PROBES[1:])
    assert plan(built) == [("pirate", "measure", "not measured with the probes as they are")]
    found = build(built)
    assert actions(found) == {"brief": "unchanged", "pirate": "measured"}
    assert found.recipe is not None
    assert {effect.pattern: effect.margin and effect.margin.items for effect in found.recipe.own} == {
        "brief": 6,
        "pirate": 5,
    }


def test_terms_keep_alpha_and_join_and_other_vectors_stay(built: ChatBot, brief_tune: Path) -> None:
    built.run.ok("set", "pirate", "--alpha", "0.9", "--join", "add")
    built.run.ok("mv", "brief", "short")
    built.run.ok("add", brief_tune, "--name", "other", "--alpha", "0.1")
    built.lines("pirate.train.jsonl", PIRATE_DATA[1:])
    found = build(built)
    assert actions(found) == {"brief": "unchanged", "pirate": "trained"}
    with persona.open(built.root) as repo:
        terms = dict(repo["HEAD"].recipe.vectors.items())
    assert {name: term.alpha for name, term in terms.items()} == {"other": 0.1, "pirate": 0.9, "short": 1.0}
    assert terms["pirate"].join == "add"


def test_an_unwanted_pattern_is_subtracted_and_facets_are_built(built: ChatBot) -> None:
    built.pattern("bare", train=BRIEF_DATA[:2], front="sign = -1", settings="steps = 1")
    text = (built.root / "graph" / "bare.md").read_text()
    facet = '[facets.loud.data]\ntrain = "data/pirate.train.jsonl"\n[facets.loud.train]\nsteps = 1\n+++\nW'
    (built.root / "graph" / "bare.md").write_text(text.replace("+++\nW", facet))
    found = build(built, "bare", "bare#loud", verify=False, checkout=False)
    assert {one.name: one.alpha for one in found.patterns} == {"bare": -1.0, "bare#loud": -1.0}
    assert {*recipe(built, "HEAD")} == {"brief", "pirate", "bare", "bare#loud"}
    assert (found.verdict, found.recipe, found.checkout) == (None, None, None)
    assert found.commit is not None


def test_a_pattern_without_probes_is_taken_and_named(built: ChatBot) -> None:
    built.pattern("bare", train=BRIEF_DATA[:2], settings="steps = 1")
    found = build(built)
    assert [one.verdict for one in found.patterns] == ["unverified", "pass", "pass"]
    assert (found.verdict, found.refused) == ("unverified", False)
    assert any("bare has no probes" in note for note in found.notes)
    assert build(built).did_nothing


def test_two_patterns_with_one_vector_are_both_up_to_date_afterwards(built: ChatBot) -> None:
    built.pattern("sailor", train=PIRATE_DATA, probes=PIRATE_PROBES[1:], settings=SETTINGS)
    found = build(built)
    assert found.patterns[1].vector == found.patterns[2].vector
    assert [one.verdict for one in found.patterns] == ["pass", "pass", "pass"]
    assert build(built).did_nothing


# -- what does not pass


@pytest.fixture
def contrary(built: ChatBot) -> ChatBot:
    """With a pattern, before the others, whose data teach the opposite of what its probes ask for."""
    wrong = [{**line, "chosen": PLAIN, "rejected": line["chosen"], "check": None} for line in PIRATE_PROBES]
    probes = [{key: value for key, value in line.items() if value is not None} for line in wrong]
    built.pattern("aloof", train=PIRATE_DATA[:5], probes=probes, settings=SETTINGS)
    return built


def test_a_failing_pattern_is_refused_left_out_or_taken(contrary: ChatBot) -> None:
    before, text = head(contrary), (contrary.root / "recipe.toml").read_bytes()
    found = build(contrary)
    assert (found.verdict, found.refused, found.commit) == ("fail", True, None)
    assert (head(contrary), (contrary.root / "recipe.toml").read_bytes()) == (before, text)
    assert any("aloof fails: its effect is not above" in note for note in found.notes)
    assert plan(contrary) == [("aloof", "refuse", "failing")]
    assert build(contrary).refused  # without training it again

    found = build(contrary, keep_going=True)
    assert [(one.name, one.left_out) for one in found.patterns] == [
        ("aloof", True),
        ("brief", False),
        ("pirate", False),
    ]
    assert found.commit is not None
    assert "aloof" not in recipe(contrary, "HEAD")
    found = build(contrary, keep_going=True)
    assert (found.commit, found.did_nothing) == (None, True)

    found = build(contrary, force=True)
    assert actions(found) == {"aloof": "taken", "brief": "unchanged", "pirate": "unchanged"}
    assert (found.verdict, found.refused) == ("fail", False)
    assert "aloof" in recipe(contrary, "HEAD")
    assert build(contrary, force=True).did_nothing

    found = build(contrary, keep_going=True)
    assert "aloof" not in recipe(contrary, "HEAD")


def test_patterns_after_a_failing_one_wait_unless_the_build_keeps_going(contrary: ChatBot) -> None:
    contrary.lines("pirate.train.jsonl", PIRATE_DATA[1:])
    found = build(contrary)
    assert actions(found) == {"aloof": "trained", "brief": "unchanged", "pirate": "waiting"}
    found = build(contrary, keep_going=True)
    assert actions(found) == {"aloof": "unchanged", "brief": "unchanged", "pirate": "trained"}


def test_damage_above_the_limit_is_refused(built: ChatBot) -> None:
    found = build(built, max_damage=0.5)
    assert (found.verdict, found.refused) == ("fail", True)
    assert any("is above 0.5" in note for note in found.notes)


def test_a_recipe_that_fails_as_a_whole_is_written_and_not_committed(built: ChatBot) -> None:
    before = head(built)
    built.run.ok("set", "pirate", "--alpha", "4")
    limit = 1.05 * max(one.damage.ratio.mean for one in build(built).patterns if one.damage is not None)
    built.run.ok("reset", "--soft", before)
    built.lines("pirate.train.jsonl", PIRATE_DATA[1:])
    found = build(built, max_damage=limit)
    assert [one.verdict for one in found.patterns] == ["pass", "pass"]
    assert (found.verdict, found.refused, found.commit) == ("fail", True, None)
    assert head(built) == before
    assert recipe(built)["pirate"] == (found.patterns[1].vector, 4)
    assert build(built, max_damage=limit, force=True).commit is not None
    assert build(built, max_damage=limit).refused
    assert build(built, max_damage=limit, force=True).did_nothing


def test_too_few_probes_are_inconclusive(built: ChatBot) -> None:
    built.lines("pirate.probes.jsonl", PIRATE_PROBES[:2])
    found = build(built)
    assert (found.verdict, found.refused) == ("inconclusive", True)
    result = built.run("build", "--threads", "1", "--max-damage", "9")
    assert result.exit_code == 8


# -- what is refused before anything is trained


def test_a_graph_with_problems_is_refused_in_the_words_of_its_check(built: ChatBot) -> None:
    built.lines("pirate.train.jsonl", [*PIRATE_DATA, dialogue(TOPICS[6], "aye.")])
    with pytest.raises(InvalidInput, match=r"^graph/data/brief\.probes\.jsonl:1: the prompt of probe 'p0'"):
        build(built)
    with pytest.raises(InvalidInput):
        plan(built)


def test_unknown_keys_and_an_empty_graph_are_refused(built: ChatBot) -> None:
    with pytest.raises(UnknownName, match="'pirat'"):
        build(built, "pirat")
    for file in (built.root / "graph").glob("*.md"):
        file.unlink()
    with pytest.raises(UnknownName, match="there is nothing to build"):
        build(built)


def test_a_prepared_revert_has_to_be_committed_first(built: ChatBot) -> None:
    built.run.ok("revert", "-n", "pirate")
    with pytest.raises(Refused, match="revert"):
        build(built)


def test_a_bisect_has_to_be_ended_first(built: ChatBot) -> None:
    built.run.ok("bisect", "start")
    built.run.ok("set", "pirate", "--alpha", "0.9")
    with pytest.raises(Refused, match="bisect"):
        build(built)


# -- HEAD and the weights


def test_a_detached_head_moves_and_no_branch_does(built: ChatBot) -> None:
    built.run.ok("checkout", "HEAD~0", "--no-weights")
    main = built.run.ok("rev-parse", "main")
    built.run.ok("set", "pirate", "--alpha", "0.9")
    found = build(built, message="a little less", checkout=False)
    assert found.commit is not None
    assert found.commit.branch is None
    assert built.run.ok("rev-parse", "main") == main
    with persona.open(built.root) as repo:
        assert repo["HEAD"].message == "a little less\n"


def test_weights_that_are_missing_are_computed_again(built: ChatBot) -> None:
    (built.root / "model.safetensors").unlink()
    assert plan(built) == []
    found = build(built)
    assert (found.commit, found.did_nothing) == (None, False)
    assert found.checkout is not None
    assert build(built).did_nothing


def test_weights_edited_by_hand_stop_a_build_before_it_trains(built: ChatBot) -> None:
    build(built)
    file = built.root / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    built.lines("pirate.train.jsonl", PIRATE_DATA[1:])
    with pytest.raises(Refused, match="would be overwritten"):
        build(built, progress=never)


def never(phase: Phase, done: int, total: int) -> None:
    assert not phase.endswith("training pirate")


# -- builds that are cut short

KILLED = """
import os, signal, sys
import persona

def progress(phase, done, total):
    if phase == "pattern 2 of 2: training pirate" and done == 13:
        os.kill(os.getpid(), signal.SIGKILL)

with persona.open(sys.argv[1]) as repo:
    repo.build(threads=1, max_damage=9.0, progress=progress)
"""


def test_a_build_that_was_killed_goes_on(chat: ChatBot, whole: tuple[ChatBot, Built]) -> None:
    chat.brief(settings=SETTINGS)
    chat.pirate(settings=SETTINGS)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(chat.root)], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert plan(chat) == [
        ("brief", "take", "not in the recipe"),
        ("pirate", "train", "untrained; goes on from step 10"),
    ]
    steps: list[int] = []

    def progress(phase: Phase, done: int, total: int) -> None:
        if phase == "pattern 1 of 1: training pirate":
            steps.append(done)

    found = build(chat, progress=progress)
    assert actions(found) == {"brief": "taken", "pirate": "trained"}
    assert min(steps) == 11
    assert recipe(chat, "HEAD") == recipe(whole[0], "HEAD")


@pytest.mark.parametrize(
    "phase",
    ["pattern 1 of 1: training pirate", "pattern 1 of 1: measuring", "measuring", "merging"],
)
def test_a_build_that_is_cut_short_anywhere_ends_as_an_uninterrupted_one(built: ChatBot, phase: str) -> None:
    built.lines("pirate.train.jsonl", PIRATE_DATA[1:])
    built.lines("pirate.probes.jsonl", PIRATE_PROBES[1:])
    before = recipe(built)

    def progress(told: Phase, done: int, total: int) -> None:
        if told == phase and done:
            raise Cut

    with pytest.raises(Cut):
        build(built, progress=progress)
    found = build(built)
    assert found.verdict == "pass"
    assert build(built).did_nothing
    after = recipe(built, "HEAD")
    assert after["brief"] == before["brief"]
    assert after["pirate"][0] != before["pirate"][0]


# -- the command line


def test_the_command_prints_a_table_and_json(built: ChatBot) -> None:
    built.lines("pirate.probes.jsonl", PIRATE_PROBES[1:])
    words = ("build", "--threads", "1", "--max-damage", "9")
    listed = built.run.ok(*words, "--dry-run").splitlines()
    assert listed == [
        "pirate  measure  not measured with the probes as they are",
        "then: measure the recipe, commit, compute the weights",
    ]
    assert built.run.json(*words, "-n")["patterns"] == [
        {"name": "pirate", "action": "measure", "why": "not measured with the probes as they are"}
    ]
    lines = built.run.ok(*words).splitlines()
    assert lines[0].split() == ["PATTERN", "ACTION", "TIME", "α", "EFFECT", "LOSS"]
    assert [line.split()[:2] for line in lines[1:3]] == [["brief", "unchanged"], ["pirate", "measured"]]
    assert any(line.startswith("[main ") for line in lines)
    found = built.run.json(*words)
    assert [one["verdict"] for one in found["patterns"]] == ["pass", "pass"]
    assert (found["refused"], found["commit"], found["checkout"]) == (False, None, None)


def test_a_refusal_exits_with_1_and_says_what_to_do(contrary: ChatBot) -> None:
    words = ("build", "--threads", "1", "--max-damage", "9")
    result = contrary.run(*words)
    assert result.exit_code == 1
    assert "nothing was committed: aloof fails" in result.stderr
    assert "hint: `persona verify --vector aloof` shows it" in result.stderr
    assert contrary.run(*words, "-k").exit_code == 1
    assert contrary.run(*words, "-f").exit_code == 0
