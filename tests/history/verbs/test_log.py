"""log, diff, show, vectors, fsck, cat-file: what is shown of a history."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from persona.codec.elements import BF16, FORM_RAW, LAYOUT_DELTA, form_of
from persona.errors import IntegrityError, InvalidInput, Refused, UnknownName, UnknownRevision
from persona.history.history import History
from persona.history.names.walk import merge_bases, walk
from persona.history.results import as_json
from persona.objects.commit import Commit, Person
from persona.objects.ids import object_id
from persona.repository import Repository
from persona.store.records import pack_record
from persona.store.store import Store
from tests.history.bots import START, Bot, at


def messages(bot: Bot, *revs: str, **options: object) -> list[str]:
    return [entry.subject for entry in bot.repo.log(revs or ("HEAD",), **options)]  # type: ignore[arg-type]


def test_log_is_newest_first_and_can_be_cut(grown: Bot) -> None:
    whole = ["a little less", "suggest less", "listen before answering", "Begin with tiny"]
    assert messages(grown) == whole
    assert messages(grown, n=2) == whole[:2]
    assert messages(grown, n=0) == []
    assert messages(grown, "HEAD~2..HEAD") == whole[:2]
    assert messages(grown, "HEAD", "^HEAD~1") == whole[:1]
    assert messages(grown, "HEAD..HEAD~1") == []
    with pytest.raises(UnknownRevision):
        messages(grown, "nothing..HEAD")


def test_log_can_be_asked_for_a_time_and_a_vector(grown: Bot) -> None:
    assert messages(grown, since=f"@{START + 2 * 60}") == ["a little less", "suggest less"]
    assert messages(grown, until=f"@{START + 60}") == ["listen before answering", "Begin with tiny"]
    assert messages(grown, vector="suggesting") == ["suggest less"]
    with pytest.raises(UnknownName, match="'sugesting'"):
        messages(grown, vector="sugesting")
    assert messages(grown, "HEAD~1..HEAD", vector="suggesting") == []
    assert messages(grown, vector="listening") == ["a little less", "listen before answering"]
    with pytest.raises(UnknownRevision, match="someday"):
        messages(grown, since="someday")


def test_all_starts_from_every_branch_and_tag(grown: Bot) -> None:
    grown.repo.switch("HEAD~1", create="side")
    grown.edit(lambda text: text + "# side\n")
    grown.commit(message="on the side")
    grown.repo.tags.create("v", message="annotated")
    grown.repo.switch("main")
    assert "on the side" not in messages(grown)
    assert messages(grown, all=True)[0] == "on the side"
    assert messages(grown, "main...side") == ["on the side", "a little less"]
    assert messages(grown, "main..side") == ["on the side"]
    refs = {entry.subject: entry.refs for entry in grown.repo.log(all=True)}
    assert refs["on the side"] == ("side", "tag: v")
    assert refs["a little less"] == ("HEAD -> main",)


def test_an_entry_is_the_json_of_log(grown: Bot) -> None:
    entry = as_json(grown.repo["HEAD"])
    assert list(entry) == [
        "id",
        "parents",
        "author",
        "date",
        "committer",
        "committer_date",
        "message",
        "recipe",
    ]
    assert entry["author"] == {"name": "Ada", "email": "ada@example.org"}
    assert entry["date"] == "2025-11-13T03:16:20+01:00"
    assert set(entry["recipe"]) == {"base", "rules", "vectors"}
    assert set(entry["recipe"]["vectors"]["listening"]) == {
        "id",
        "alpha",
        "density",
        "only",
        "except",
        "join",
    }
    assert entry["recipe"]["vectors"]["listening"]["alpha"] == 0.7


def test_diff_says_what_changed_key_by_key(grown: Bot) -> None:
    diff = as_json(grown.repo.diff("HEAD~2", "HEAD"))
    assert list(diff) == ["from", "to", "rules", "vectors", "files"]
    changes = {change["name"]: change for change in diff["vectors"]}
    assert changes["suggesting"]["change"] == "added"
    assert changes["suggesting"]["from"] == {}
    assert changes["listening"] == {
        "name": "listening",
        "change": "changed",
        "from": {"alpha": 1.0},
        "to": {"alpha": 0.7},
    }
    assert grown.repo.diff("HEAD", "HEAD").empty
    grown.repo.recipe.set_rules({"density": "0.2"})
    here = grown.repo.diff()
    assert (here.from_, here.to) == (grown.repo.resolve("HEAD"), None)
    assert here.rules == {"density": {"from": 1.0, "to": 0.2}}
    assert grown.repo.diff("HEAD~1..HEAD") == grown.repo.diff("HEAD~1", "HEAD")


def test_digits_that_no_float_tells_apart_are_a_difference(grown: Bot) -> None:
    grown.edit(lambda text: text.replace("alpha = 0.7", "alpha = 0.70000000000000001"))
    assert not grown.repo.diff().empty


def test_show_of_the_first_commit_is_against_nothing(bot: Bot) -> None:
    entry, diff = bot.repo.show()
    assert (diff.from_, diff.to) == (None, entry.id)
    assert diff.rules["preset"] == {"from": None, "to": "ties"}


def test_vectors_are_told_in_canonical_order_with_their_numbers(grown: Bot) -> None:
    found = as_json(list(grown.repo.vectors.values()))
    keys = "name id kind base tensors elements changed_fraction raw_bytes stored_bytes l2 ranks".split()
    assert [list(info) for info in found] == [keys, keys]
    assert [info["id"] for info in found] == sorted(info["id"] for info in found)
    import numpy as np

    for info in found:
        squares = 0.0
        for name, bits in grown.tunes[info["name"]].items():
            after, before = (
                (part.astype(np.uint32) << 16).view(np.float32).astype(float)
                for part in (bits, grown.base[name])
            )
            squares += float(((after - before) ** 2).sum())
        assert info["l2"] == pytest.approx(squares**0.5)
        assert info["tensors"] == 4


def test_a_vector_is_found_by_name_and_by_the_start_of_its_id(grown: Bot) -> None:
    whole = grown.repo.vectors["listening"]
    assert grown.repo.vectors[whole.id[:8]] == whole
    with pytest.raises(UnknownName):
        grown.repo.vectors["nobody"]
    with pytest.raises(Refused, match=r"repo\.recipe\.remove\('listening'\)"):
        grown.repo.vectors.delete("listening")
    with pytest.raises(UnknownName):
        grown.repo.vectors.delete("nobody")


def test_counts_that_a_cache_held_are_counted_again_without_it(grown: Bot) -> None:
    before = dict(grown.repo.vectors)
    for path in (grown.root / ".persona" / "cache").rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    assert dict(grown.repo.vectors) == before


def test_a_newer_format_can_be_looked_at_without_its_caches(grown: Bot) -> None:
    grown.repo.recipe.set_rules({"density": "0.235"})
    digest, vectors = grown.repo.digest().weights, dict(grown.repo.vectors)
    shutil.rmtree(grown.root / ".persona" / "cache")
    (grown.root / ".persona" / "format").write_text("persona 2\n")
    with Repository.open(grown.root) as repo:
        assert repo.digest().weights == digest
        assert dict(repo.vectors) == vectors
    assert not (grown.root / ".persona" / "cache").exists()


def test_fsck_is_clean_and_counts_leftovers(grown: Bot) -> None:
    result = grown.repo.fsck(full=True)
    assert (result.ok, result.problems) == (True, ())
    assert result.objects == grown.repo.count_objects().objects
    with grown.repo._history.store.transaction() as tx:
        tx.put("blob", b"of a command that was cut short")
    again = grown.repo.fsck(full=True)
    assert again.ok
    assert again.unreachable > result.unreachable


@pytest.mark.parametrize("what", ["loose", "pack", "ref", "reflog", "HEAD"])
def test_fsck_finds_a_flipped_bit_wherever_it_is(grown: Bot, what: str) -> None:
    root = grown.root / ".persona"
    commit = grown.repo.resolve("HEAD~1")
    path = {
        "loose": root / "objects" / commit[:2] / commit[2:],
        "pack": max(root.glob("packs/*.pack"), key=lambda pack: pack.stat().st_size),
        "ref": root / "refs" / "heads" / "main",
        "reflog": root / "logs" / "refs" / "heads" / "main",
        "HEAD": root / "HEAD",
    }[what]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.chmod(0o644)
    path.write_bytes(data)
    with Repository.open(grown.root) as repo:
        result = repo.fsck(full=True)
    assert not result.ok
    assert all(problem.problem for problem in result.problems)


def test_fsck_names_a_delta_of_a_chunk_that_holds_other_elements(bot: Bot) -> None:
    chunk = object_id("chunk", b"abc")
    delta = object_id("delta", bytes.fromhex(chunk), bytes(2))
    with Store.open(bot.root).transaction() as tx:
        tx.append(pack_record("chunk", chunk, FORM_RAW, [b"abc"]))
        tx.append(pack_record("delta", delta, form_of(LAYOUT_DELTA, BF16), [b""], relative=chunk))
    with Repository.open(bot.root) as repo:
        assert [(found.kind, found.id) for found in repo.fsck(full=True).problems] == [("delta", delta)]


def test_fsck_names_what_is_missing_and_who_names_it(grown: Bot) -> None:
    vector = grown.repo.vectors["listening"].id
    (grown.root / ".persona" / "objects" / vector[:2] / vector[2:]).unlink()
    with Repository.open(grown.root) as repo:
        found = repo.fsck()
        assert not found.ok
        assert any(problem.id == vector and "recipe" in problem.problem for problem in found.problems)
        with pytest.raises(IntegrityError):
            repo.digest()


def test_taking_the_same_fine_tune_again_heals_it(grown: Bot) -> None:
    found = grown.repo._history.store.objects.iterate()
    for pack in {Path(file) for _, kind, file in found if kind == "delta"}:
        data = bytearray(pack.read_bytes())
        data[300] ^= 1
        pack.chmod(0o644)
        pack.write_bytes(data)
    with Repository.open(grown.root, author=at(20)) as repo:
        assert not repo.fsck(full=True).ok
        for name in ("listening", "suggesting"):
            repo.add(grown.models / name)
        assert repo.fsck(full=True).ok


def test_objects_are_shown_by_the_start_of_their_id(grown: Bot) -> None:
    commit = grown.repo.cat_file("HEAD")
    assert commit.kind == "commit"
    assert b'"message": "a little less\\n"' in commit.text
    base = grown.repo.cat_file(grown.repo["HEAD"].recipe.base[:8])
    assert base.kind == "base"
    history: History = grown.repo._history
    table = history.base(base.id).table
    chunk = grown.repo.cat_file(table).text.decode().split("\n")[0]
    assert grown.repo.cat_file(chunk).kind == "chunk"
    blob = history.tree_of(commit.id).files["recipe.toml"]
    assert blob is not None
    assert grown.repo.cat_file(blob).text == grown.recipe.read_bytes()
    with pytest.raises(UnknownName):
        grown.repo.cat_file("zzzz")


def forged(bot: Bot, count: int, *, parents_of: object = None) -> str:
    """A chain of commits written straight into a pack; returns the last one's id."""
    from persona.objects.ids import object_id
    from persona.store.records import pack_record

    history: History = bot.repo._history
    head = history.head_commit()
    tree = history.commit(head).tree
    with history.store.transaction() as tx:
        for number in range(count):
            person = Person("A", "a@b", START + 60 + number, 0)
            payload = Commit(tree, (head,), person, person, f"no {number}\n").encode()
            head = object_id("commit", payload)
            tx.append(pack_record("commit", head, 0, [payload], level="small"))
    return head


