"""`fsck` notices whatever is lost or contradicts itself, one thing beside another, and says what to do."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from persona.codec.base import encode_base
from persona.errors import IntegrityError, PersonaError
from persona.history.store_results import FsckResult
from persona.objects.commit import Commit
from persona.objects.ids import NULL_ID, object_id
from persona.objects.recipe import Recipe, Term
from persona.objects.table import decode_table, decode_vector_table, encode_table
from persona.objects.tensors import chunk_count
from persona.objects.tree import Tree
from persona.objects.vector import LowRankFactor, Vector
from persona.repository import Repository
from persona.store import files
from persona.store.records import pack_record
from persona.store.refs import Reason
from tests.checkpoints import write_model
from tests.disks import Quick
from tests.history.bots import Bot, advised, at, read_weights

FORGED = Reason("Ada <ada@example.org>", (1_763_000_000, 0), "forged")


def fsck(bot: Bot, *, full: bool = False) -> FsckResult:
    """What a fresh process finds."""
    with Repository.open(bot.root) as repo:
        return repo.fsck(full=full)


def sentences(bot: Bot, *, full: bool = False) -> list[str]:
    """Its problems; `ok` agrees with them."""
    found = fsck(bot, full=full)
    assert found.ok == (not found.problems)
    return [problem.problem for problem in found.problems]


def stored(bot: Bot, *parts: str) -> Path:
    return bot.root.joinpath(".persona", *parts)


@pytest.fixture
def several(grown: Bot) -> Bot:
    """Branches with one move and with more, a tag, a branch that was deleted."""
    repo = grown.repo
    repo.branches.create("precious", "HEAD~1")
    repo.branches.create("moved/twice", "HEAD~2")
    repo.branches.create("moved/twice", "HEAD~1", force=True)
    repo.tags.create("v1", message="as released")
    repo.branches.create("gone", "HEAD~1")
    repo.branches.delete("gone", force=True)
    assert sentences(grown) == []
    return grown


# -- refs and reflogs


@pytest.mark.parametrize("name", ["heads/precious", "heads/moved/twice", "tags/v1", "bases/tiny"])
def test_a_lost_ref_is_named_with_the_way_to_have_it_back(several: Bot, name: str) -> None:
    path = stored(several, "refs", *name.split("/"))
    id = path.read_text().split("\n")[0]
    path.unlink()
    (found,) = [text for text in sentences(several) if text.startswith(f"refs/{name} is gone, although")]
    assert id[:8] in found
    with Repository.open(several.root, author=at(50)) as repo:
        kind, _, short = name.partition("/")
        if kind == "heads":
            assert f"repo.branches.create({short!r}, {id[:8]!r})" in advised(found)
            repo.branches.create(short, id[:8])
        elif kind == "tags":
            assert f"repo.tags.create({short!r}, {id[:8]!r})" in advised(found)
            repo.tags.create(short, id[:8])
        else:
            assert f"base = '{id[:8]}'" in advised(found)
            several.edit(lambda text: text.replace('"tiny"', f"'{id[:8]}'"))
            assert repo.status().problem is None
            return
        assert sentences(several) == []


def test_a_base_name_that_a_commit_uses_is_missed_when_its_reflog_is_lost_with_it(several: Bot) -> None:
    stored(several, "refs", "bases", "tiny").unlink()
    stored(several, "logs", "refs", "bases", "tiny").unlink()
    assert any("refs/bases/tiny is gone" in text for text in sentences(several))


def test_a_removed_branch_is_not_a_lost_one(several: Bot) -> None:
    assert stored(several, "logs", "refs", "heads", "gone").exists()
    assert sentences(several) == []


@pytest.mark.parametrize("name", ["HEAD", "refs/heads/main", "refs/heads/moved/twice", "refs/bases/tiny"])
def test_a_lost_reflog_is_noticed(several: Bot, name: str) -> None:
    stored(several, "logs", *name.split("/")).unlink()
    assert [text for text in sentences(several) if "reflog" in text] == [
        f"the reflog of {name} is lost; the next move begins a new one"
    ]


def test_reflogs_that_are_all_lost_are_noticed_one_by_one(several: Bot) -> None:
    shutil.rmtree(stored(several, "logs"))
    assert sum("is lost" in text for text in sentences(several)) == 6


def test_a_damaged_reflog_of_a_deleted_branch_is_noticed(several: Bot) -> None:
    path = stored(several, "logs", "refs", "heads", "gone")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"ada@", b"eve@", 1))
    assert [f"{path}: line 1 is damaged" in text for text in sentences(several)] == [True]


def test_a_commit_that_only_the_reflog_of_a_deleted_branch_names_has_to_be_there(several: Bot) -> None:
    repo = several.repo
    repo.switch(create="short")
    several.edit(lambda text: text + "# more\n")
    id = several.commit(message="on a branch that goes").id or ""
    repo.switch("main")
    repo.branches.delete("short", force=True)
    for log in ("HEAD",):
        path = stored(several, "logs", log)
        kept = path.read_bytes()
        path.unlink()
    assert not any("missing" in text for text in sentences(several))
    stored(several, "objects", id[:2], id[2:]).unlink()
    assert any(
        f"commit {id[:8]} is missing, and the reflog of refs/heads/short refers to it" in text
        for text in sentences(several)
    )
    stored(several, "logs", "HEAD").write_bytes(kept)


def test_one_damaged_ref_hides_no_other(several: Bot) -> None:
    commit = several.repo.resolve("moved/twice")
    several.repo.switch("precious")
    several.edit(lambda text: text + "# here alone\n")
    id = several.commit(message="on precious alone").id or ""
    several.repo.switch("main")
    stored(several, "objects", id[:2], id[2:]).unlink()
    path = stored(several, "refs", "heads", "main")
    path.write_bytes(path.read_bytes()[:-5] + b"0000\n")
    stored(several, "refs", "tags", "v1").unlink()
    os.symlink("main", stored(several, "refs", "heads", "link"))
    found = sentences(several)
    assert len([text for text in found if "refs/heads/main is damaged" in text]) == 1  # HEAD's, too
    assert any(text.startswith("refs/tags/v1 is gone") for text in found)
    assert any(f"commit {id[:8]} is missing" in text for text in found)
    assert any("link is not a regular file" in text for text in found)
    assert commit != id


def test_a_head_that_leads_nowhere_is_a_problem(several: Bot) -> None:
    stored(several, "refs", "heads", "main").unlink()
    found = sentences(several)
    assert any("HEAD is on refs/heads/main, which does not exist" in text for text in found)
    assert any(text.startswith("refs/heads/main is gone") for text in found)


def test_a_lost_reflog_of_a_damaged_ref_is_noticed_too(several: Bot) -> None:
    for name in ("HEAD", "refs/heads/moved/twice"):
        path = stored(several, *name.split("/"))
        path.write_bytes(path.read_bytes()[:-4])
        stored(several, "logs", *name.split("/")).unlink()
    found = sentences(several)
    for name in ("HEAD", "refs/heads/moved/twice"):
        assert any(name in text and "damaged" in text for text in found)
        assert f"the reflog of {name} is lost; the next move begins a new one" in found


@pytest.mark.parametrize("name", ["HEAD", "refs/heads/main"])
def test_a_reflog_that_is_a_directory_is_named_as_one_and_moved_away(several: Bot, name: str) -> None:
    path = stored(several, "logs", *name.split("/"))
    path.unlink()
    path.mkdir()
    (path / "something").write_text("mine")
    assert f"{path} is a directory, and should be the reflog of {name}; move it away" in sentences(several)
    path.rename(several.models / "moved away")
    several.repo.reset("HEAD~1", "hard")
    several.repo.reset("HEAD@{1}", "hard")
    assert several.repo.fsck().ok


def test_a_head_that_is_a_directory_is_no_missing_one(several: Bot) -> None:
    path = stored(several, "HEAD")
    path.unlink()
    path.mkdir()
    assert sentences(several)[0].startswith(f"{path} is not a regular file")
    path.rmdir()
    several.repo.switch("main")
    assert several.repo.fsck().ok


def test_a_reflog_of_too_many_lines_or_bytes_takes_no_memory(several: Bot) -> None:
    path = stored(several, "logs", "refs", "heads", "main")
    for size, holes in ((8 << 20, False), (1 << 36, True)):
        path.unlink()
        path.write_bytes(b"" if holes else b"\n" * size)
        os.truncate(path, size)
        tracemalloc.start()
        assert any(str(path) in text for text in sentences(several))
        several.edit(lambda text: text + "# one more\n")
        several.commit()
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
        tracemalloc.stop()


# -- what commands need besides refs and objects


@pytest.mark.parametrize("name", ["worktree.lock", "weights.json", "refs.reflog"])
@pytest.mark.parametrize("kind", ["directory", "pipe", "loop"])
def test_what_is_no_file_among_the_state_is_noticed(several: Bot, name: str, kind: str) -> None:
    path = stored(several, "state", name)
    path.unlink(missing_ok=True)
    {"directory": path.mkdir, "pipe": lambda: os.mkfifo(path), "loop": lambda: path.symlink_to(name)}[kind]()
    assert [text for text in sentences(several) if str(path) in text] == [
        f"{path} is not a regular file; nothing was read or written through it"
    ]


@pytest.mark.parametrize("name", ["state", "tmp", "logs"])
def test_a_file_where_a_directory_of_the_store_was_is_noticed(several: Bot, name: str) -> None:
    path = stored(several, name)
    path.rename(several.models / "moved away")
    path.write_text("mine")
    assert f"{path} is not a directory; nothing was read or written through it" in sentences(several)
    path.unlink()
    (several.models / "moved away").rename(path)
    assert sentences(several) == []


def test_a_config_that_no_command_can_read_is_noticed(several: Bot) -> None:
    path = stored(several, "config")
    path.write_text("[user\n")
    assert any(text.startswith(f"{path}:1: not valid TOML") for text in sentences(several))


# -- objects that do not belong together


def forged(
    bot: Bot,
    change: Callable[[Recipe], Recipe] | None = None,
    files: Callable[[dict[str, str | None]], dict[str, str | None]] | None = None,
    blobs: dict[str, bytes] | None = None,
) -> str:
    """A commit on main, every byte of it right, that no command would make; returns its tree."""
    history = bot.repo._history
    head = history.head_commit()
    tree = history.tree_of(head)
    recipe = history.recipe(tree.recipe)
    person = at(60)
    with history.store.transaction() as tx:
        held = dict(tree.files)
        for path, data in (blobs or {}).items():
            held[path] = tx.put("blob", data)
        made = (change or (lambda one: one))(recipe)
        id = tx.put("tree", Tree(tx.put("recipe", made.encode()), (files or dict)(held)).encode())
        commit = tx.put("commit", Commit(id, (head,), person, person, "forged\n").encode())
    history.store.refs.advance(commit, FORGED, expect=head)
    return id


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["graph/a", "graph/a/b"], "would be both a file and the directory of"),
        (["notes.md", "NOTES.md"], "differ only in case"),
        (["caf\u00e9.md", "cafe\u0301.md"], "Unicode"),
        (["model.safetensors.index.json"], "that name is for weights"),
        (["extra.safetensors"], "that name is for weights"),
    ],
)
def test_tracked_paths_that_cannot_be_are_noticed(grown: Bot, paths: list[str], said: str) -> None:
    tree = forged(grown, blobs=dict.fromkeys(paths, b"text"))
    (found,) = sentences(grown)
    assert found.startswith(f"tree {tree[:8]}: ")
    assert said in found
    assert paths[0].casefold() in found.casefold()


def test_a_text_that_contradicts_its_recipe_is_noticed(grown: Bot) -> None:
    tree = forged(grown, blobs={"recipe.toml": grown.recipe.read_bytes().replace(b"0.7", b"0.6")})
    assert sentences(grown) == [f"tree {tree[:8]}: its recipe.toml does not mean its recipe"]


@pytest.mark.parametrize("text", [b"not = [toml", b'base = "tiny"\n\n[vectors.x]\nid = "1234abcd"\n'])
def test_a_text_that_no_recipe_is_read_from_is_noticed(grown: Bot, text: bytes) -> None:
    tree = forged(grown, blobs={"recipe.toml": text})
    (found,) = sentences(grown)
    assert found.startswith(f"tree {tree[:8]}: its recipe.toml is not that of its recipe: recipe.toml:")


def test_a_tree_without_a_text_of_its_recipe_is_noticed(grown: Bot) -> None:
    def drop(files: dict[str, str | None]) -> dict[str, str | None]:
        return {path: id for path, id in files.items() if path != "recipe.toml"}

    forged(grown, files=drop)
    assert ["holds no recipe.toml" in text for text in sentences(grown)] == [True]


def other_vector(bot: Bot, change: Callable[[Vector, list[str]], tuple[Vector, list[str]]]) -> str:
    """A vector made of one of the repository's, in a commit whose text agrees with its recipe."""
    history = bot.repo._history
    recipe = history.recipe_of(history.head_commit())
    vector = history.vector(recipe.by_name["listening"].vector)
    assert vector.table is not None
    data = history.store.objects.get(vector.table, "table")
    ids = [data[start : start + 32].hex() for start in range(0, len(data), 32)]
    vector, ids = change(vector, ids)
    with history.store.transaction() as tx:
        table = tx.put_bulk("table", encode_table(ids))
        made = {field: getattr(vector, field) for field in ("base", "kind", "chunk", "tensors", "factors")}
        id = tx.put("vector", Vector(**made, table=table).encode())
    text = grown_text = bot.recipe.read_text()
    text = text.replace(recipe.by_name["listening"].vector, id)
    assert text != grown_text

    def put(old: Recipe) -> Recipe:
        terms = [Term("listening", id, "0.7") if t.name == "listening" else t for t in old.terms]
        return Recipe.of(old.base, terms, old.rules)

    forged(bot, put, blobs={"recipe.toml": text.encode()})
    bot.repo.restore(["recipe.toml"])
    return id


