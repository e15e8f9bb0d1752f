"""`verify` through `persona.open(…)`, on a tiny chat model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import persona
from persona.behaviour.measuring import scoring
from persona.behaviour.training import provenance
from persona.behaviour.training.provenance import Provenance
from persona.errors import InvalidInput, UnknownName, UsageError
from persona.history.scores import Effect, Scores, scores_of
from tests.behaviour.bots import BRIEF_PROBES, CONTEXT, PIRATE_DATA, PIRATE_PROBES, TOPICS, ChatBot, probe


def verify(bot: ChatBot, rev: str | None = None, **options: Any) -> Any:
    with persona.open(bot.root) as repo:
        return repo.verify(rev, threads=1, **options)


def one(bot: ChatBot, rev: str | None = None, **options: Any) -> Scores:
    found = verify(bot, rev, **options)
    assert isinstance(found, Scores)
    return found


def effect(scores: Scores, name: str) -> Effect:
    return {effect.pattern: effect for effect in scores.effects}[name]


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, measuring anything is an error."""

    def fail(*arguments: Any) -> Any:
        raise AssertionError("a model was loaded")

    return lambda: monkeypatch.setattr("persona.behaviour.measuring.readers.tokenizer_of", fail)


def test_a_trained_vector_passes_with_its_check_and_both_surface_forms(pirate: ChatBot) -> None:
    scores = one(pirate)
    own = effect(scores, "pirate")
    assert scores.verdict == own.verdict == "pass"
    assert own.margin is not None
    assert own.control is not None
    assert own.margin.low > max(0, own.control)
    assert list(own.splits) == ["seen", "other"]
    assert all(split.low > 0 and split.items == 3 for split in own.splits.values())
    assert own.before is not None
    assert own.after is not None
    assert (own.before.met, own.after.met, own.after.items) == (0, 6, 6)
    assert [spill.pattern for spill in scores.spill] == ["brief"]
    assert scores.spill[0].verdict is None
    assert scores.damage is not None
    assert scores.damage.kl.mean > 0
    assert scores.damage.ratio.mean < 1.02


def test_what_was_measured_before_loads_no_model(pirate: ChatBot, no_model: Callable[[], None]) -> None:
    first = one(pirate)
    assert not first.measured_before
    no_model()
    again = one(pirate)
    assert again.measured_before
    assert again == replace(first, measured_before=True)


def test_scores_are_kept_as_a_note_on_the_commit_and_on_the_vector(pirate: ChatBot) -> None:
    of_commit, of_vector = one(pirate, "HEAD"), one(pirate, vector="pirate")
    assert (of_commit.about_kind, of_vector.about_kind) == ("commit", "vector")
    assert of_commit.weights == of_vector.weights
    with persona.open(pirate.root) as repo:
        assert of_commit.about == repo.resolve()
        for scores in (of_commit, of_vector):
            kept = scores_of(repo._history, scores.about)
            assert kept is not None
            assert kept.verdict == "pass"
            before, after = effect(scores, "pirate").margin, effect(kept, "pirate").margin
            assert before is not None
            assert after is not None
            assert (after.mean, after.low, after.high) == pytest.approx(
                (before.mean, before.low, before.high)
            )


def test_a_recipe_that_is_not_committed_is_measured_once(
    pirate: ChatBot, no_model: Callable[[], None]
) -> None:
    pirate.run.ok("set", "pirate", "--alpha", "0.5")
    edited = one(pirate)
    assert edited.about_kind == "recipe"
    no_model()
    pirate.run.ok("commit", "-m", "half a pirate")
    committed = one(pirate)
    assert committed.about_kind == "commit"
    assert committed.measured_before
    assert committed.effects == edited.effects


def test_a_vector_at_alpha_0_fails_and_the_base_has_nothing_to_verify(pirate: ChatBot) -> None:
    pirate.run.ok("set", "pirate", "--alpha", "0")
    scores = one(pirate)
    assert scores.verdict == "fail"
    own = effect(scores, "pirate").margin
    assert own is not None
    assert (own.mean, own.low, own.high) == (0, 0, 0)
    assert scores.damage is not None
    assert (scores.damage.kl.mean, scores.damage.top.mean, scores.damage.ratio.mean) == (0, 1, 1)
    base = one(pirate, "HEAD~1")
    assert base.verdict == "unverified"
    assert not base.effects  # the first commit has no graph


def test_a_vector_that_is_subtracted_is_wanted_the_other_way(chat: ChatBot, pirate_tune: Path) -> None:
    chat.pirate(front="sign = -1")
    chat.run.ok("commit", pirate_tune, "--alpha", "-0.5", "-m", "no pirate")
    scores = one(chat, checks=False, max_damage=2)
    own = effect(scores, "pirate")
    assert own.wanted == -1
    assert own.margin is not None
    assert own.margin.high < 0
    assert own.control is not None
    assert (own.verdict == "pass") == (own.margin.high < min(0, own.control))
    assert one(chat, vector="pirate", checks=False).own[0].wanted == 1