def test_ten_thousand_commits_stream_and_the_first_comes_at_once(bot: Bot) -> None:
    head = forged(bot, 10_000)
    start = time.perf_counter()
    entries = bot.repo.log([head])
    assert next(entries).subject == "no 9999"
    assert time.perf_counter() - start < 0.5
    assert sum(1 for _ in entries) == 10_000
    assert bot.repo.resolve(f"{head}~10000") == bot.repo.resolve("HEAD")


def test_history_walks_are_iterative(bot: Bot) -> None:
    head = forged(bot, 3 * sys.getrecursionlimit())
    history = bot.repo._history
    first = bot.repo.resolve("HEAD")
    middle = bot.repo.resolve(f"{head}~1500")
    assert merge_bases(history, head, middle) == [middle]
    assert len(list(walk(history, [head], [middle]))) == 1500
    assert merge_bases(history, head, first) == [first]
    assert bot.repo.fsck().ok


def test_a_missing_parent_is_an_integrity_error_once_it_is_reached(grown: Bot) -> None:
    gone = grown.repo.resolve("HEAD~2")
    (grown.root / ".persona" / "objects" / gone[:2] / gone[2:]).unlink()
    entries = grown.repo.log()
    assert next(entries).subject == "a little less"
    with pytest.raises(IntegrityError, match=gone[:8]):
        list(entries)


