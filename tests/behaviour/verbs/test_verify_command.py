"""`persona verify` as it is typed: its text, its JSON and its exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.behaviour.bots import PIRATE_DATA, PIRATE_PROBES, TOPICS, ChatBot, dialogue

RUN = """
import json, sys, time
started = time.process_time()
from persona.cli.main import cli
sys.argv = ["persona", *sys.argv[1:]]
try:
    cli.main()
except SystemExit as stop:
    code = stop.code or 0
sys.stdout.flush()
print()
print(json.dumps({"code": code, "seconds": time.process_time() - started, "modules": list(sys.modules)}))
"""


def verify(bot: ChatBot, *words: str, exits: int = 0) -> list[str]:
    """The lines that a verification prints."""
    result = bot.run("verify", "--threads", "1", *words)
    assert result.exit_code == exits, result.output
    return result.stdout.splitlines()


def test_a_verification_prints_effect_spill_damage_and_the_verdict_last(pirate: ChatBot) -> None:
    lines = verify(pirate)
    assert re.fullmatch(r"commit \w{8} against the base \(float32, cpu\)", lines[0])
    text = "\n".join(lines)
    assert re.search(r"^EFFECT +Δ MARGIN +SEEN +OTHER +RANDOM +CHECK", text, re.MULTILINE)
    number = r"\+\d+\.\d\d"
    row = rf"^pirate +{number} +\[{number}, {number}\] +{number} +{number} +< \S+ +0/6 → 6/6 +pass$"
    assert re.search(row, text, re.MULTILINE)
    assert re.search(r"^SPILL .*\nbrief ", text, re.MULTILINE)
    assert re.search(r"^loss ratio +\d\.\d{4} +\[.*\], at most 1\.02$", text, re.MULTILINE)
    assert lines[-1] == "pass"
    again = verify(pirate)
    assert "measured before" in again[0]
    assert again[1:] == lines[1:]
    assert verify(pirate, "-q") == again


def test_json_has_the_same_numbers(pirate: ChatBot) -> None:
    lines = verify(pirate, "--no-checks")
    found = pirate.run.json("verify", "--threads", "1", "--no-checks")
    assert found["verdict"] == "pass"
    assert found["measured_before"] is True
    assert [effect["pattern"] for effect in found["effects"]] == ["pirate", "brief"]
    assert f"{found['effects'][0]['margin']['mean']:+.2f}" in "\n".join(lines)


def test_the_matrix_has_a_row_for_each_vector(pirate: ChatBot, brief_tune: Path) -> None:
    pirate.run.ok("commit", brief_tune, "-m", "be brief")
    lines = verify(pirate, "--each", "--no-checks", "--max-damage", "2")
    head, *rows = [line.split() for line in lines[-3:]]
    assert head[:3] == ["VECTOR", "brief", "pirate"]
    assert [row[0] for row in rows] == ["brief", "pirate"]
    assert [row[-1] for row in rows] == ["pass", "pass"]
    assert rows[0][3] == "*"
    assert "measured before" not in lines[0]
    assert "measured before" in verify(pirate, "--each", "--no-checks", "--max-damage", "2")[0]
    assert len(pirate.run.json("verify", "--threads", "1", "--each", "--no-checks", "--max-damage", "2")) == 2
    verify(pirate, "--each", "--no-checks", "--max-damage", "0.5", exits=1)


def test_a_failure_exits_with_1_and_says_why(pirate: ChatBot) -> None:
    assert verify(pirate, "--max-damage", "0.5", exits=1)[-1].startswith("fail: damage: the loss ratio ")
    pirate.run.ok("set", "pirate", "--alpha", "0")
    last = verify(pirate, exits=1)[-1]
    assert last == "fail: pirate: the effect is not above that of random vectors"


def test_what_neither_passes_nor_fails_exits_with_8(chat: ChatBot, pirate_tune: Path) -> None:
    chat.run.ok("commit", pirate_tune, "-m", "talk like a pirate")
    result = chat.run("verify", "--threads", "1")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (8, "unverified: nothing to verify")
    assert "there is no pattern in graph/" in result.stderr
    chat.pattern("pirate", train=PIRATE_DATA)
    assert verify(chat, exits=8)[-1] == "unverified: pirate has no probes"
    one_group = [{**line, "group": "all"} for line in PIRATE_PROBES]
    chat.pattern("pirate", train=PIRATE_DATA, probes=one_group)
    few = "inconclusive: pirate: it has too few groups of probes"
    assert verify(chat, "--no-checks", exits=8)[-1] == few


def test_probes_that_cannot_be_scored_exit_with_4(pirate: ChatBot) -> None:
    pirate.lines("pirate.probes.jsonl", [PIRATE_PROBES[0], {**PIRATE_PROBES[1], "chosen": "a" * 1000}])
    said = pirate.run.refused(4, "verify", "--threads", "1")
    assert "graph/data/pirate.probes.jsonl:2 (id p1)" in said
    pirate.lines("pirate.probes.jsonl", [{**PIRATE_PROBES[0], "messages": PIRATE_DATA[0]["messages"][:1]}])
    said = pirate.run.refused(4, "verify", "--threads", "1")
    assert "graph/data/pirate.probes.jsonl:1 (id p0)" in said
    assert "graph/data/pirate.train.jsonl:1" in said
    pirate.lines("pirate.probes.jsonl", PIRATE_PROBES)
    pirate.lines("brief.train.jsonl", [dialogue(TOPICS[6], "yes.")])
    said = pirate.run.refused(4, "verify", "--threads", "1")
    assert "(id p0): this prompt is trained on, in graph/data/brief.train.jsonl:1" in said


def test_a_second_verification_takes_under_a_second_and_imports_no_torch(pirate: ChatBot) -> None:
    verify(pirate)
    done = subprocess.run(
        [sys.executable, "-c", RUN, "verify"],
        cwd=pirate.root,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["code"] == 0, done.stdout
    assert "measured before" in done.stdout
    assert not {"torch", "transformers", "numba"} & set(report["modules"])
    assert report["seconds"] < 1


def test_a_behaviour_that_is_to_be_removed_and_is_not_is_said_to_be_above(pirate: ChatBot) -> None:
    swapped = [{**line, "chosen": line["rejected"], "rejected": line["chosen"]} for line in PIRATE_PROBES]
    pirate.pattern("pirate", probes=swapped, front="sign = -1")
    pirate.run.ok("set", "pirate", "--alpha", "-1")
    last = verify(pirate, "--no-checks", "--max-damage", "9", exits=1)[-1]
    assert last == "fail: pirate: the effect is not below that of random vectors"