def test_too_much_damage_fails_whatever_the_effect(pirate: ChatBot) -> None:
    scores = one(pirate, max_damage=0.5)
    assert effect(scores, "pirate").verdict == "pass"
    assert scores.verdict == "fail"
    assert one(pirate, max_damage=1.5).verdict == "pass"


def test_a_random_vector_does_not_pass(chat: ChatBot, pirate_tune: Path, tmp_path: Path) -> None:
    """Of the random vectors, at most one in forty is above the five that it is compared with."""
    import torch
    from transformers import AutoModelForCausalLM

    chat.pirate()
    base = AutoModelForCausalLM.from_pretrained(chat.base)
    tuned = dict(AutoModelForCausalLM.from_pretrained(pirate_tune).named_parameters())
    random = torch.Generator().manual_seed(7)
    names = []
    for seed in range(4):
        model: Any = AutoModelForCausalLM.from_pretrained(chat.base)
        with torch.no_grad():
            for name, place in model.named_parameters():
                step = torch.randn(place.shape, generator=random)
                before = dict(base.named_parameters())[name]
                place += step * (tuned[name] - before).norm() / step.norm()
        model.save_pretrained(tmp_path / f"random{seed}")
        chat.run.ok("add", tmp_path / f"random{seed}")
        names.append(f"random{seed}")
    found = []
    for name in names:
        chat.run.ok("set", name, "--alpha", "0")
    for name in names:
        chat.run.ok("mv", name, "pirate")
        chat.run.ok("set", "pirate", "--alpha", "1")
        found.append(one(chat, checks=False, max_damage=100).verdict)
        chat.run.ok("rm", "pirate")
    assert "pass" not in found
    assert found.count("fail") >= 3


def test_a_pattern_without_probes_is_unverified(chat: ChatBot, pirate_tune: Path) -> None:
    chat.pattern("pirate", train=PIRATE_DATA)
    chat.brief()
    chat.run.ok("commit", pirate_tune, "-m", "talk like a pirate")
    scores = one(chat)
    assert scores.verdict == "unverified"
    assert scores.unverified == ("pirate",)
    assert "graph/pirate.md" in scores.notes[0]
    assert one(chat, vector="pirate").verdict == "unverified"


def test_probes_with_checks_alone_are_judged_by_their_rate(chat: ChatBot, pirate_tune: Path) -> None:
    probes = [probe(topic, number) for number, topic in enumerate(TOPICS[6:])]
    for line in probes:
        del line["chosen"], line["rejected"]
    chat.pattern("pirate", train=PIRATE_DATA, probes=probes)
    chat.run.ok("commit", pirate_tune, "-m", "talk like a pirate")
    scores = one(chat)
    own = scores.own[0]
    assert own.margin is None
    assert own.rate is not None
    assert (own.rate.mean, own.control, scores.verdict) == (1, 0, "pass")
    with persona.open(chat.root) as repo:
        kept = scores_of(repo._history, scores.about)
    assert kept is not None
    assert kept.own[0].rate == own.rate


def test_few_groups_are_inconclusive(chat: ChatBot, pirate_tune: Path) -> None:
    chat.pattern("pirate", train=PIRATE_DATA, probes=[{**line, "group": "one"} for line in PIRATE_PROBES])
    chat.run.ok("commit", pirate_tune, "-m", "talk like a pirate")
    scores = one(chat, checks=False)
    assert scores.verdict == "inconclusive"
    assert "fewer than 5 groups" in scores.notes[0]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"messages": [{"role": "user", "content": "a" * CONTEXT}]},
            "more than the 384 that the model takes",
        ),
        ({"chosen": "a" * CONTEXT}, "more than the 384 that the model takes"),
        (
            {"messages": [*PIRATE_DATA[0]["messages"][:1], {"role": "tool", "content": "x"}]},
            "the last message must be the user's",
        ),
        ({"chosen": " "}, "chosen must be text"),
    ],
)
def test_a_probe_that_cannot_be_scored_is_refused_with_its_place(
    chat: ChatBot,
    pirate_tune: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    problem: str,
) -> None:
    probes = [*PIRATE_PROBES[:3], {**PIRATE_PROBES[3], **change}]
    chat.pattern("pirate", train=PIRATE_DATA, probes=probes)
    chat.run.ok("commit", pirate_tune, "-m", "talk like a pirate")
    monkeypatch.setattr(scoring, "margin", lambda *arguments: pytest.fail("something was measured"))
    with pytest.raises(InvalidInput, match=problem) as caught:
        verify(chat)
    assert "graph/data/pirate.probes.jsonl:4" in str(caught.value)