def test_crossed_histories_have_two_merge_bases(bot: Bot) -> None:
    history: History = bot.repo._history
    tree = history.commit(bot.repo.resolve("HEAD")).tree
    made: dict[str, str] = {"root": bot.repo.resolve("HEAD")}

    def commit(name: str, *parents: str) -> None:
        person = Person("A", "a@b", START + 60 * len(made), 0)
        payload = Commit(
            tree, tuple(made[parent] for parent in parents), person, person, name + "\n"
        ).encode()
        with history.store.transaction() as tx:
            made[name] = tx.put("commit", payload)

    commit("a", "root")
    commit("b", "root")
    commit("x", "a", "b")
    commit("y", "b", "a")
    commit("z", "y")
    assert set(merge_bases(history, made["x"], made["z"])) == {made["a"], made["b"]}
    names = [commit.message.strip() for _, commit in walk(history, [made["z"]], [made["x"]])]
    assert names == ["z", "y"]
    assert next(bot.repo.log([made["z"]], topological=True)).subject == "z"


def test_histories_without_a_common_commit_have_no_place_where_they_parted(bot: Bot) -> None:
    history: History = bot.repo._history
    head, person = bot.repo.resolve("HEAD"), Person("A", "a@b", START, 0)
    with history.store.transaction() as tx:
        root = tx.put("commit", Commit(history.commit(head).tree, (), person, person, "another\n").encode())
    assert {entry.id for entry in bot.repo.log(f"{head}...{root}")} == {head, root}
    assert bot.repo.diff(head, root).empty
    with pytest.raises(UnknownRevision, match="no ancestor in common"):
        bot.repo.diff(f"{head}...{root}")