def test_a_vector_whose_deltas_belong_to_other_chunks_is_noticed(grown: Bot) -> None:
    def turned(vector: Vector, ids: list[str]) -> tuple[Vector, list[str]]:
        return vector, [ids[1], ids[0], *ids[2:]]

    id = other_vector(grown, turned)
    assert sentences(grown) == []
    (found,) = sentences(grown, full=True)
    assert found.startswith(f"vector {id[:8]}: chunk 0 of tensor model.embed.weight")


@pytest.mark.parametrize("way", ["shape", "name", "chunk"])
def test_a_vector_that_does_not_fit_its_base_is_noticed(grown: Bot, way: str) -> None:
    def bent(vector: Vector, ids: list[str]) -> tuple[Vector, list[str]]:
        first, *rest = vector.tensors
        if way == "chunk":
            counts = [-(-spec.elements // 128) for spec in vector.tensors]
            return Vector(vector.base, "delta", 128, vector.tensors), ids[: sum(counts)]
        changed = (
            type(first)(first.name, first.dtype, (first.shape[1], first.shape[0]))
            if way == "shape"
            else type(first)("model.a.weight", first.dtype, first.shape)
        )
        return Vector(vector.base, "delta", vector.chunk, (changed, *rest)), ids

    id = other_vector(grown, bent)
    assert any(text.startswith(f"vector {id[:8]}: ") and "its base" in text for text in sentences(grown))


# -- a vector with factors


def low_rank(bot: Bot, sizes: list[int], *, null: bool = False) -> tuple[str, list[str]]:
    """A vector whose first tensor [20, 10] has a factor of rank 8, in chunks of `sizes` elements.

    Returns its id and those of the chunks of the factor. `null`: the null id stands for the first of them.
    """
    made: list[str] = []

    def factored(vector: Vector, ids: list[str]) -> tuple[Vector, list[str]]:
        first, *rest = vector.tensors
        with bot.repo._history.store.transaction() as tx:
            for place, size in enumerate(sizes):
                values = np.arange(size, dtype=np.float32) + place
                form, segments = encode_base(values.view("<u4"), "F32")
                made.append(object_id("chunk", values.tobytes()))
                tx.append(pack_record("chunk", made[-1], form, segments))
        if null:
            made[0] = NULL_ID
        factors = (LowRankFactor(8, "0.5", "F32"), *(None for _ in rest))
        vector = replace(vector, kind="lowrank", factors=factors)
        return vector, made + ids[chunk_count(first, vector.chunk) :]

    return other_vector(bot, factored), made


def test_a_vector_with_factors_is_followed_to_its_chunks_and_its_deltas(grown: Bot) -> None:
    before = fsck(grown).unreachable
    id, _ = low_rank(grown, [64, 16, 64, 64, 32])
    history = grown.repo._history
    assert sentences(grown, full=True) == []
    assert fsck(grown).unreachable == before
    vector = history.vector(id)
    assert vector.table is not None
    table = decode_vector_table(history.store.objects.get(vector.table, "table"), vector)
    named = {chunk for spec in vector.tensors for chunk in table.chunks(spec.name)} - {NULL_ID}
    assert {history.store.objects.kind_of(chunk) for chunk in named} == {"chunk", "delta"}
    assert grown.repo.vectors["listening"].stored_bytes == sum(
        history.store.objects.stored_bytes(one) for one in (id, vector.table, *named)
    )


@pytest.mark.parametrize(
    ("sizes", "what"),
    [([64, 15, 64, 64, 32], "chunk 1 of A"), ([64, 16, 64, 64, 31], "chunk 2 of B")],
)
def test_a_chunk_of_a_factor_of_another_length_is_noticed(grown: Bot, sizes: list[int], what: str) -> None:
    id, _ = low_rank(grown, sizes)
    assert sentences(grown) == []
    (found,) = sentences(grown, full=True)
    assert found.startswith(f"vector {id[:8]}: {what} of tensor model.embed.weight has another length")


def test_a_chunk_of_a_factor_that_is_missing_is_noticed(grown: Bot) -> None:
    id, _ = low_rank(grown, [64, 16, 64, 64, 32], null=True)
    (found,) = sentences(grown)
    assert f"is missing, and tensor model.embed.weight of vector {id[:8]} refers to it" in found


# -- the work tree's weights


def test_weights_that_pass_for_a_commits_and_are_not_are_noticed(grown: Bot) -> None:
    right = grown.checkout()
    assert sentences(grown, full=True) == []
    file = grown.root / "model.safetensors"
    before = file.stat()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    with file.open("r+b") as opened:
        opened.write(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sentences(grown) == []
    (found,) = sentences(grown, full=True)
    assert "are not those of the recipe that they are recorded for" in found
    assert "repo.checkout(force=True)" in advised(found)
    stored(grown, "state", "weights.json").unlink()
    with Repository.open(grown.root, author=at(50)) as repo:
        repo.checkout(force=True)
    assert np.array_equal(read_weights(grown.root)["model.norm.weight"], right["model.norm.weight"])
    assert sentences(grown, full=True) == []


@pytest.mark.parametrize("state", ["absent", "edited", "uncommitted"])
def test_weights_that_pass_for_nothing_wrong_are_no_problem(grown: Bot, state: str) -> None:
    grown.checkout()
    if state == "absent":
        (grown.root / "model.safetensors").unlink()
    elif state == "edited":
        write_model(grown.root, {name: bits + 1 for name, bits in read_weights(grown.root).items()})
    else:
        grown.repo.recipe.set("listening", alpha="0.1")
        grown.checkout()
    assert grown.repo.status().weights.state == state
    assert sentences(grown, full=True) == []


# -- what dangles and what is left over


def test_what_dangles_is_listed_by_what_leads_to_the_rest(grown: Bot) -> None:
    history = grown.repo._history
    head = history.head_commit()
    commit = history.commit(head)
    person = at(70)
    with history.store.transaction() as tx:
        first = tx.put("commit", Commit(commit.tree, (head,), person, person, "one\n").encode())
        last = tx.put("commit", Commit(commit.tree, (first,), person, person, "two\n").encode())
    vector = grown.repo.add(grown.tune("third", 9)).vectors[0].id
    grown.repo.restore(["recipe.toml"])
    for name in stored(grown, "refs", "vectors").glob("*"):
        name.unlink()
        stored(grown, "logs", "refs", "vectors", name.name).unlink()
    found = fsck(grown)
    assert found.ok
    assert [(one.kind, one.id) for one in found.dangling] == sorted(
        [("commit", last), ("vector", vector)], key=lambda one: one[1]
    )
    grown.repo.branches.create("back", last)
    assert [one.id for one in fsck(grown).dangling] == [vector]


def left(bot: Bot) -> list[Path]:
    """Files as commands leave them when they are killed."""
    made = [
        stored(bot, "tmp", "pack-4194304-0123456789abcdef"),
        stored(bot, "tmp", "file-1-0123456789abcdef"),
        bot.root / ".recipe.toml.tmp-1-0123456789abcdef",
        bot.root / ".persona-weights-1-0123456789abcdef",
        bot.root / "graph" / ".a.md.tmp-1-0123456789abcdef",
    ]
    (bot.root / "graph").mkdir(exist_ok=True)
    (bot.root / "graph" / "a.md").write_text("a note\n")
    bot.commit(message="with a note")
    for path in made:
        path.write_bytes(bytes(1000))
    return made


def test_leftovers_of_dead_commands_are_counted_and_cleared_by_the_next(grown: Bot) -> None:
    made = left(grown)
    half = grown.root / ".persona.making-1-01234567"
    (half / "objects").mkdir(parents=True)
    (half / "objects" / "x").write_bytes(b"x")
    users = grown.root / "run-1-0123456789abcdef"
    users.write_text("the user's own")
    found = fsck(grown)
    assert found.ok
    assert {Path(one.file) for one in found.leftovers} == set(made)
    assert sum(one.bytes for one in grown.repo.count_objects().leftovers) == 5000
    grown.repo.recipe.set("listening", alpha="0.2")
    assert not any(path.exists() for path in [*made, half])
    assert users.read_text() == "the user's own"
    assert fsck(grown).leftovers == ()


@pytest.mark.parametrize("way", ["replaced", "removed"])
def test_a_file_that_was_moved_aside_by_a_killed_command_is_listed_and_kept(grown: Bot, way: str) -> None:
    class Killed(Quick):
        """Ends the command where the user's file lies under another name."""

        def exchange(self, one: Path, other: Path) -> None:
            super().exchange(one, other)
            raise KeyboardInterrupt

        def rename(self, source: Path, target: Path) -> None:
            super().rename(source, target)
            if source.name == "chat_template.jinja":
                raise KeyboardInterrupt

    place = grown.root / "chat_template.jinja"
    place.write_text("the user's last words\n")
    output = files.Output.create(grown.root, prefix=".chat_template.jinja.tmp")
    output.write(b"ours")
    output.finish()
    with files.replaced_calls(Killed()), pytest.raises(KeyboardInterrupt):
        output.replace_known(place, lambda _: True) if way == "replaced" else files.remove_known(
            place, lambda _: True
        )
    output._let_go()  # as the death of the command does
    grown.repo.recipe.set("listening", alpha="0.2")
    kept = [path for path in grown.root.iterdir() if path.is_file() and b"last words" in path.read_bytes()]
    assert len(kept) == 1
    assert str(kept[0]) in {one.file for one in fsck(grown).leftovers}


def test_what_a_living_command_is_writing_is_not_cleared(grown: Bot) -> None:
    from persona.store.files import Output

    with Output.create(stored(grown, "tmp"), prefix="pack") as output:
        output.write(b"half a pack")
        grown.repo.recipe.set("listening", alpha="0.2")
        assert output.path.exists()
        assert fsck(grown).leftovers == ()
        output.finish()
        grown.repo.recipe.set("listening", alpha="0.3")
        output.rename_to(stored(grown, "tmp", "named"))
    assert stored(grown, "tmp", "named").read_bytes() == b"half a pack"
    stored(grown, "tmp", "named").unlink()


def test_an_index_whose_pack_is_gone_is_noticed(grown: Bot) -> None:
    pack = next(stored(grown, "packs").glob("*.pack"))
    pack.unlink()
    found = fsck(grown)
    assert not found.ok
    assert str(pack.with_suffix(".idx")) in {one.file for one in found.leftovers}


# -- a record that is right by its hash and wrong by its id


@pytest.mark.parametrize("kind", ["chunk", "delta"])
def test_a_forged_chunk_heals_when_its_model_is_taken_in_again(grown: Bot, kind: str) -> None:
    right = grown.repo.digest().weights
    history = grown.repo._history
    objects = history.store.objects
    recipe = history.recipe_of(history.head_commit())
    owner = (
        history.base(recipe.base) if kind == "chunk" else history.vector(recipe.by_name["listening"].vector)
    )
    assert owner.table is not None
    table = decode_table(objects.get(owner.table, "table"), owner.tensors, owner.chunk)
    id = table.chunk("model.embed.weight", 0)
    record = objects.read(id, kind)
    other = objects.read(table.chunk("model.embed.weight", 1), kind)
    wrong = pack_record(kind, id, other.form, other.segments, relative=record.relative)
    for pack in stored(grown, "packs").glob("*.pack"):
        entries = objects.open_packs()[pack.stem].index()
        if entries.find(id) is None:
            continue
        from persona.store.pack import PackWriter

        writer = PackWriter(stored(grown, "tmp"))
        for entry in entries:
            held = objects.read(entry.id, entry.kind)
            made = pack_record(held.kind, held.id, held.form, held.segments, relative=held.relative)
            writer.append(wrong if entry.id == id else made)
        pack.unlink()
        pack.with_suffix(".idx").unlink()
        writer.publish(stored(grown, "packs"))
    assert any(id[:12] in text for text in sentences(grown, full=True))
    with Repository.open(grown.root, author=at(80)) as repo:
        if kind == "delta":
            repo.add(grown.models / "listening")
            assert repo.digest().weights == right
            assert repo.fsck(full=True).ok


def test_a_recipe_that_no_reader_would_take_is_refused_before_head_moves(grown: Bot) -> None:
    before = grown.repo.resolve("HEAD")
    patterns = ", ".join(f'"model.*.{number}"' for number in range(4097))
    grown.edit(lambda text: text.replace("alpha = 0.7", f"alpha = 0.7\nonly = [{patterns}]"))
    assert "only" in grown.recipe.read_text()
    with pytest.raises(PersonaError, match="4096"):
        grown.commit(message="too many")
    assert grown.repo.resolve("HEAD") == before


def test_what_is_committed_meanwhile_is_not_missing(grown: Bot) -> None:
    made: list[str | None] = []

    def commit(*_: object) -> None:
        if not made:
            with Repository.open(grown.root, author=at(), committer=at) as repo:
                made.append(repo.commit(message="meanwhile", allow_empty=True).id)

    assert grown.repo.fsck(full=True, progress=commit).problems == ()
    assert made == [grown.repo.resolve("HEAD")]


def test_what_was_stored_since_the_repository_was_opened_is_there(grown: Bot) -> None:
    assert grown.repo.fsck().ok
    with Repository.open(grown.root, author=at(), committer=at) as other:
        other.commit(grown.tune("another", 5), message="add another")
        there = other.count_objects()
        chunk = next(id for id, kind, _ in other._history.store.objects.iterate() if kind == "delta")
    assert grown.repo.count_objects() == there
    assert grown.repo.fsck().problems == ()
    assert grown.repo._history.store.objects.ids_with_prefix(chunk[:12]) == [(chunk, "delta")]


@pytest.mark.parametrize("how", ["lost", "damaged"])
def test_a_commit_that_is_gone_is_damage_and_no_unknown_revision(several: Bot, how: str) -> None:
    id = several.repo.resolve("precious")
    path = stored(several, "objects", id[:2], id[2:])
    path.unlink() if how == "lost" else path.write_bytes(b"")
    with Repository.open(several.root) as repo:
        for command in (repo.resolve, repo.checkout, repo.show, repo.digest):
            with pytest.raises(IntegrityError, match=id[2:12]):
                command("precious")