def test_a_template_that_refuses_a_probe_is_reported_with_file_line_and_id(
    chat: ChatBot, pirate_tune: Path
) -> None:
    chat.pirate()
    chat.run.ok("commit", pirate_tune, "-m", "talk like a pirate")
    refusing = "{{ raise_exception('users only') }}"
    (chat.root / "chat_template.jinja").write_text(refusing)
    with pytest.raises(InvalidInput, match=r"pirate\.probes\.jsonl:1 \(id p0\): .*users only"):
        verify(chat)


def test_probes_that_are_trained_on_are_refused_with_both_places(chat: ChatBot, pirate_tune: Path) -> None:
    copied = {**PIRATE_PROBES[2], "messages": PIRATE_DATA[4]["messages"][:1]}
    chat.pattern("pirate", train=PIRATE_DATA, probes=[*PIRATE_PROBES[:2], copied])
    chat.run.ok("commit", pirate_tune, "-m", "talk like a pirate")
    with pytest.raises(InvalidInput) as caught:
        verify(chat)
    assert "graph/data/pirate.probes.jsonl:3 (id p2)" in str(caught.value)
    assert "graph/data/pirate.train.jsonl:5" in str(caught.value)


def test_each_pattern_alone_is_the_leakage_matrix(
    pirate: ChatBot, brief_tune: Path, no_model: Callable[[], None]
) -> None:
    pirate.run.ok("commit", brief_tune, "-m", "be brief")
    found = verify(pirate, each=True, checks=False)
    assert [[own.pattern for own in scores.own] for scores in found] == [["brief"], ["pirate"]]
    assert [scores.about_kind for scores in found] == ["vector", "vector"]
    no_model()
    named = verify(pirate, vector=["brief", "pirate"], checks=False)
    assert [scores.effects for scores in named] == [scores.effects for scores in found]
    assert verify(pirate, vector="brief", checks=False).effects == found[0].effects


def test_sums_of_vectors_and_adapters_are_vectors_like_any_other(pirate: ChatBot, tmp_path: Path) -> None:
    pirate.run.ok("vector", "derive", "half", "pirate * 0.5")
    pirate.run.ok("vector", "extract", "pirate", "-o", tmp_path / "adapter", "--rank", "8")
    pirate.run.ok("add", tmp_path / "adapter", "-n", "thin")
    whole, half, thin = verify(pirate, vector=["pirate", "half", "thin"], probe="pirate", checks=False)
    means = [scores.effects[0].margin.mean for scores in (whole, half, thin)]
    assert means[0] > means[1] > 0
    assert means[0] > means[2] > 0


def test_probes_of_one_pattern_alone_are_used_and_no_scores_are_kept(pirate: ChatBot) -> None:
    scores = one(pirate, probe="pirate")
    assert [found.pattern for found in scores.effects] == ["pirate"]
    assert scores.verdict == "pass"
    with persona.open(pirate.root) as repo:
        assert scores_of(repo._history, scores.about) is None
    with pytest.raises(UnknownName, match="piratical"):
        verify(pirate, probe="piratical")


def test_a_pattern_that_is_asked_for_is_judged_without_its_vector(pirate: ChatBot) -> None:
    pirate.run.ok("rm", "pirate")
    assert one(pirate, checks=False).verdict == "unverified"
    scores = one(pirate, checks=False, probe="pirate")
    assert [(effect.own, effect.verdict) for effect in scores.effects] == [(True, "fail")]
    assert scores.notes == ("no vector of pirate is in the recipe: what is measured comes from the others",)

    # Too few groups to tell an effect, so a vector of its own would be inconclusive.
    pirate.run.ok("restore", "recipe.toml")
    pirate.pattern("pirate", probes=[{**line, "group": "one"} for line in PIRATE_PROBES])
    assert one(pirate, checks=False, probe="pirate").verdict == "inconclusive"
    pirate.run.ok("mv", "pirate", "sailor")
    assert one(pirate, checks=False, probe="pirate").verdict == "fail"


def test_the_page_of_a_pattern_says_what_is_wanted_and_not_its_alpha(pirate: ChatBot) -> None:
    pirate.run.ok("set", "pirate", "--alpha", "-0.2")  # at -1, random vectors break as much
    scores = one(pirate, checks=False, max_damage=9)
    assert (scores.own[0].wanted, scores.verdict) == (1, "fail")
    (note,) = scores.notes
    assert note.startswith("pirate is subtracted, but graph/pirate.md wants the opposite")
    pirate.pattern("pirate", probes=PIRATE_PROBES, front="sign = -1")
    scores = one(pirate, checks=False, max_damage=9)
    assert (scores.own[0].wanted, scores.verdict, scores.notes) == (-1, "pass", ())