def test_looking_imports_nothing_heavy(grown: Bot) -> None:
    script = (
        "import sys, persona\n"
        f"repo = persona.open({str(grown.root)!r})\n"
        "list(repo.log()); repo.status(); repo.diff(); repo.diff('HEAD~1', 'HEAD'); repo.show()\n"
        f"open({str(grown.recipe)!r}, 'a').write('# x\\n')\n"
        "repo.commit(message='x')\n"
        "heavy = {'numpy', 'numba', 'torch', 'transformers', 'zstandard', 'tomlkit', 'rich', 'click'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_number_of_commits_cannot_be_negative(bot: Bot) -> None:
    with pytest.raises(InvalidInput):
        list(bot.repo.log(n=-1))


def test_files_leave_out_the_side_of_a_merge_that_the_merge_did_not_take(grown: Bot) -> None:
    repo, template = grown.repo, grown.root / "chat_template.jinja"
    repo.switch(create="topic")
    template.write_text("theirs\n")
    grown.commit(message="theirs")
    repo.switch("main")
    template.write_text("ours\n")
    grown.commit(message="ours")
    repo.merge("topic", strategy="ours")
    shown = [entry.subject for entry in repo.log(paths="chat_template.jinja")]
    assert (shown[0], "theirs" in shown) == ("ours", False)
    below = [entry.subject for entry in repo.log(["topic..HEAD"], paths="chat_template.jinja")]
    assert below == ["ours"]
    both = [entry.subject for entry in repo.log(all=True, paths="chat_template.jinja", n=2)]
    assert sorted(both) == ["ours", "theirs"]