def test_a_vector_of_a_facet_is_judged_by_the_probes_of_the_facet_or_the_pattern(pirate: ChatBot) -> None:
    facets = """
[facets.voice]
[facets.length.data]
train = "data/brief.train.jsonl"
probes = "data/brief.probes.jsonl"
"""
    pirate.pattern("core", probes=PIRATE_PROBES, settings=facets)
    pirate.run.ok("mv", "pirate", "core#voice")
    scores = one(pirate, probe="core", checks=False)
    assert [(found.pattern, found.own) for found in scores.effects] == [
        ("core#voice", True),
        ("core#length", False),
    ]
    assert scores.verdict == "pass"


def test_the_probes_of_a_revision_are_its_own(pirate: ChatBot) -> None:
    (pirate.root / "graph" / "brief.md").unlink()
    assert [found.pattern for found in one(pirate, "HEAD", checks=False).effects] == ["pirate", "brief"]
    assert [found.pattern for found in one(pirate, checks=False).effects] == ["pirate"]


def test_an_edited_probe_is_measured_again_and_the_other_patterns_are_not(
    pirate: ChatBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    one(pirate, checks=False)
    counted: list[int] = []
    real = scoring.margin
    monkeypatch.setattr(scoring, "margin", lambda *given: counted.append(1) or real(*given))
    changed = {**BRIEF_PROBES[0], "rejected": "no."}
    pirate.lines("brief.probes.jsonl", [changed, *BRIEF_PROBES[1:]])
    one(pirate, checks=False)
    assert len(counted) == 2 * len(BRIEF_PROBES)


def test_an_interrupted_verify_continues(pirate: ChatBot, monkeypatch: pytest.MonkeyPatch) -> None:
    real, counted = scoring.margin, []

    def interrupted(*given: Any) -> int:
        counted.append(1)
        if len(counted) == 20:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(scoring, "margin", interrupted)
    with pytest.raises(KeyboardInterrupt):
        one(pirate, checks=False)
    one(pirate, checks=False)
    assert len(counted) - 20 == 9 * 6 - 18  # 9 measurements of 6 items, of which 3 were whole


def test_measuring_tells_what_it_measures_and_how_far_it_is(pirate: ChatBot) -> None:
    told: list[tuple[str, str, int, int]] = []
    one(
        pirate,
        progress=lambda phase, done, total: told.append((str(phase), phase.detail, done, total)),
    )
    steps = [step for step in told if step[0] == "measuring"]
    assert {step[3] for step in steps} == {steps[0][3]}
    assert [step[2] for step in steps] == sorted(step[2] for step in steps)
    assert any("random vector 5" in step[1] and "pirate" in step[1] for step in steps)


def test_a_renamed_vector_of_a_pattern_is_still_its_own(pirate: ChatBot) -> None:
    vector = pirate.run.json("vector", "show", "pirate")["id"]
    pirate.run.ok("mv", "pirate", "sailor")
    assert not one(pirate, checks=False).own
    note_provenance(pirate, vector, "pirate")
    assert [own.pattern for own in one(pirate, checks=False).own] == ["pirate"]
    (alone,) = verify(pirate, each=True, checks=False)
    assert (alone.about, [own.pattern for own in alone.own]) == (vector, ["pirate"])


def test_of_two_vectors_of_a_pattern_the_one_of_its_name_counts(pirate: ChatBot, brief_tune: Path) -> None:
    old = pirate.run.json("vector", "show", "pirate")["id"]
    pirate.run.ok("mv", "pirate", "sailor")
    note_provenance(pirate, old, "pirate")
    pirate.run.ok("set", "sailor", "--alpha", "-2")
    assert one(pirate, checks=False, max_damage=9).notes  # it is subtracted
    pirate.run.ok("add", brief_tune, "--name", "pirate")
    assert not one(pirate, checks=False, max_damage=9).notes


def note_provenance(bot: ChatBot, vector: str, name: str) -> None:
    with persona.open(bot.root) as repo:
        made = Provenance(
            name,
            None,
            name,
            f"graph/{name}.md",
            "",
            {},
            "",
            None,
            {},
            {},
            "",
            1,
            "cpu",
            "",
            {},
            vector=vector,
        )
        provenance.keep(repo._history, made)


def test_wrong_arguments_are_refused(pirate: ChatBot) -> None:
    with pytest.raises(UsageError):
        verify(pirate, "HEAD", vector="pirate")
    for limit in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InvalidInput, match="max_damage"):
            verify(pirate, max_damage=limit)
    with pytest.raises(UnknownName):
        verify(pirate, vector="nobody")
